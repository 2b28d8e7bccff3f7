//! A listening socket and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_webhook::LogLimit;

use crate::activity::Activity;
use crate::connection::Connections;
use crate::guests::Guests;
use crate::server::Shutdown;
use crate::unread::Unread;

/// The pause after a failed `accept`, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// The shortest time between two log lines about refused connections.
const LINES: Duration = Duration::from_secs(10);

/// A socket with its connections.
pub(crate) struct Listener {
    socket: TcpListener,
    connections: Arc<Connections>,
    guests: Guests,
    unread: Arc<Unread>,
    max_connections: usize,
    refused: Refused,
}

impl Listener {
    /// `name` is the label in the metrics and the log.
    pub(crate) fn new(
        name: &'static str,
        socket: TcpListener,
        connections: Arc<Connections>,
        unread: Arc<Unread>,
        max_connections: usize,
    ) -> Self {
        let refused = Refused::new(name, max_connections);
        Self { socket, connections, guests: Guests::default(), unread, max_connections, refused }
    }

    /// Serves until the stop begins. Returns the connections that are still open then.
    pub(crate) async fn serve(self, shutdown: &Shutdown) -> JoinSet<()> {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.clone().begun() => break,
                Some(_) = running.join_next() => {}
                (stream, peer) = self.accept() => match self.has_room(running.len(), peer) {
                    true => self.begin(&mut running, stream, peer),
                    // Dropping the stream closes it.
                    false => self.refused.add(peer),
                }
            }
        }
        // From now on the system refuses new connections.
        drop(self.socket);
        running
    }

    /// Whether another connection can be served beside those that are `running`, perhaps in place of an idle one.
    fn has_room(&self, running: usize, peer: SocketAddr) -> bool {
        running < self.max_connections || (self.guests.make_room() && self.refused.replaced(peer))
    }

    fn begin(&self, running: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let activity = Activity::begin(&self.unread);
        let places = (self.guests.enter(peer.ip(), &activity), self.unread.enter(&activity));
        let task = running.spawn(Arc::clone(&self.connections).serve(stream, peer, Arc::clone(&activity), places));
        activity.is_served_by(task);
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = self.socket.accept().await.and_then(|(stream, peer)| {
                stream.set_nodelay(true)?;
                Ok((stream, peer))
            });
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) => {
                    self.refused.failed(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Counts and logs connections that are not served.
struct Refused {
    name: &'static str,
    max_connections: usize,
    counter: Counter,
    replaced: Counter,
    lines: LogLimit<&'static str>,
}

impl Refused {
    fn new(name: &'static str, max_connections: usize) -> Self {
        let counter = metrics::counter!("tower_webhook_connections_refused_total", "listener" => name);
        let replaced = metrics::counter!("tower_webhook_connections_replaced_total", "listener" => name);
        Self { name, max_connections, counter, replaced, lines: LogLimit::new(1, LINES) }
    }

    fn add(&self, peer: SocketAddr) {
        self.counter.increment(1);
        let Some(left_out) = self.lines.admit("refused") else { return };
        tracing::warn!(
            listener = self.name,
            refused = left_out + 1,
            %peer,
            limit = self.max_connections,
            "new connections are refused: MAX_CONNECTIONS are in use, and none of them is idle"
        );
    }

    /// Always true, so that it can follow a condition.
    fn replaced(&self, peer: SocketAddr) -> bool {
        self.replaced.increment(1);
        if let Some(left_out) = self.lines.admit("replaced") {
            tracing::warn!(
                listener = self.name,
                replaced = left_out + 1,
                %peer,
                limit = self.max_connections,
                "idle connections without an admitted request are closed to make room for new ones: MAX_CONNECTIONS are in \
                 use"
            );
        }
        true
    }

    fn failed(&self, error: &std::io::Error) {
        let Some(left_out) = self.lines.admit("failed") else { return };
        tracing::warn!(listener = self.name, failed = left_out + 1, %error, "connections cannot be accepted");
    }
}
