//! What a target answered.

use bytes::Bytes;

/// What a target answered to one attempt: its status, and the beginning of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// At most the first 1,024 bytes of the body.
    pub body: Bytes,
}
