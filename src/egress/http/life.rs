//! Tracks the state of a connection, to decide whether a request may be sent again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::{Context, Poll};

use http::Extensions;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::flood::{Credit, Meter};

/// The beginnings of a request over HTTP/1.1.
const METHODS: [&[u8]; 3] = [b"POST ", b"PUT ", b"PATCH "];

/// Whether a connection is open and, over HTTP/1.1, whose turn it is: the target's once a request is being written,
/// ours once an answer has been read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life(Arc<Turns>);

#[derive(Debug, Default)]
struct Turns {
    /// Something was read since the last request began.
    heard: AtomicBool,
    /// The current request is not the first one.
    reused: AtomicBool,
    ended: AtomicBool,
    credit: Credit,
    end: Notify,
}

impl Life {
    /// The life of a [`Watched`] connection.
    pub(crate) fn of(connection: &Connected) -> Option<Self> {
        let mut extensions = Extensions::new();
        connection.get_extras(&mut extensions);
        extensions.remove()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until the connection has ended.
    pub(crate) async fn ended(&self) {
        // Registered before the check, so that no notification is missed.
        let end = self.0.end.notified();
        if !self.0.ended.load(Acquire) {
            end.await;
        }
    }

    fn end(&self) {
        self.0.ended.store(true, Release);
        self.0.end.notify_waiters();
    }

    /// Whether the connection has carried an answer before, but no byte of the answer to its last request. If it broke,
    /// the target may have closed it before the request arrived: it is unknown.
    pub(crate) fn ended_between_requests(&self) -> bool {
        self.0.reused.load(Relaxed) && !self.0.heard.load(Relaxed)
    }

    /// A request was given to the connection.
    pub(crate) fn request(&self) {
        self.0.credit.request();
    }

    fn read(&self) {
        self.0.heard.store(true, Relaxed);
    }

    /// A request begins. Returns whether it is a further one.
    fn begun(&self) -> bool {
        let turns = self.0.heard.load(Relaxed);
        if turns {
            self.0.heard.store(false, Relaxed);
            self.0.reused.store(true, Relaxed);
        }
        turns
    }
}

/// A connection that records its [`Life`], which is needed when an error ends it.
pub(crate) struct Watched<T> {
    stream: T,
    life: Life,
    meter: Meter,
    /// Whether everything has been written and flushed.
    is_flushed: bool,
}

impl<T> Watched<T> {
    pub(super) fn new(stream: T, is_http2: bool) -> Self {
        Self { stream, life: Life::default(), meter: Meter::new(is_http2), is_flushed: false }
    }

    /// Whether a further request begins with these bytes. The rest of a request whose answer has already begun may look
    /// like one. hyper writes a request at once, with its body, and flushes when nothing of it is left.
    fn writes(&mut self, bytes: &[u8]) -> bool {
        let was_flushed = std::mem::take(&mut self.is_flushed);
        was_flushed && METHODS.iter().any(|method| bytes.starts_with(method)) && self.life.begun()
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>, is_request: bool) {
        let bytes = match polled {
            Poll::Ready(Ok(bytes)) => *bytes,
            _ => 0,
        };
        self.meter.written(bytes, is_request, &self.life.0.credit);
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.life.end();
    }
}

impl<T: Connection> Connection for Watched<T> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.life.clone())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.meter.check(&this.life.0.credit)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            this.life.read();
            this.meter.read(read, &this.life.0.credit);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let is_request = self.writes(bytes);
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&polled, is_request);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_request = self.writes(slices.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice));
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(&polled, is_request);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_flushed = true;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_connection_is_noticed_before_and_after_it() {
        let watched = Watched::new((), false);
        let (early, late) = (watched.life.clone(), watched.life.clone());
        let waiting = tokio::spawn(async move { early.ended().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(watched);
        waiting.await.unwrap();
        late.ended().await;
    }

    type Pipe = (Watched<DuplexStream>, DuplexStream);

    /// A connection and its target.
    fn pipe() -> Pipe {
        let (ours, target) = tokio::io::duplex(1 << 20);
        (Watched::new(ours, false), target)
    }

    async fn answer((watched, target): &mut Pipe, bytes: &[u8]) -> io::Result<()> {
        target.write_all(bytes).await.unwrap();
        watched.read_exact(&mut vec![0; bytes.len()]).await.map(drop)
    }

    /// Writes a whole request. The end of the body looks like a request.
    async fn request(watched: &mut Watched<DuplexStream>) {
        for part in ["PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabcde", "POST "] {
            watched.write_all(part.as_bytes()).await.unwrap();
        }
        watched.flush().await.unwrap();
    }

    #[tokio::test]
    async fn only_a_later_request_without_a_byte_of_its_answer_may_have_met_a_closed_connection() {
        let mut pipe = pipe();
        let life = pipe.0.life.clone();
        assert!(!life.ended_between_requests());
        request(&mut pipe.0).await;
        assert!(!life.ended_between_requests(), "the first request");
        answer(&mut pipe, b"x").await.unwrap();
        assert!(!life.ended_between_requests(), "an answer");
        request(&mut pipe.0).await;
        assert!(life.ended_between_requests(), "the second request");
        answer(&mut pipe, b"x").await.unwrap();
        assert!(!life.ended_between_requests(), "the answer to the second request has begun");
    }

    #[tokio::test]
    async fn the_rest_of_a_request_whose_answer_has_begun_is_not_a_new_request() {
        let mut pipe = pipe();
        let life = pipe.0.life.clone();
        request(&mut pipe.0).await;
        answer(&mut pipe, b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        pipe.0.write_all(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nPOST ").await.unwrap();
        assert!(life.ended_between_requests(), "the second request");
        for rest in [&b"abc"[..], b"POST ", b"PATCH / HTTP/1.1\r\n"] {
            answer(&mut pipe, b"HTTP/1.1 103 Early Hints\r\n\r\n").await.unwrap();
            let slices = [io::IoSlice::new(b""), io::IoSlice::new(rest)];
            assert_eq!(pipe.0.write_vectored(&slices).await.unwrap(), rest.len());
            assert!(!life.ended_between_requests(), "the rest of the second request");
            pipe.0.write_all(rest).await.unwrap();
            assert!(!life.ended_between_requests(), "the rest of the second request");
        }
    }

    #[tokio::test]
    async fn writing_the_rest_of_a_request_does_not_reset_the_count_of_interim_answers() {
        let mut pipe = pipe();
        let interim = [b'x'; 64 << 10];
        pipe.0.write_all(b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n").await.unwrap();
        let mut count = 0;
        while count < 100 && answer(&mut pipe, &interim).await.is_ok() {
            pipe.0.write_all(b"POST ").await.unwrap();
            count += 1;
        }
        assert!(count < 10, "{count}");
        pipe.0.flush().await.unwrap();
        request(&mut pipe.0).await;
        pipe.0.read_exact(&mut [0]).await.unwrap();
    }
}
