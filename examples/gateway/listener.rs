//! A listening socket and its connections.

use std::net::SocketAddr;
use std::time::Duration;

use metrics::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_webhook::LogLimit;

use crate::connection::Connections;
use crate::server::Shutdown;

/// The pause after a connection could not be accepted, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a line may say that connections are refused.
const LINES: Duration = Duration::from_secs(10);

/// A socket, and how many of its connections are served at a time.
pub(crate) struct Listener {
    socket: TcpListener,
    connections: Connections,
    max_connections: usize,
    refused: Refused,
}

impl Listener {
    /// `name` is its label in the metrics and the log.
    pub(crate) fn new(
        name: &'static str,
        socket: TcpListener,
        connections: Connections,
        max_connections: usize,
    ) -> Self {
        Self { socket, connections, max_connections, refused: Refused::new(name, max_connections) }
    }

    /// Serves until the stop begins. Returns the connections that are still served then.
    pub(crate) async fn serve(self, shutdown: &Shutdown) -> JoinSet<()> {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.clone().begun() => break,
                Some(_) = running.join_next() => {}
                (stream, peer) = self.accept() => match running.len() < self.max_connections {
                    true => drop(running.spawn(self.connections.clone().serve(stream, peer))),
                    // One too many is closed at once.
                    false => self.refused.add(peer),
                }
            }
        }
        // From here on the system refuses new connections.
        drop(self.socket);
        running
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

/// Connections that are not served.
struct Refused {
    name: &'static str,
    max_connections: usize,
    counter: Counter,
    lines: LogLimit<&'static str>,
}

impl Refused {
    fn new(name: &'static str, max_connections: usize) -> Self {
        let counter = metrics::counter!("tower_webhook_connections_refused_total", "listener" => name);
        Self { name, max_connections, counter, lines: LogLimit::new(1, LINES) }
    }

    fn add(&self, peer: SocketAddr) {
        self.counter.increment(1);
        let Some(left_out) = self.lines.admit("refused") else { return };
        tracing::warn!(
            listener = self.name,
            refused = left_out + 1,
            %peer,
            limit = self.max_connections,
            "new connections are refused: all connections that the limit allows are in use"
        );
    }

    fn failed(&self, error: &std::io::Error) {
        let Some(left_out) = self.lines.admit("failed") else { return };
        tracing::warn!(listener = self.name, failed = left_out + 1, %error, "connections cannot be accepted");
    }
}
