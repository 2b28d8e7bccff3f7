//! What remembers events beyond the life of the process.

use futures_util::future::BoxFuture;

use super::rule::EventDigest;
use super::table::Answer;

/// The copy of the table that outlives the process.
pub(super) trait Durable: Send + Sync {
    /// The time, in seconds since 1970, that what an earlier process has left may expire by, once it is known.
    fn time_for_expiry(&self) -> Option<u32>;

    /// Writes down that `event` was taken, and is to be remembered for `ttl` seconds. The future is over when that
    /// outlives the process, or cannot be had.
    fn append(&self, event: EventDigest, answer: Answer, ttl: u32) -> BoxFuture<'static, ()>;
}
