//! The connection type `websocket`.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig as Limits};

use super::config::{Target, WebSocketConnectionConfig};
use super::error;
use super::session::{Proof, Session};
use crate::base::lock::lock;
use crate::config::BuildError;
use crate::egress::{ClientTls, Egress};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Sessions};
use crate::module::connection::{ConnectionContext, ConnectionKind, unconnected};

/// The time limit for an attempt: lookup, TCP, TLS and the handshake.
const ATTEMPT: Duration = Duration::from_secs(6);

/// The most connections whose responses are waited for.
const MOST: usize = 8;

/// The largest message of a target, in bytes.
const LARGEST: usize = 1 << 20;

/// A target that speaks WebSocket (RFC 6455), for webhooks that name a connection of type `websocket`.
///
/// ```json
/// {"type": "websocket", "url": "wss://events.example.com/in", "headers": {"Authorization": "Bearer {$EVENTS_TOKEN}"}}
/// ```
///
/// All webhooks share one network connection, and up to 8 more for messages whose response is waited for. The first
/// deliveries open them. One that is lost is made anew at once, and then with waits of up to 5 s; meanwhile deliveries
/// fail with [`Connect`](crate::event::DeliverErrorKind::Connect). A target that is silent for 15 s is given up.
pub struct WebSocketConnection {
    dialer: Dialer,
}

impl WebSocketConnection {
    /// Connects through `egress`, which checks each address.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`WebSocketConnectionConfig`], or the host is an address that the policy of
    /// `egress` refuses. The addresses of names are checked when a connection is made.
    pub fn new(egress: &Egress, config: WebSocketConnectionConfig) -> Result<Self, BuildError> {
        let target = config.read(egress.policy())?;
        let tls = target.tls.as_ref().map(|options| egress.client_tls(options)).transpose();
        let tls = tls.map_err(|error| format!("`tls`: {error}"))?;
        let shown = target.uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
        let dialer = Dialer {
            egress: egress.clone(),
            shown: shown.unwrap_or_default().into(),
            target: Arc::new(target),
            tls: tls.map(Arc::new),
            proof: Proof::Pong,
        };
        Ok(Self { dialer })
    }

    /// The host and port of the target.
    pub(super) fn shown(&self) -> &str {
        &self.dialer.shown
    }

    /// Opens nothing yet.
    pub(super) fn open(&self) -> WebSocketClient {
        WebSocketClient { dialer: self.dialer.clone(), shared: OnceLock::new(), pool: Pool::default() }
    }
}

impl ConnectionKind for WebSocketConnection {
    const TYPE: &'static str = "websocket";
    type Config = WebSocketConnectionConfig;
    type Client = WebSocketClient;

    /// Connects to public addresses only.
    fn build(config: WebSocketConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    /// Opens nothing yet.
    async fn connect(&self) -> Result<WebSocketClient, DeliverError> {
        Ok(self.open())
    }
}

/// The client of a [`WebSocketConnection`], which holds its network connections.
pub struct WebSocketClient {
    dialer: Dialer,
    shared: OnceLock<Sessions<Session>>,
    pool: Pool,
}

impl WebSocketClient {
    /// Sends a message, and waits for its proof. There is no time limit.
    pub(super) async fn send(&self, proof: Proof, message: Message) -> Result<(), DeliverError> {
        match proof {
            Proof::Pong => {
                let sessions = self.shared.get_or_init(|| Sessions::open(self.dialer.clone()));
                sessions.current().await?.send(message).await
            }
            Proof::Response => {
                let mut lease = self.pool.lease(&self.dialer).await?;
                let Some(sessions) = &lease.sessions else { return Err(lost(&self.dialer.shown)) };
                let session = sessions.current().await?;
                lease.asked = Some(session.clone());
                session.send(message).await?;
                lease.asked = None;
                Ok(())
            }
        }
    }
}

fn lost(host: &str) -> DeliverError {
    error::lost(host, "it ends")
}

/// Connections with at most one message on its way each. They are made as they are needed, and kept.
struct Pool {
    turns: Semaphore,
    idle: Mutex<Vec<Sessions<Session>>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { turns: Semaphore::new(MOST), idle: Mutex::default() }
    }
}

/// A connection that one delivery uses.
struct Lease<'a> {
    pool: &'a Pool,
    sessions: Option<Sessions<Session>>,
    /// The session on which a response may still arrive.
    asked: Option<Session>,
    _turn: SemaphorePermit<'a>,
}

impl Pool {
    async fn lease(&self, dialer: &Dialer) -> Result<Lease<'_>, DeliverError> {
        let turn = self.turns.acquire().await.map_err(|_| lost(&dialer.shown))?;
        let idle = lock(&self.idle).pop();
        let open = || Sessions::open(Dialer { proof: Proof::Response, ..dialer.clone() });
        Ok(Lease { pool: self, sessions: Some(idle.unwrap_or_else(open)), asked: None, _turn: turn })
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // A late response would be taken for that of the next message.
        if let Some(session) = self.asked.take() {
            session.give_up();
        }
        if let Some(sessions) = self.sessions.take() {
            lock(&self.pool.idle).push(sessions);
        }
    }
}

/// Makes connections with one target.
#[derive(Clone)]
struct Dialer {
    egress: Egress,
    /// Host and port.
    shown: Arc<str>,
    target: Arc<Target>,
    tls: Option<Arc<ClientTls>>,
    proof: Proof,
}

impl Dial for Dialer {
    type Session = Session;

    async fn dial(&self) -> Result<Session, DeliverError> {
        let silent = || {
            let text = format!("no connection within {ATTEMPT:?}");
            error::of(&self.shown, DeliverErrorKind::Timeout, &text)
        };
        timeout(ATTEMPT, self.connect()).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn ended(session: &Session) {
        session.ended().await;
    }
}

impl Dialer {
    async fn connect(&self) -> Result<Session, DeliverError> {
        let unconnected = |error| unconnected(&self.shown, &error);
        let Target { host, port, .. } = &*self.target;
        match &self.tls {
            None => self.greet(self.egress.connect(host, *port).await.map_err(unconnected)?).await,
            Some(tls) => self.greet(tls.connect(host, *port).await.map_err(unconnected)?).await,
        }
    }

    async fn greet<S>(&self, stream: S) -> Result<Session, DeliverError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = self.request().map_err(|_| {
            error::of(&self.shown, DeliverErrorKind::Config, "the `url` and the `headers` make no valid request")
        })?;
        let limits =
            Limits::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST)).read_buffer_size(16 << 10);
        let connected = client_async_with_config(request, stream, Some(limits)).await;
        let (stream, _) = connected.map_err(|error| error::not_connected(&self.shown, &error))?;
        Ok(Session::begin(Arc::clone(&self.shown), self.proof, stream))
    }

    /// The handshake (RFC 6455 §4.1).
    fn request(&self) -> Result<Request<()>, http::Error> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(self.target.uri.clone())
            .header(header::HOST, &*self.shown)
            .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .body(())?;
        request.headers_mut().extend(self.target.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(request)
    }
}

/// Shows only the host: everything else may hold a secret.
impl fmt::Debug for WebSocketConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConnection").field("host", &self.dialer.shown).finish_non_exhaustive()
    }
}

impl fmt::Debug for WebSocketClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketClient").field("host", &self.dialer.shown).finish_non_exhaustive()
    }
}
