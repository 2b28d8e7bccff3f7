//! What a target answered.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// What a target answered to one attempt: its status, and the beginning of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// At most the first 1,024 bytes of the body.
    pub body: Bytes,
}

impl Answer {
    /// The most bytes of a body that are kept: 1,024.
    pub const MAX_BYTES: usize = 1024;

    /// An answer with the beginning of this body.
    pub fn new(status: u16, body: &[u8]) -> Self {
        let kept = body.get(..Self::MAX_BYTES).unwrap_or(body);
        Self { status, body: Bytes::copy_from_slice(kept) }
    }
}

/// Takes what the target answers to one attempt. [`Delivery::reply`](super::Delivery::reply) returns it.
///
/// The attempt is reported once this is used or dropped, so neither keep it longer than the answer takes, nor wait for
/// the answer longer than the delivery itself needs.
#[must_use = "the answer is reported by `answered`"]
pub struct Reply(Arc<dyn Answered>);

/// An attempt that a target may answer.
pub(crate) trait Answered: Send + Sync {
    /// An answer may follow.
    fn expect(&self);

    /// The answer, or that there is none.
    fn answered(&self, answer: Option<Answer>);
}

impl Reply {
    pub(super) fn to(attempt: Arc<dyn Answered>) -> Self {
        attempt.expect();
        Self(attempt)
    }

    /// Reports the answer.
    pub fn answered(self, answer: Answer) {
        self.0.answered(Some(answer));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.answered(None);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
