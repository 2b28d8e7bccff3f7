//! The end of a connection whose peer is still sending.
//!
//! The system resets a connection that is closed while bytes are unread or still arrive. The reset destroys an answer that
//! the peer has not read yet: a sender whose large body is refused sees `EPIPE` instead of the 401. So the server shuts
//! down its half, reads and discards for a while, and only then closes the connection (RFC 9112 §9.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::activity::Activity;
use crate::connection::GOODBYE;
use crate::server::Shutdown;
use crate::unread::ENCRYPTED;

/// The longest time for which the server reads and discards.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest time without a byte from the peer.
const SILENCE: Duration = Duration::from_secs(5);

/// How many connections may linger at a time, and how many bytes of each are discarded.
#[derive(Debug)]
pub(crate) struct Lingering {
    places: Semaphore,
    max_bytes: usize,
}

impl Lingering {
    /// At most half of the connections linger: the other half can be served however many senders are refused.
    pub(crate) fn new(max_connections: usize, max_bytes: usize) -> Arc<Self> {
        let places = (max_connections / 2).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self { places: Semaphore::new(places), max_bytes })
    }

    /// Closes `stream`, at once if the peer is done. With `more_expected` the peer may still be sending.
    pub(crate) async fn close(&self, stream: TcpStream, more_expected: bool, shutdown: &Shutdown) {
        match discard(&stream) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && more_expected => {}
            // The peer has closed its half too, or is not sending.
            Ok(0) | Err(_) => return,
        }
        let Ok(_place) = self.places.try_acquire() else {
            return tracing::debug!("too many connections linger: one is closed at once");
        };
        // Boxed: a connection that does not linger does not need the memory.
        Box::pin(self.linger(stream, shutdown)).await;
    }

    async fn linger(&self, mut stream: TcpStream, shutdown: &Shutdown) {
        if stream.shutdown().await.is_err() {
            return;
        }
        tokio::select! {
            () = drain(&stream, self.max_bytes) => {}
            () = sleep(PATIENCE) => {}
            // Lingering does not delay a stop.
            () = async { shutdown.clone().begun().await; sleep(GOODBYE).await } => {}
        }
    }
}

/// Reads and discards until the peer closes, is silent too long, or has sent too much.
async fn drain(stream: &TcpStream, max_bytes: usize) {
    let mut left = max_bytes;
    while let Ok(Ok(())) = timeout(SILENCE, stream.readable()).await {
        match discard(stream) {
            Ok(read @ 1..) if read < left => {
                left -= read;
                // A peer that sends quickly always has more: the other connections of this thread would wait for all of it.
                yield_now().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            // The excess may already be in the system's buffers: the peer then still comes to read the answer.
            Ok(_) => return sleep(SILENCE).await,
        }
    }
}

/// Reads once, without waiting.
fn discard(stream: &TcpStream) -> io::Result<usize> {
    // The buffer is not part of the future, where each connection would hold it.
    stream.try_read(&mut [0; 16 << 10])
}

/// A stream that is lent to a protocol: it comes back when the protocol drops it.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Always present until this is dropped.
    stream: Option<TcpStream>,
    back: Option<oneshot::Sender<TcpStream>>,
    activity: Arc<Activity>,
    /// The socket accepts no bytes.
    is_blocked: bool,
    /// Whether TLS buffers bytes while the socket is blocked.
    tls: bool,
}

/// Lends `stream`, and reports the bytes that are read and written to `activity`.
pub(crate) fn lend(stream: TcpStream, activity: Arc<Activity>, tls: bool) -> (Lent, oneshot::Receiver<TcpStream>) {
    let (back, returned) = oneshot::channel();
    (Lent { stream: Some(stream), back: Some(back), activity, is_blocked: false, tls }, returned)
}

impl Lent {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(bytes)) => {
                self.activity.took(bytes);
                if self.is_blocked {
                    self.is_blocked = false;
                    self.activity.settle();
                    if self.tls {
                        self.activity.release(ENCRYPTED);
                    }
                }
            }
            Poll::Pending if !self.is_blocked => {
                self.is_blocked = true;
                self.activity.owe();
                if self.tls {
                    self.activity.hold(ENCRYPTED);
                }
            }
            _ => {}
        }
        outcome
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            if self.activity.has_stalled() {
                // Else the system would go on offering the rest to the peer for minutes.
                let _ = stream.set_zero_linger();
            }
            // If nobody wants it back, this closes it.
            let _ = back.send(stream);
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.stream()?.poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.heard();
            self.activity.read(buf.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.stream()?.poll_write(cx, buf);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.stream()?.poll_write_vectored(cx, bufs);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    /// Announces that no more is sent. The peer's bytes can still be read.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn while_much_is_discarded_the_other_connections_have_their_turns() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut sent = 0;
        while sent < 1 << 20 {
            peer.writable().await.unwrap();
            match peer.try_write(&[0; 64 << 10]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        drop(peer);
        let turns = Cell::new(0);
        let others = async {
            loop {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = drain(&stream, usize::MAX) => {}
            () = others => {}
        }
        assert!(turns.get() >= sent / (16 << 10), "{turns:?} while {sent} bytes were discarded");
    }
}
