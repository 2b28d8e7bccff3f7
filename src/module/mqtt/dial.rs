//! Connects to the server and logs in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::config::{Login, Tls};
use super::error;
use super::incoming::{Incoming, Violation, decode};
use super::outgoing::Connect;
use super::packet::Version;
use super::session::Session;
use crate::egress::{ClientTls, Egress, TlsOptions};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server};
use crate::module::connection::unconnected;

/// The time limit for an attempt: lookup, TCP, TLS and the login.
const ATTEMPT: Duration = Duration::from_secs(6);

/// The largest file with a certificate or key, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Makes sessions with one server.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) egress: Egress,
    pub(super) server: Arc<Server>,
    /// Host and port.
    pub(super) shown: Arc<str>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) version: Version,
    pub(super) client_id: Arc<str>,
    pub(super) login: Arc<Login>,
    /// In seconds.
    pub(super) keep_alive: u16,
}

impl Dial for Dialer {
    type Session = Session;

    async fn dial(&self) -> Result<Session, DeliverError> {
        timeout(ATTEMPT, self.connect()).await.unwrap_or_else(|_| Err(error::silent(&self.shown, ATTEMPT)))
    }

    async fn ended(session: &Session) {
        session.ended().await;
    }
}

impl Dialer {
    async fn connect(&self) -> Result<Session, DeliverError> {
        let unconnected = |error| unconnected(&self.shown, &error);
        let Server { host, port } = &*self.server;
        match self.tls.as_deref() {
            None => self.log_in(self.egress.connect(host, *port).await.map_err(unconnected)?).await,
            Some(Tls::Given(tls)) => self.log_in(tls.connect(host, *port).await.map_err(unconnected)?).await,
            Some(Tls::Files { ca, client, server_name }) => {
                let tls = self.read(ca.as_ref(), client.as_ref(), server_name.clone()).await?;
                self.log_in(tls.connect(host, *port).await.map_err(unconnected)?).await
            }
        }
    }

    /// TLS with the files' certificates.
    async fn read(
        &self,
        ca: Option<&String>,
        client: Option<&(String, String)>,
        server_name: Option<String>,
    ) -> Result<ClientTls, DeliverError> {
        let read = async |option: &str, path: Option<&String>| match path {
            None => Ok(None),
            Some(path) => {
                let path = path.clone();
                let text = tokio::task::spawn_blocking(move || read_file(&path)).await;
                let text = text.unwrap_or_else(|_| Err(io::Error::other("it was not read")));
                text.map(Some).map_err(|error| self.unusable(&format!("`{option}` cannot be read: {error}")))
            }
        };
        let options = TlsOptions {
            ca: read("tls_ca_cert_file", ca).await?,
            client_cert: read("tls_cert_file", client.map(|(certificate, _)| certificate)).await?,
            client_key: read("tls_key_file", client.map(|(_, key)| key)).await?,
            server_name,
        };
        self.egress.client_tls(&options).map_err(|error| self.unusable(&format!("the files for TLS: {error}")))
    }

    fn unusable(&self, text: &str) -> DeliverError {
        DeliverError::new(DeliverErrorKind::Config, format!("{}: {text}", self.shown))
    }

    /// Logs in over `stream`.
    async fn log_in<S>(&self, mut stream: S) -> Result<Session, DeliverError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error| error::not_answered(&self.shown, &error);
        let connect = Connect {
            version: self.version,
            client_id: &self.client_id,
            user: self.login.user.as_deref(),
            password: self.login.password.as_deref(),
            keep_alive: self.keep_alive,
        };
        stream.write_all(&connect.encode()).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut bytes = BytesMut::new();
        let violation = |violation| error::violation(&self.shown, violation);
        let answer = loop {
            if let Some(answer) = decode(&mut bytes, self.version).map_err(violation)? {
                break answer;
            }
            if stream.read_buf(&mut bytes).await.map_err(broken)? == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        match answer {
            Incoming::Accepted(limits) => {
                let server = Arc::clone(&self.shown);
                Ok(Session::begin(server, self.version, stream, bytes, limits, self.keep_alive))
            }
            Incoming::Refused(reason) => Err(error::refused(&self.shown, self.version, &reason)),
            Incoming::Disconnect(reason) => Err(error::ended(&self.shown, &reason)),
            _ => Err(violation(Violation("the first packet is no answer to the login"))),
        }
    }
}

fn read_file(path: &str) -> io::Result<String> {
    use std::io::Read;

    let mut text = String::new();
    // A path may lead to a device.
    std::fs::File::open(path)?.take(LARGEST_FILE).read_to_string(&mut text)?;
    Ok(text)
}
