//! Connects to a server: a stream through the egress, and the login.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::config::Access;
use super::error;
use super::frame::{self, Decoder, Frame, Headers};
use super::link::{HeartBeat, Link, Socket};
use crate::config::BuildError;
use crate::egress::{ClientTls, Egress};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server};

/// The time limit for one server: lookup, TCP, TLS and the login.
const ATTEMPT: Duration = Duration::from_secs(6);

/// The time limit for an attempt at all servers.
const ATTEMPTS: Duration = Duration::from_secs(9);

/// How often each side says something at least.
const HEART_BEAT: Duration = Duration::from_secs(5);

/// Everything that is needed to connect.
#[derive(Clone)]
pub(super) struct Dialer(Arc<Inner>);

struct Inner {
    egress: Egress,
    servers: Vec<Server>,
    login: Option<(String, String)>,
    vhost: String,
    tls: Option<ClientTls>,
}

impl Dial for Dialer {
    type Session = Link;

    async fn dial(&self) -> Result<Link, DeliverError> {
        let late = |_| DeliverError::new(DeliverErrorKind::Timeout, format!("no server answered within {ATTEMPTS:?}"));
        timeout(ATTEMPTS, self.any()).await.map_err(late)?
    }

    async fn ended(session: &Link) {
        session.ended().await;
    }
}

impl Dialer {
    pub(super) fn new(egress: &Egress, access: Access) -> Result<Self, BuildError> {
        let Access { servers, login, vhost, tls } = access;
        let tls = tls.map(|options| egress.client_tls(&options)).transpose();
        let tls = tls.map_err(|error| format!("`tls`: {error}"))?;
        Ok(Self(Arc::new(Inner { egress: egress.clone(), servers, login, vhost, tls })))
    }

    pub(super) fn servers(&self) -> &[Server] {
        &self.0.servers
    }

    /// Tries the servers in a random order: of several, one may be a standby that refuses connections.
    async fn any(&self) -> Result<Link, DeliverError> {
        let mut servers: Vec<_> = self.0.servers.iter().collect();
        fastrand::shuffle(&mut servers);
        let mut last = None;
        for server in servers {
            let silent = || {
                let text = format!("{server}: no connection within {ATTEMPT:?}");
                Err(DeliverError::new(DeliverErrorKind::Timeout, text))
            };
            match timeout(ATTEMPT, self.one(server)).await.unwrap_or_else(|_| silent()) {
                Err(error) if error.kind() != DeliverErrorKind::Auth => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| DeliverError::new(DeliverErrorKind::Config, "the connection has no server")))
    }

    async fn one(&self, server: &Server) -> Result<Link, DeliverError> {
        let mut socket = self.socket(server).await?;
        let login = self.login().map_err(|wrong| error::unwritable("login", wrong))?;
        let mut buffer = BytesMut::new();
        let answered = answer(&mut socket, &login, &mut buffer).await.map_err(|wrong| match wrong {
            Wrong::Socket(error) => error::broke(server, &error),
            Wrong::Frame(wrong) => error::not_stomp(server, &wrong.to_string()),
        })?;
        match (&*answered.command, answered.header("version")) {
            ("CONNECTED", Some("1.2")) => {
                let beat = HeartBeat::agreed(HEART_BEAT, answered.header("heart-beat"));
                Ok(Link::over(socket, buffer, beat))
            }
            ("CONNECTED", _) => {
                let text = format!("{server}: the server speaks another version of STOMP, and this module 1.2");
                Err(DeliverError::new(DeliverErrorKind::Config, text))
            }
            ("ERROR", _) => {
                let password = self.0.login.as_ref().map(|(_, password)| &**password);
                Err(error::refused_login(server, &answered, password))
            }
            _ => Err(error::not_stomp(server, "it answers the login with another frame")),
        }
    }

    async fn socket(&self, server: &Server) -> Result<Box<dyn Socket>, DeliverError> {
        let Server { host, port } = server;
        let unreachable = |error| error::unreachable(server, &error);
        match &self.0.tls {
            Some(tls) => Ok(Box::new(tls.connect(host, *port).await.map_err(unreachable)?)),
            None => Ok(Box::new(self.0.egress.connect(host, *port).await.map_err(unreachable)?)),
        }
    }

    /// The first frame. Its name is `STOMP`, because the headers of one with the name `CONNECT` are not escaped.
    fn login(&self) -> Result<Vec<u8>, frame::Unwritable> {
        let mut headers = Headers::default();
        headers.add("accept-version", "1.2")?;
        headers.add("host", &self.0.vhost)?;
        let millis = HEART_BEAT.as_millis();
        headers.add("heart-beat", &format!("{millis},{millis}"))?;
        if let Some((user, password)) = &self.0.login {
            headers.add("login", user)?;
            headers.add("passcode", password)?;
        }
        Ok([&frame::head("STOMP", None, &headers)[..], b"\0"].concat())
    }
}

/// Why there is no answer.
enum Wrong {
    Socket(io::Error),
    Frame(frame::Invalid),
}

/// Sends the login, and reads the frame that answers it.
async fn answer(socket: &mut Box<dyn Socket>, login: &[u8], buffer: &mut BytesMut) -> Result<Frame, Wrong> {
    let mut decoder = Decoder::default();
    socket.write_all(login).await.map_err(Wrong::Socket)?;
    socket.flush().await.map_err(Wrong::Socket)?;
    loop {
        if let Some(frame) = decoder.next(buffer).map_err(Wrong::Frame)? {
            return Ok(frame);
        }
        if socket.read_buf(buffer).await.map_err(Wrong::Socket)? == 0 {
            return Err(Wrong::Socket(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
