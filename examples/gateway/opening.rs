//! A connection before its first byte or between two requests: it holds no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at a time: enough for a usual head.
const PIECE: usize = 1 << 10;

/// A stream whose first bytes have already been read. A reader gets those bytes first.
#[derive(Debug)]
pub(crate) struct Opening<S> {
    first: Bytes,
    stream: S,
}

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl<S: AsyncRead + Unpin> Opening<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { first: Bytes::new(), stream }
    }

    /// Whether bytes have been read.
    pub(crate) fn has_begun(&self) -> bool {
        !self.first.is_empty()
    }

    /// Puts back bytes that were read and not used.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            // Even empty ones keep the buffer in which they arrived.
            return;
        }
        let after = std::mem::take(&mut self.first);
        self.first = if after.is_empty() { bytes } else { [bytes, after].concat().into() };
    }

    /// Reads until it is clear which protocol the peer speaks. `None` if the stream ends before its first byte.
    pub(crate) async fn protocol(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            if !self.wait_for_more().await? {
                return Ok(self.has_begun().then_some(Protocol::Http1));
            }
            if self.first.starts_with(PREFACE) {
                return Ok(Some(Protocol::Http2));
            }
            if !PREFACE.starts_with(&self.first) {
                return Ok(Some(Protocol::Http1));
            }
        }
    }

    /// Reads and keeps more bytes. Returns `false` at the end of the stream.
    pub(crate) async fn wait_for_more(&mut self) -> io::Result<bool> {
        let mut stream = Pin::new(&mut self.stream);
        let more = poll_fn(|cx| {
            // The buffer is not part of the future, where each connection would hold it.
            let mut bytes = [0; PIECE];
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(stream.as_mut().poll_read(cx, &mut buf))?;
            Poll::Ready(io::Result::Ok(Bytes::copy_from_slice(buf.filled())))
        });
        let more = more.await?;
        if more.is_empty() {
            return Ok(false);
        }
        let before = std::mem::take(&mut self.first);
        self.first = if before.is_empty() { more } else { [before, more].concat().into() };
        Ok(true)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The protocol of a peer that sends these pieces and then closes, and all that is read.
    async fn of(pieces: &[&str]) -> (Option<Protocol>, String) {
        let (stream, mut peer) = tokio::io::duplex(1);
        let mut opening = Opening::new(stream);
        let send = async {
            for piece in pieces {
                peer.write_all(piece.as_bytes()).await.unwrap();
            }
            drop(peer);
        };
        let read = async {
            let protocol = opening.protocol().await.unwrap();
            let mut all = String::new();
            opening.read_to_string(&mut all).await.unwrap();
            (protocol, all)
        };
        tokio::join!(read, send).0
    }

    #[tokio::test]
    async fn the_first_bytes_show_the_protocol_and_are_read_again() {
        let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let after = &format!("{http2}more");
        for (pieces, protocol) in [
            (&[""][..], None),
            (&["GET / HTTP/1.1\r\n\r\n"], Some(Protocol::Http1)),
            (&["P"], Some(Protocol::Http1)),
            (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r"], Some(Protocol::Http1)),
            (&["PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n"], Some(Protocol::Http1)),
            (&["PRI * H", "TTP/2.0\r\n\r\nSM\r\n\r\n"], Some(Protocol::Http2)),
            (&[http2], Some(Protocol::Http2)),
            (&[after], Some(Protocol::Http2)),
        ] {
            assert_eq!(of(pieces).await, (protocol, pieces.concat()));
        }
    }

    #[tokio::test]
    async fn bytes_that_are_put_back_come_first() {
        let (stream, mut peer) = tokio::io::duplex(64);
        let mut opening = Opening::new(stream);
        peer.write_all(b"cd").await.unwrap();
        assert!(opening.wait_for_more().await.unwrap());
        opening.put_back(Bytes::from_static(b"ab"));
        opening.put_back(Bytes::new());
        drop(peer);
        let mut all = String::new();
        opening.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "abcd");
    }
}
