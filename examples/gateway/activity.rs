//! The activity of a connection, and how long its peer may keep the server waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

/// How long a peer may keep the server waiting for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For a whole head: from the start of the connection on, or from the head's first byte on if it is not the first.
    pub(crate) head: Duration,
    /// For the first byte of the next head.
    pub(crate) idle: Duration,
}

/// The activity of a connection. The connection's tasks write it, and one timer reads it from time to time, so that no
/// request sets a timer.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    /// Requests that are being answered.
    running: AtomicUsize,
    /// While nothing is being answered: since when the peer is waited for, in milliseconds from `began`, and in the lowest
    /// bit whether a [`HEAD`] has begun.
    waiting: AtomicU64,
    /// In HTTP/2 bytes that come are no sign of a head: they may be the answer to a PING.
    is_http2: AtomicBool,
    /// The body of the last HTTP/1 request has not been read to its end.
    unread: AtomicBool,
}

/// A head has begun, and not yet ended.
const HEAD: u64 = 1;

impl Activity {
    /// A connection that begins now: its first head is waited for.
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            running: AtomicUsize::new(0),
            waiting: AtomicU64::new(HEAD),
            is_http2: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        })
    }

    /// Bytes have come.
    pub(crate) fn heard(&self) {
        let is_idle = self.waiting.load(Ordering::Relaxed) & HEAD == 0 && self.running.load(Ordering::Relaxed) == 0;
        if is_idle && !self.is_http2.load(Ordering::Relaxed) {
            self.wait_for(HEAD);
        }
    }

    /// Whether the peer may go on to send a body that nobody reads.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    pub(crate) fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    fn wait_for(&self, what: u64) {
        self.waiting.store((self.began.elapsed().as_millis() as u64) << 1 | what, Ordering::Relaxed);
    }

    /// When the peer has kept the server waiting for too long; `None` while the server keeps the peer waiting.
    fn deadline(&self, limits: Limits) -> Option<Instant> {
        if self.running.load(Ordering::Acquire) > 0 {
            return None;
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        let limit = if waiting & HEAD == HEAD { limits.head } else { limits.idle };
        Some(self.began + Duration::from_millis(waiting >> 1) + limit)
    }

    /// Resolves when the peer has kept the server waiting for too long.
    pub(crate) async fn expired(&self, limits: Limits) {
        loop {
            // Often enough to see in time whatever begins in the meantime.
            let next = Instant::now() + limits.head.min(limits.idle);
            let deadline = self.deadline(limits);
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return;
            }
            sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        }
    }

    /// Resolves after `limit`, or later, when nothing is being answered.
    pub(crate) async fn quiet(&self, limit: Duration) {
        loop {
            sleep(limit).await;
            if self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Running(Arc<Activity>);

impl Running {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First the time: a reader that sees that nothing runs must see since when.
        self.0.wait_for(0);
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}
