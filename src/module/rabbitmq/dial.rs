//! Connects to the server: a stream through the egress, which lapin gets, and the login.

use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use async_compat::{Compat, CompatExt};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties, runtime};
use tokio::net::TcpStream;

use super::config::Access;
use super::error;
use crate::base::lock::lock;
use crate::config::BuildError;
use crate::egress::{ClientTls, Egress};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::Server;

/// The interval of heartbeats, in seconds. A server that says nothing for two of them has lost the connection.
const HEARTBEAT: u16 = 10;

/// Everything that is needed to connect.
pub(super) struct Dial {
    server: Server,
    user: String,
    password: String,
    vhost: String,
    egress: Egress,
    tls: Option<ClientTls>,
    /// `None` without TLS.
    has_certificate: Option<bool>,
    /// Shown to the server's operator.
    name: String,
}

/// The network connection below a session. Dropping it ends the connection, so that lapin's thread ends too.
pub(super) struct Socket(Option<StdStream>);

impl Socket {
    fn of(stream: &TcpStream) -> Self {
        Self(stream.as_fd().try_clone_to_owned().ok().map(StdStream::from))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Dial {
    pub(super) fn new(egress: &Egress, access: Access, connection: &str) -> Result<Self, BuildError> {
        let Access { server, user, password, vhost, tls } = access;
        let has_certificate = tls.as_ref().map(|options| options.client_cert.is_some());
        let tls = tls.map(|options| egress.client_tls(&options)).transpose()?;
        let name = format!("tower-webhook, connection {connection}");
        Ok(Self { server, user, password, vhost, egress: egress.clone(), tls, has_certificate, name })
    }

    /// Connects and logs in. There is no time limit.
    pub(super) async fn connect(&self) -> Result<(Connection, Socket), DeliverError> {
        let (stream, socket) = self.stream().await?;
        // lapin calls the function once for each attempt, and makes one.
        let stream = Mutex::new(Some(stream));
        let connect = async move |_, _| {
            be_quiet();
            let stream = lock(&stream).take();
            stream.ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionAborted)))
        };
        let runtime = runtime::default_runtime().map_err(|error| self.refused(&error))?;
        let connected = Connection::connector(self.uri(), runtime, connect, self.properties()).await;
        Ok((connected.map_err(|error| self.refused(&error))?, socket))
    }

    /// The error of a server that accepts connections and says nothing.
    pub(super) fn silent(&self, limit: Duration) -> DeliverError {
        DeliverError::new(DeliverErrorKind::Timeout, format!("{}: no connection within {limit:?}", self.server))
    }

    async fn stream(&self) -> Result<(AsyncTcpStream<Compat<TcpStream>>, Socket), DeliverError> {
        let Server { host, port } = &self.server;
        let unreachable = |error| error::unreachable(&self.server, &error);
        let stream = self.egress.connect(host, *port).await.map_err(unreachable)?;
        let socket = Socket::of(&stream);
        let stream = stream.compat();
        let Some(tls) = &self.tls else { return Ok((AsyncTcpStream::Plain(stream), socket)) };
        let connector = RustlsConnector::from(tls.config().await.map_err(unreachable)?);
        let name = tls.server_name(host).map_err(unreachable)?;
        let stream = connector.connect_async(&name.to_str(), stream).await;
        Ok((AsyncTcpStream::Rustls(stream.map_err(|error| error::no_tls(&self.server, &error))?), socket))
    }

    fn uri(&self) -> AMQPUri {
        let userinfo = AMQPUserInfo { username: self.user.clone(), password: self.password.clone() };
        AMQPUri {
            // The stream has TLS already, if it shall have it.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority { userinfo, host: self.server.host.to_string(), port: self.server.port },
            vhost: self.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
        }
    }

    fn properties(&self) -> ConnectionProperties {
        ConnectionProperties::default()
            .with_connection_name(self.name.as_str().into())
            .with_client_property("product".into(), "tower-webhook".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
    }

    fn refused(&self, error: &lapin::Error) -> DeliverError {
        error::not_connected(&self.server, error, self.has_certificate)
    }
}

/// Keeps the log free of what lapin says on this thread, which is its own: it logs each message that the server returns,
/// with its body and headers.
fn be_quiet() {
    use std::cell::RefCell;

    use tracing::dispatcher::{DefaultGuard, Dispatch, set_default};

    thread_local! {
        static QUIET: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    QUIET.with(|quiet| {
        let mut quiet = quiet.borrow_mut();
        if quiet.is_none() {
            *quiet = Some(set_default(&Dispatch::none()));
        }
    });
}
