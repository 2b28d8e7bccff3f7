//! `PUSH`, `DEALER` and `PUB`: messages that nothing replies to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::dial::Dialer;
use super::frame::{Message, Role};
use super::peer::Peer;
use super::port::{PATIENCE, Port, nobody};
use crate::base::lock::lock;
use crate::egress::Egress;
use crate::event::DeliverError;
use crate::event::DeliverErrorKind::Unavailable;
use crate::module::broker::Sessions;

/// How often a delivery looks for a peer.
const LOOK: Duration = Duration::from_millis(10);

/// How long an event waits for a subscriber that reads too slowly; it misses the event then.
const SLOW: Duration = Duration::from_millis(500);

/// Sends messages to peers.
pub(super) struct OneWay {
    reach: Reach,
    /// Whose turn it is among several peers.
    turn: AtomicUsize,
}

enum Reach {
    /// A peer that is connected to.
    Peer(Sessions<Peer>),
    /// Peers that connect to this machine.
    Port { peers: Arc<Mutex<Vec<Peer>>>, _port: Port },
}

impl OneWay {
    /// Begins to connect, and does not wait for it.
    pub(super) fn connect(dialer: Dialer) -> Self {
        Self { reach: Reach::Peer(Sessions::open(dialer)), turn: AtomicUsize::new(0) }
    }

    /// Lets peers connect to this address.
    pub(super) async fn bind(egress: Egress, address: SocketAddr, role: Role) -> Result<Self, DeliverError> {
        let peers = Arc::<Mutex<Vec<Peer>>>::default();
        let welcome = {
            let peers = Arc::clone(&peers);
            move |met, place| {
                let mut peers = lock(&peers);
                peers.retain(Peer::is_usable);
                peers.push(Peer::new(met, role, Some(place)));
            }
        };
        let port = Port::open(egress, address, role, welcome).await?;
        Ok(Self { reach: Reach::Port { peers, _port: port }, turn: AtomicUsize::new(0) })
    }

    /// Sends a message to one peer, and waits until it is written. There is no time limit, but that it does not wait long for
    /// a peer.
    pub(super) async fn push(&self, message: &Message) -> Result<(), DeliverError> {
        let peers = self.peers(PATIENCE, |_| true).await?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..peers.len()).map(|at| &peers[turn.wrapping_add(at) % peers.len()]);
        let peer = in_turn().find(|peer| peer.is_ready()).or_else(|| in_turn().next());
        peer.ok_or_else(nobody)?.send(message).await
    }

    /// Sends a message to the peers that have subscribed to messages with this `first` part.
    pub(super) async fn publish(
        &self,
        first: &[u8],
        message: &Message,
        require_receiver: bool,
    ) -> Result<(), DeliverError> {
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

    /// The peers for which `wanted` holds. If there is none, it waits.
    async fn peers(&self, patience: Duration, wanted: impl Fn(&Peer) -> bool) -> Result<Vec<Peer>, DeliverError> {
        let until = Instant::now() + patience;
        loop {
            let mut peers = match &self.reach {
                Reach::Peer(session) => vec![session.current().await?],
                Reach::Port { peers, .. } => lock(peers).clone(),
            };
            peers.retain(|peer| peer.is_usable() && wanted(peer));
            if !peers.is_empty() || Instant::now() >= until {
                return Ok(peers);
            }
            sleep(LOOK).await;
        }
    }
}
