//! The connection type `zeromq`, and the client that deliveries share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::config::{Place, ZeroMqConnectionConfig};
use super::frame::{Invalid, Message, Role};
use super::peer::{Peer, Wrong, lost};
use crate::base::lock::lock;
use crate::config::BuildError;
use crate::egress::{ConnectError, Egress, check_host};
use crate::event::DeliverErrorKind::{Config, Connect, Timeout, Unavailable};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server, Sessions};
use crate::module::connection::{ConnectionContext, ConnectionKind};

/// The time limit for a connection to a peer: lookup, TCP and the handshake.
const ATTEMPT: Duration = Duration::from_secs(6);

/// The time limit for the handshake of a peer that connects to this machine.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a delivery waits for a peer, and how often it looks.
const PATIENCE: Duration = Duration::from_millis(800);
const LOOK: Duration = Duration::from_millis(10);

/// How long an event waits for a subscriber that reads too slowly; it misses the event then.
const SLOW: Duration = Duration::from_millis(500);

/// The most peers that may be connected to this machine, and the most connections for requests.
const MOST_PEERS: usize = 64;
const MOST_REQUESTS: usize = 8;

/// A socket of ZeroMQ, which connects to a peer or, with `bind`, lets peers connect.
///
/// ```json
/// {"type": "zeromq", "endpoint": "tcp://worker.internal:5555", "socket_type": "REQ"}
/// ```
///
/// It speaks ZMTP 3.0 over TCP, without encryption and without credentials (the mechanism `NULL`). All webhooks that name it
/// share it. The first delivery opens it. A connection that is lost is made anew at once, and then with waits of up to 5 s.
///
/// With `bind` the address must be one that the operator's list of allowed networks names, and a peer is let in if the policy
/// allows connections to its address. At most 64 are.
pub struct ZeroMqConnection {
    role: Role,
    egress: Egress,
    place: Place,
}

impl ZeroMqConnection {
    /// Connects, or lets peers connect, as the policy of `egress` allows.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`ZeroMqConnectionConfig`], or the endpoint is an address that the policy of
    /// `egress` refuses. The addresses of a name are checked when a connection is made.
    pub fn new(egress: &Egress, config: &ZeroMqConnectionConfig) -> Result<Self, BuildError> {
        let place = config.place()?;
        match &place {
            Place::Connect(server) => {
                check_host(&server.host, egress.policy()).map_err(|error| format!("`endpoint` {error}"))?;
            }
            Place::Bind(address, _) if !egress.policy().lists(*address) => {
                let text = "with `bind` a port of this machine is opened: the address in `endpoint` must be in the \
                            networks that the operator lists in EGRESS_ALLOW (0.0.0.0 for `*`)";
                return Err(text.into());
            }
            Place::Bind(..) => {}
        }
        Ok(Self { role: config.socket_type.role(), egress: egress.clone(), place })
    }

    /// The host and port that are connected to, or those that peers connect to.
    pub(super) fn place(&self) -> String {
        match &self.place {
            Place::Connect(server) => server.to_string(),
            Place::Bind(address, port) => SocketAddr::new(*address, *port).to_string(),
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }
}

impl ConnectionKind for ZeroMqConnection {
    const TYPE: &'static str = "zeromq";
    type Config = ZeroMqConnectionConfig;
    type Client = ZeroMqClient;

    /// Connects to public addresses only, and binds to none; [`Registry::egress`](crate::Registry::egress) allows others.
    fn build(config: ZeroMqConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), &config)
    }

    /// Begins to connect, and does not wait for it; or opens the port.
    async fn connect(&self) -> Result<ZeroMqClient, DeliverError> {
        let (role, egress) = (self.role, self.egress.clone());
        let (reach, most) = match &self.place {
            Place::Connect(server) => {
                let dialer = Dialer { egress, server: server.clone(), role };
                let reach = Reach::Peer { sessions: Sessions::open(dialer.clone()), dialer, idle: Mutex::default() };
                (reach, MOST_REQUESTS)
            }
            Place::Bind(address, port) => (Reach::Bound(Bound::open(egress, *address, *port, role).await?), MOST_PEERS),
        };
        Ok(ZeroMqClient { role, reach, requests: Semaphore::new(most), turn: AtomicUsize::new(0) })
    }
}

/// The client of a [`ZeroMqConnection`].
pub struct ZeroMqClient {
    role: Role,
    reach: Reach,
    /// A permit for each request that waits for its reply.
    requests: Semaphore,
    /// Whose turn it is among several peers.
    turn: AtomicUsize,
}

enum Reach {
    /// A peer that is connected to. Requests go over further connections, one at a time each.
    Peer {
        sessions: Sessions<Peer>,
        dialer: Dialer,
        idle: Mutex<Vec<Peer>>,
    },
    Bound(Bound),
}

impl ZeroMqClient {
    /// Sends the parts in `before` and the body as one message. There is no time limit, but that it does not wait long for a
    /// peer.
    pub(super) async fn send(
        &self,
        before: &[&[u8]],
        body: &Bytes,
        require_receiver: bool,
    ) -> Result<(), DeliverError> {
        let message = Message::new(before, body);
        match self.role {
            Role::Req => self.ask(&message).await,
            Role::Pub => {
                let first = before.first().copied().unwrap_or(body);
                self.publish(first, &message, require_receiver).await
            }
            Role::Push | Role::Dealer => self.push(&message).await,
        }
    }

    async fn push(&self, message: &Message) -> Result<(), DeliverError> {
        let peers = self.peers(PATIENCE, |_| true).await?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..peers.len()).map(|at| &peers[turn.wrapping_add(at) % peers.len()]);
        let peer = in_turn().find(|peer| peer.is_ready()).or_else(|| in_turn().next());
        peer.ok_or_else(nobody)?.send(message).await
    }

    /// To the peers that have subscribed to messages with this `first` part.
    async fn publish(&self, first: &[u8], message: &Message, require_receiver: bool) -> Result<(), DeliverError> {
        let patience = if require_receiver { PATIENCE } else { Duration::ZERO };
        let peers = self.peers(patience, |peer| peer.wants(first)).await?;
        let sent = join_all(peers.iter().map(|peer| timeout(SLOW, peer.send(message)))).await;
        match sent.iter().any(|sent| matches!(sent, Ok(Ok(())))) {
            true => Ok(()),
            false if !require_receiver => Ok(()),
            false if peers.is_empty() => Err(DeliverError::new(Unavailable, "no subscriber wants the event")),
            false => Err(DeliverError::new(Unavailable, "no subscriber reads the event")),
        }
    }

    async fn ask(&self, message: &Message) -> Result<(), DeliverError> {
        let _request = self.requests.acquire().await.map_err(|_| lost())?;
        // Out of the list until its reply is there: if this attempt is given up, its connection ends.
        let peer = match &self.reach {
            Reach::Peer { sessions, dialer, idle } => {
                // While the peer is down, this fails within a second.
                sessions.current().await?;
                let found = pop(&mut lock(idle));
                match found {
                    Some(peer) => peer,
                    None => dialer.dial().await?,
                }
            }
            Reach::Bound(bound) => bound.take().await?,
        };
        peer.ask(message).await?;
        match &self.reach {
            Reach::Peer { idle, .. } => lock(idle).push(peer),
            Reach::Bound(bound) => lock(&bound.peers).push(peer),
        }
        Ok(())
    }

    /// The peers for which `wanted` holds. If there is none, it waits.
    async fn peers(&self, patience: Duration, wanted: impl Fn(&Peer) -> bool) -> Result<Vec<Peer>, DeliverError> {
        let until = Instant::now() + patience;
        loop {
            let mut peers = match &self.reach {
                Reach::Peer { sessions, .. } => vec![sessions.current().await?],
                Reach::Bound(bound) => lock(&bound.peers).clone(),
            };
            peers.retain(|peer| peer.is_usable() && wanted(peer));
            if !peers.is_empty() || Instant::now() >= until {
                return Ok(peers);
            }
            sleep(LOOK).await;
        }
    }
}

/// A connection that lives, if there is one.
fn pop(peers: &mut Vec<Peer>) -> Option<Peer> {
    peers.retain(Peer::is_usable);
    (!peers.is_empty()).then(|| peers.remove(0))
}

fn nobody() -> DeliverError {
    DeliverError::new(Connect, "no peer is connected")
}

/// Makes connections to a peer.
#[derive(Clone)]
struct Dialer {
    egress: Egress,
    server: Server,
    role: Role,
}

impl Dial for Dialer {
    type Session = Peer;

    async fn dial(&self) -> Result<Peer, DeliverError> {
        let Self { egress, server, role } = self;
        let error = |kind, text: String| DeliverError::new(kind, format!("{server}: {text}"));
        let dialling = async {
            let stream = egress.connect(&server.host, server.port).await;
            let stream = stream.map_err(|wrong| error(kind(&wrong), wrong.to_string()))?;
            Peer::meet(stream, *role, None).await.map_err(|wrong| match wrong {
                Wrong::Socket(wrong) => error(Connect, format!("the connection broke in the handshake: {wrong}")),
                Wrong::Peer(wrong @ Invalid::Peer(_)) => error(Connect, wrong.to_string()),
                Wrong::Peer(wrong) => error(Config, wrong.to_string()),
            })
        };
        let late = |_| Err(error(Timeout, format!("no connection within {ATTEMPT:?}")));
        timeout(ATTEMPT, dialling).await.unwrap_or_else(late)
    }

    async fn ended(session: &Peer) {
        session.ended().await;
    }
}

fn kind(error: &ConnectError) -> DeliverErrorKind {
    match error {
        ConnectError::Forbidden(..) => Config,
        ConnectError::Timeout => Timeout,
        _ => Connect,
    }
}

/// A port of this machine, and the peers that have connected to it.
struct Bound {
    peers: Arc<Mutex<Vec<Peer>>>,
    places: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Bound {
    async fn open(egress: Egress, address: IpAddr, port: u16, role: Role) -> Result<Self, DeliverError> {
        let listener = TcpListener::bind(SocketAddr::from((address, port))).await.map_err(|error| {
            // The client of the value before may still have the port.
            let kind = if error.kind() == std::io::ErrorKind::AddrInUse { Unavailable } else { Config };
            DeliverError::new(kind, format!("the port {port} cannot be opened: {error}"))
        })?;
        let (peers, places) = (Arc::<Mutex<Vec<Peer>>>::default(), Arc::new(Semaphore::new(MOST_PEERS)));
        let task = tokio::spawn(accept(listener, egress, role, Arc::clone(&peers), Arc::clone(&places)));
        Ok(Self { peers, places, task })
    }

    /// Takes a peer out of the list. Waits for one, but not long if none is connected.
    async fn take(&self) -> Result<Peer, DeliverError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = pop(&mut lock(&self.peers));
            match found {
                Some(peer) => return Ok(peer),
                // One place is held for the next peer.
                None if self.places.available_permits() + 1 >= MOST_PEERS && Instant::now() >= until => {
                    return Err(nobody());
                }
                None => sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    egress: Egress,
    role: Role,
    peers: Arc<Mutex<Vec<Peer>>>,
    places: Arc<Semaphore>,
) {
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, from)) = listener.accept().await else {
            // Too many open files, for example.
            sleep(PATIENCE).await;
            continue;
        };
        // Events go to this address, although it was the peer that has connected.
        if !egress.policy().allows(from.ip().to_canonical()) || stream.set_nodelay(true).is_err() {
            tracing::debug!(peer = %from.ip(), "a peer of ZeroMQ is not let in: the policy refuses its address");
            continue;
        }
        let peers = Arc::clone(&peers);
        tokio::spawn(async move {
            if let Ok(Ok(peer)) = timeout(HANDSHAKE, Peer::meet(stream, role, Some(place))).await {
                let mut peers = lock(&peers);
                peers.retain(Peer::is_usable);
                peers.push(peer);
            }
        });
    }
}

impl fmt::Debug for ZeroMqConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZeroMqConnection").field("role", &self.role).field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for ZeroMqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZeroMqClient").field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::frame::GREETING;
    use super::*;

    fn build(allowed: &str, json: &str) -> Result<ZeroMqConnection, String> {
        let egress = Egress::new(allowed.parse().unwrap());
        ZeroMqConnection::new(&egress, &serde_json::from_str(json).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_must_be_allowed_and_a_bound_one_be_listed() {
        let connect = r#"{"endpoint": "tcp://127.0.0.1:1", "socket_type": "PUSH"}"#;
        assert!(build("", connect).unwrap_err().contains("a loopback address"));
        assert!(build("127.0.0.0/8", connect).is_ok());
        for (address, listed) in [("127.0.0.1", "127.0.0.1"), ("*", "0.0.0.0"), ("8.8.8.8", "8.8.8.8")] {
            let bind = format!(r#"{{"endpoint": "tcp://{address}:1", "socket_type": "PUSH", "bind": true}}"#);
            assert!(build("", &bind).unwrap_err().contains("EGRESS_ALLOW"), "{address}");
            assert!(build(listed, &bind).is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_peer_of_another_address_than_the_policy_allows_is_not_let_in() {
        for (allowed, is_let_in) in [("", false), ("127.0.0.2", false), ("127.0.0.1", true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let egress = Egress::new(allowed.parse().unwrap());
            let places = Arc::new(Semaphore::new(MOST_PEERS));
            let task = tokio::spawn(accept(listener, egress, Role::Push, Arc::default(), places));
            let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut greeting = [0; GREETING];
            let read = timeout(PATIENCE * 10, peer.read_exact(&mut greeting)).await.unwrap();
            assert_eq!(read.is_ok(), is_let_in, "{allowed}");
            task.abort();
        }
    }
}
