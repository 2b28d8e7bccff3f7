//! The connection type `nats`.

use std::fmt;
use std::sync::Arc;

use super::config::NatsConnectionConfig;
use super::dial::Dialer;
use super::session::Session;
use crate::config::BuildError;
use crate::egress::{Egress, check_host};
use crate::event::DeliverError;
use crate::module::broker::Sessions;
use crate::module::connection::{ConnectionContext, ConnectionKind};

/// The servers and the credentials of webhooks that name a connection of type `nats`.
///
/// ```json
/// {"type": "nats", "url": "tls://nats.example.com", "creds": "{$file:nats.creds}"}
/// ```
///
/// All webhooks share one network connection, which the first delivery opens. If it is lost, it is made anew at once, and
/// then with waits of up to 5 s; meanwhile deliveries fail with [`Connect`](crate::event::DeliverErrorKind::Connect). A
/// server that is silent for about 10 s is given up. Other servers that a server names are ignored.
pub struct NatsConnection {
    dialer: Dialer,
}

impl NatsConnection {
    /// Connects through `egress`, which checks each address.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`NatsConnectionConfig`], or a server is an address that the policy of
    /// `egress` refuses. The addresses of names are checked when a connection is made.
    pub fn new(egress: &Egress, config: NatsConnectionConfig) -> Result<Self, BuildError> {
        let (servers, is_tls, login) = config.read()?;
        for server in &servers {
            check_host(&server.host, egress.policy()).map_err(|error| format!("a server {error}"))?;
        }
        let is_tls = is_tls || config.tls.is_some() || config.tls_first;
        let options = config.tls.unwrap_or_default();
        if options.server_name.is_some() {
            return Err(
                "`server_name` in `tls` has no effect for NATS: its client always names the server's host".into()
            );
        }
        if let Some(prefix) = &config.inbox_prefix {
            check_prefix(prefix)?;
        }
        let tls = egress.client_tls(&options).map_err(|error| format!("`tls`: {error}"))?;
        let dialer = Dialer {
            egress: egress.clone(),
            servers,
            login,
            tls: Arc::new(tls),
            is_tls,
            tls_first: config.tls_first,
            inbox_prefix: config.inbox_prefix,
        };
        Ok(Self { dialer })
    }
}

fn check_prefix(prefix: &str) -> Result<(), BuildError> {
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|char| char.is_ascii_graphic() && !matches!(char, '*' | '>'));
    match prefix.len() <= 128 && prefix.split('.').all(is_word) {
        true => Ok(()),
        false => Err("`inbox_prefix` must be words between dots, at most 128 bytes, such as `_INBOX_shop`".into()),
    }
}

/// The client of a [`NatsConnection`], which holds its network connection.
#[derive(Debug)]
pub struct NatsClient(Sessions<Session>);

impl NatsClient {
    pub(super) async fn session(&self) -> Result<Session, DeliverError> {
        self.0.current().await
    }
}

impl ConnectionKind for NatsConnection {
    const TYPE: &'static str = "nats";
    type Config = NatsConnectionConfig;
    type Client = NatsClient;

    /// Connects to public addresses only.
    fn build(config: NatsConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    /// Begins to connect, and does not wait for it.
    async fn connect(&self) -> Result<NatsClient, DeliverError> {
        Ok(NatsClient(Sessions::open(self.dialer.clone())))
    }
}

/// Shows only the servers: everything else may hold a secret.
impl fmt::Debug for NatsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConnection").field("servers", &self.dialer.servers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(json: &str) -> Result<NatsConnection, String> {
        let egress = Egress::new("127.0.0.0/8".parse().unwrap());
        NatsConnection::new(&egress, serde_json::from_str(json).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused() {
        for (json, expected) in [
            (r#"{"url": "nats://10.0.0.1"}"#, "a server names a private address"),
            (r#"{"servers": ["127.0.0.1", "[::1]"]}"#, "a server names a loopback address"),
            (r#"{"url": "tls://a", "tls": {"server_name": "b"}}"#, "`server_name` in `tls` has no effect"),
            (r#"{"url": "nats://a", "tls": {"ca": "s3cret"}}"#, "`tls`: `ca`: "),
            (r#"{"url": "nats://a", "inbox_prefix": "a..b"}"#, "`inbox_prefix` must be words"),
            (r#"{"url": "nats://a", "inbox_prefix": "a.>"}"#, "`inbox_prefix` must be words"),
        ] {
            let error = build(json).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{json}: {error}");
        }
        let shown = format!("{:?}", build(r#"{"url": "nats://u:s3cret@127.0.0.1"}"#).unwrap());
        assert!(shown.contains("127.0.0.1") && !shown.contains("s3cret"), "{shown}");
    }

    #[tokio::test]
    async fn no_name_leads_to_a_refused_address() {
        for tls in [false, true] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let url = format!("nats://localhost:{}", listener.local_addr().unwrap().port());
            let config = serde_json::json!({"url": url, "tls": tls});
            let connection = NatsConnection::new(&Egress::default(), serde_json::from_value(config).unwrap()).unwrap();
            let client = connection.connect().await.unwrap();
            let error = client.session().await.unwrap_err();
            assert_eq!(error.kind(), crate::event::DeliverErrorKind::Config);
            assert!(
                error.to_string().contains("is a loopback address") && error.to_string().contains("EGRESS_ALLOW"),
                "{error}"
            );
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn tls_is_asked_for_in_three_ways() {
        for (json, is_tls) in [
            (r#"{"url": "nats://a"}"#, false),
            (r#"{"url": "tls://a"}"#, true),
            (r#"{"url": "nats://a", "tls": true}"#, true),
            (r#"{"url": "nats://a", "tls_first": true}"#, true),
        ] {
            assert_eq!(build(json).unwrap().dialer.is_tls, is_tls, "{json}");
        }
    }
}
