//! Makes sessions with a NATS cluster.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::Login;
use super::error;
use super::news::News;
use super::session::Session;
use crate::egress::{ClientTls, Egress};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server};

/// The time limit for a session with one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for an attempt at all servers.
const DIAL_TIMEOUT: Duration = Duration::from_secs(9);

/// A server that is silent for three times as long is given up.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// The most events that wait to be written to the connection.
const QUEUE: usize = 64;

/// How sessions are made.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) egress: Egress,
    pub(super) servers: Vec<Server>,
    pub(super) login: Login,
    pub(super) tls: Arc<ClientTls>,
    pub(super) is_tls: bool,
    pub(super) tls_first: bool,
    pub(super) inbox_prefix: Option<String>,
}

impl Dial for Dialer {
    type Session = Session;

    async fn dial(&self) -> Result<Session, DeliverError> {
        let late =
            |_| DeliverError::new(DeliverErrorKind::Timeout, format!("no server answered within {DIAL_TIMEOUT:?}"));
        timeout(DIAL_TIMEOUT, self.dial_any()).await.map_err(late)?
    }

    async fn ended(session: &Session) {
        session.ended().await;
    }
}

impl Dialer {
    /// Tries the servers in a random order, so that gateways spread over a cluster.
    async fn dial_any(&self) -> Result<Session, DeliverError> {
        let options = self.options().await?;
        let mut servers: Vec<_> = self.servers.iter().collect();
        fastrand::shuffle(&mut servers);
        let mut last = None;
        for server in servers {
            match self.dial_one(server, &options).await {
                Err(error) if error.kind() != DeliverErrorKind::Auth => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| DeliverError::new(DeliverErrorKind::Config, "the connection has no server")))
    }

    async fn dial_one(
        &self,
        server: &Server,
        options: &(impl Fn() -> Result<ConnectOptions, DeliverError> + Sync),
    ) -> Result<Session, DeliverError> {
        let addresses = self.egress.addresses(&server.host, server.port).await;
        let addresses = addresses.map_err(|error| error::unreachable(server, &error))?;
        // The client takes no stream of ours, and looks names up by itself. So it gets the address that was checked. With
        // TLS it must get the name, which is sent to the server: it is looked up once more, and a server is accepted only with a
        // valid certificate for this name.
        let targets: Vec<String> = match self.is_tls && server.literal().is_none() {
            true => vec![format!("tls://{server}")],
            false => addresses.iter().map(|address| format!("nats://{address}")).collect(),
        };
        let mut last = None;
        for target in targets {
            let target: ServerAddr = target.parse().map_err(|_| {
                DeliverError::new(DeliverErrorKind::Config, format!("{server}: not an address for NATS"))
            })?;
            match self.connect(target, options()?).await {
                Ok(session) => return Ok(session),
                Err(error) => last = Some(error::not_connected(server, &error, self.is_tls)),
            }
        }
        Err(last
            .unwrap_or_else(|| DeliverError::new(DeliverErrorKind::Connect, format!("{server}: it has no address"))))
    }

    async fn connect(&self, target: ServerAddr, options: ConnectOptions) -> Result<Session, async_nats::ConnectError> {
        let (news, _) = watch::channel(News::default());
        let told = news.clone();
        let options = options.event_callback(move |event| {
            told.send_modify(|news| news.hear(event));
            async {}
        });
        let client = options.connect(target).await?;
        Ok(Session::new(client, news))
    }

    /// Makes the options of a client, as often as it is called.
    async fn options(&self) -> Result<impl Fn() -> Result<ConnectOptions, DeliverError> + Sync, DeliverError> {
        let failed = |text: String| DeliverError::new(DeliverErrorKind::Config, text);
        let tls = self.tls.config().await.map_err(|error| failed(format!("TLS: {error}")))?;
        let creds = match &self.login {
            Login::Creds(text) => Some(text.clone()),
            Login::CredsFile(path) => {
                let read = tokio::task::spawn_blocking({
                    let path = path.clone();
                    move || std::fs::read_to_string(path)
                });
                let read = read.await.map_err(|_| failed("`creds_file` was not read".to_owned()))?;
                Some(read.map_err(|error| failed(format!("`creds_file` cannot be read: {error}")))?)
            }
            _ => None,
        };
        Ok(move || {
            let options = ConnectOptions::new()
                .name("tower-webhook")
                .no_echo()
                .connection_timeout(CONNECT_TIMEOUT)
                .ping_interval(PING_INTERVAL)
                .client_capacity(QUEUE)
                .request_timeout(None)
                // The addresses that a server names are not checked.
                .ignore_discovered_servers()
                // The client reconnects at most once, to the address that it has. Then it ends, and the next session is
                // made here, with a check.
                .max_reconnects(1)
                .require_tls(self.is_tls)
                // Without it the client would make a configuration of its own as soon as the server asks for TLS.
                .tls_client_config((*tls).clone());
            let options = if self.tls_first { options.tls_first() } else { options };
            let options = match &self.inbox_prefix {
                Some(prefix) => options.custom_inbox_prefix(prefix),
                None => options,
            };
            Ok(match (&self.login, &creds) {
                (Login::User(user, password), _) => options.user_and_password(user.clone(), password.clone()),
                (Login::Token(token), _) => options.token(token.clone()),
                (_, Some(creds)) => options.credentials(creds).map_err(|_| {
                    DeliverError::new(DeliverErrorKind::Config, "the credentials file has no user JWT and seed")
                })?,
                _ => options,
            })
        })
    }
}
