//! A target for events: a server that speaks HTTP/1.1 by hand, or something else.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::SECRET;
use crate::support::within;

/// An answer that means the event was delivered.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A request as it was received, with names in lower case.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// All values of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a field.
    pub(crate) fn one(&self, name: &str) -> &str {
        let values = self.all(name);
        assert_eq!(values.len(), 1, "{name} in {self:?}");
        values[0]
    }

    /// The names of all fields, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<Received>,
}

impl Target {
    /// Answers every request with the same text, on connections that stay open.
    pub(crate) async fn answering(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::serving(move |mut connection| {
            let text = text.clone();
            async move {
                while connection.request().await {
                    connection.send(&text).await;
                }
            }
        })
        .await
    }

    /// Serves each connection with `serve`, then closes it.
    pub(crate) async fn serving<F, S>(serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Connection) -> F + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let (sender, requests) = mpsc::unbounded_channel();
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(Connection { stream: BufReader::new(stream), requests: sender.clone() }));
            }
        });
        Self { address, connections, requests }
    }

    pub(crate) fn url(&self) -> String {
        url(self.address)
    }

    /// The number of connections that were made to the target.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next request that was received.
    pub(crate) async fn received(&mut self) -> Received {
        within("a request", self.requests.recv()).await.unwrap()
    }
}

/// A URL with a path that no message may show.
pub(crate) fn url(host: impl std::fmt::Display) -> String {
    format!("http://{host}/{SECRET}?token={SECRET}")
}

pub(crate) struct Connection {
    pub(crate) stream: BufReader<TcpStream>,
    requests: mpsc::UnboundedSender<Received>,
}

impl Connection {
    /// Reads one request; `false` at the connection's end.
    pub(crate) async fn request(&mut self) -> bool {
        let mut line = String::new();
        if !matches!(self.stream.read_line(&mut line).await, Ok(1..)) {
            return false;
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
        self.stream.read_exact(&mut body).await.unwrap();
        // The test may have stopped listening.
        let _ = self.requests.send(Received { line: line.trim_end().to_owned(), headers, body });
        true
    }

    /// Sends bytes; `false` if the peer has hung up.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Waits until the peer hangs up.
    pub(crate) async fn hung_up(&mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }
}
