//! Bodies in memory: a request's, and an answer's.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::memory::Charge;

/// A request body that is all there.
///
/// As a [`Body`] it is one frame, so that any service that takes a body takes this one.
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

    /// All of the body, byte for byte as received.
    pub fn bytes(&self) -> &Bytes {
        &self.whole
    }

    /// All of the body, byte for byte as received. A [`BodyMemory`](super::memory::BodyMemory) does not count it any more.
    pub fn into_bytes(self) -> Bytes {
        self.whole
    }

    pub(crate) fn into_parts(self) -> (Bytes, Charge) {
        (self.whole, self.charge)
    }
}

/// Not the bytes: they may hold secrets.
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

/// The body of the answers this crate gives: all there, or empty.
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
