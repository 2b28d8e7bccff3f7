//! A connection that carries one request at a time.
//!
//! It has no task: a delivery writes its request and reads the reply itself. With a task, each request would wait for two more
//! wakeups.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::frame::{self, Decoder, Invalid, Message, Received};
use super::handshake::{Met, lost};
use crate::event::DeliverError;

/// The room for a read: a usual reply fits.
const READ: usize = 512;

/// The bytes of a request that one write carries. A larger body has a write of its own.
const BUFFER: usize = 8 << 10;

/// A connection to a `REP` or `ROUTER`.
pub(super) struct Line {
    stream: BufWriter<TcpStream>,
    decoder: Decoder,
    buffer: BytesMut,
    _place: Option<OwnedSemaphorePermit>,
}

impl Line {
    /// `place` is held for as long as the connection lives.
    pub(super) fn new(met: Met, place: Option<OwnedSemaphorePermit>) -> Self {
        let stream = BufWriter::with_capacity(BUFFER, met.stream);
        Self { stream, decoder: Decoder::default(), buffer: met.buffer, _place: place }
    }

    /// Sends a request, and waits for its reply. There is no time limit. The connection ends if the future is dropped: the
    /// reply, which may still come, would be taken for that of the next request.
    pub(super) async fn ask(mut self, request: &Message) -> Result<Self, DeliverError> {
        self.write(&[&request.head, &request.body]).await?;
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(Received::Message(parts))) if parts.len() > 1 && parts[0].is_empty() => return Ok(self),
                // Not a reply.
                Ok(Some(Received::Message(_))) => {}
                Ok(Some(Received::Command(command))) => {
                    if let Some(pong) = frame::pong(&command) {
                        self.write(&[&pong]).await?;
                    }
                }
                Ok(None) => {
                    self.buffer.reserve(READ);
                    let read = self.stream.read_buf(&mut self.buffer).await;
                    if !matches!(read, Ok(1..)) {
                        return Err(lost());
                    }
                }
                Err(wrong) => return Err(ended(&wrong)),
            }
        }
    }

    async fn write(&mut self, pieces: &[&[u8]]) -> Result<(), DeliverError> {
        for piece in pieces {
            self.stream.write_all(piece).await.map_err(|_| lost())?;
        }
        self.stream.flush().await.map_err(|_| lost())
    }

    /// Answers the peer while no request is under way. Whether the connection can carry another one; the task of `cx` is woken
    /// when that may have changed.
    pub(super) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(Received::Command(command))) => {
                    let pong = frame::pong(&command).unwrap_or_default();
                    if !pong.is_empty() && self.stream.get_ref().try_write(&pong).ok() != Some(pong.len()) {
                        return false;
                    }
                }
                // It answers no request. The message behind it may not answer the next one either.
                Ok(Some(Received::Message(_))) => return false,
                Ok(None) => {
                    self.buffer.reserve(READ);
                    match pin!(self.stream.read_buf(&mut self.buffer)).poll(cx) {
                        Poll::Pending => return true,
                        Poll::Ready(Ok(1..)) => {}
                        Poll::Ready(_) => return false,
                    }
                }
                Err(wrong) => {
                    ended(&wrong);
                    return false;
                }
            }
        }
    }

    /// Whether the peer is not in the middle of a message.
    pub(super) fn is_quiet(&self) -> bool {
        self.buffer.is_empty() && self.decoder.is_between_messages()
    }
}

fn ended(wrong: &Invalid) -> DeliverError {
    tracing::debug!(%wrong, "the connection to a peer of ZeroMQ is ended");
    lost()
}
