//! The interface of a store that remembers events across restarts.

use futures_util::future::BoxFuture;

use super::rule::EventDigest;
use super::table::Answer;

/// A copy of the table that survives the process.
pub(super) trait Durable: Send + Sync {
    /// The time in seconds since 1970 by which events of an earlier process may expire; `None` until the clock is trusted.
    fn time_for_expiry(&self) -> Option<u32>;

    /// Records that `event` was taken, to be remembered for `ttl` seconds. The future resolves when the record survives a
    /// crash of the process, or when it could not be written.
    fn append(&self, event: EventDigest, answer: Answer, ttl: u32) -> BoxFuture<'static, ()>;
}
