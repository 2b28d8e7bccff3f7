//! A port of this machine, and the peers that connect to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::frame::Role;
use super::handshake::{Met, meet};
use crate::egress::Egress;
use crate::event::DeliverError;
use crate::event::DeliverErrorKind::{Config, Connect, Unavailable};

/// The time limit for the handshake of a peer.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The wait after a connection that could not be accepted: too many open files, for example.
const PAUSE: Duration = Duration::from_millis(800);

/// How long a delivery waits for a peer.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);

/// The most peers that may be connected.
pub(super) const MOST_PEERS: usize = 64;

/// A port that is open for as long as this value lives.
pub(super) struct Port {
    places: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Port {
    /// Opens the port. `welcome` gets each peer that has made the handshake, and the place that it occupies.
    pub(super) async fn open(
        egress: Egress,
        address: SocketAddr,
        role: Role,
        welcome: impl Fn(Met, OwnedSemaphorePermit) + Clone + Send + 'static,
    ) -> Result<Self, DeliverError> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            // The client of the value before may still have the port.
            let kind = if error.kind() == std::io::ErrorKind::AddrInUse { Unavailable } else { Config };
            DeliverError::new(kind, format!("the port {} cannot be opened: {error}", address.port()))
        })?;
        let places = Arc::new(Semaphore::new(MOST_PEERS));
        let task = tokio::spawn(accept(listener, egress, role, Arc::clone(&places), welcome));
        Ok(Self { places, task })
    }

    /// Whether a peer is connected, or has begun its handshake.
    pub(super) fn has_peers(&self) -> bool {
        // One place is held for the next peer.
        self.places.available_permits() + 1 < MOST_PEERS
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    egress: Egress,
    role: Role,
    places: Arc<Semaphore>,
    welcome: impl Fn(Met, OwnedSemaphorePermit) + Clone + Send + 'static,
) {
    let is_allowed = |from: IpAddr| egress.policy().allows(from.to_canonical());
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        // Events go to this address, although it was the peer that has connected.
        if !is_allowed(from.ip()) || stream.set_nodelay(true).is_err() {
            tracing::debug!(peer = %from.ip(), "a peer of ZeroMQ is not let in: the policy refuses its address");
            continue;
        }
        let welcome = welcome.clone();
        tokio::spawn(async move {
            if let Ok(Ok(met)) = timeout(HANDSHAKE, meet(stream, role)).await {
                welcome(met, place);
            }
        });
    }
}

/// The error of a delivery that has waited for a peer.
pub(super) fn nobody() -> DeliverError {
    DeliverError::new(Connect, "no peer is connected")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::frame::GREETING;
    use super::*;

    #[tokio::test]
    async fn a_peer_of_another_address_than_the_policy_allows_is_not_let_in() {
        for (allowed, is_let_in) in [("", false), ("127.0.0.2", false), ("127.0.0.1", true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let egress = Egress::new(allowed.parse().unwrap());
            let places = Arc::new(Semaphore::new(MOST_PEERS));
            let task = tokio::spawn(accept(listener, egress, Role::Push, places, |_, _| {}));
            let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut greeting = [0; GREETING];
            let read = timeout(PAUSE * 10, peer.read_exact(&mut greeting)).await.unwrap();
            assert_eq!(read.is_ok(), is_let_in, "{allowed}");
            task.abort();
        }
    }
}
