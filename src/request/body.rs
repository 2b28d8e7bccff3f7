//! Bodies in memory: of requests and of responses.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::memory::Charge;

/// A complete request body.
///
/// It implements [`Body`] with one frame, so that any service that accepts a body accepts this one.
#[derive(Clone, Default)]
pub struct Collected {
    whole: Bytes,
    is_read: bool,
    charge: Charge,
}

impl Collected {
    /// The body `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self::charged(bytes, Charge::default())
    }

    pub(crate) fn charged(whole: Bytes, charge: Charge) -> Self {
        Self { whole, is_read: false, charge }
    }

    /// The whole body, byte for byte as received.
    pub fn bytes(&self) -> &Bytes {
        &self.whole
    }

    /// The whole body, byte for byte as received. It no longer counts towards the [`BodyMemory`](super::memory::BodyMemory).
    pub fn into_bytes(self) -> Bytes {
        self.whole
    }

    pub(crate) fn into_parts(self) -> (Bytes, Charge) {
        (self.whole, self.charge)
    }
}

/// Omits the bytes: they may hold secrets.
impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collected({} bytes)", self.whole.len())
    }
}

impl Body for Collected {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let is_over = self.is_end_stream();
        self.is_read = true;
        Poll::Ready((!is_over).then(|| Ok(Frame::data(self.whole.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_read || self.whole.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.is_read { 0 } else { self.whole.len() as u64 })
    }
}

/// The body of this crate's responses: complete, or empty.
#[derive(Clone, Debug, Default)]
pub struct ResponseBody(Bytes);

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
