//! The memory of answers that peers do not read.
//!
//! The first unread answer of a connection is part of the connection's cost, which `MAX_CONNECTIONS` bounds. Each further
//! one counts here, and so do encrypted bytes that the socket does not accept. When all listeners together exceed the
//! budget, the connections that hold most are ended.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;
use tower_webhook::LogLimit;

use crate::activity::Activity;
use crate::register::{Place, Register};

/// The memory of one answer: its HTTP/2 stream and the stream's task. Its body is small, shared with other answers (the
/// metrics), or bounded elsewhere (`/admin`).
pub(crate) const ANSWER: usize = 4 << 10;

/// The most bytes that rustls buffers in encrypted form.
pub(crate) const ENCRYPTED: usize = 64 << 10;

/// The most bytes that all connections together may hold.
const BUDGET: usize = 32 << 20;

/// How many bytes may remain after connections have been ended.
const LEFT: usize = BUDGET / 4 * 3;

/// A peer that lets an answer wait longer than this is slow. A quick reader may have many answers, each for a moment.
const QUICK: Duration = Duration::from_secs(1);

/// The shortest time between two log lines about ended connections.
const LINES: Duration = Duration::from_secs(10);

pub(crate) struct Unread {
    held: AtomicUsize,
    connections: Arc<Register<Activity>>,
    ended: Counter,
    lines: LogLimit<()>,
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the connections: each of them refers to this.
        f.debug_struct("Unread").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Unread {
    pub(crate) fn new() -> Arc<Self> {
        let ended = metrics::counter!("tower_webhook_connections_unread_total");
        let (held, connections) = (AtomicUsize::new(0), Register::new());
        Arc::new(Self { held, connections, ended, lines: LogLimit::new(1, LINES) })
    }

    /// Registers a connection that may be ended.
    pub(crate) fn enter(&self, activity: &Arc<Activity>) -> Place<Activity> {
        self.connections.enter(activity)
    }

    /// Counts `bytes` until they are [released](Self::release). Returns whether the budget is exceeded.
    pub(crate) fn hold(&self, bytes: usize) -> bool {
        self.held.fetch_add(bytes, Ordering::Relaxed) + bytes > BUDGET
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ends connections if the budget is exceeded. The caller must not hold a connection's lock.
    pub(crate) fn make_room(&self) {
        let held = || self.held.load(Ordering::Relaxed);
        let searched = self.connections.search(|all, now| end_largest(all, held(), now));
        let (ended, excess) = searched.unwrap_or_default();
        if ended == 0 {
            return;
        }
        self.ended.increment(ended);
        if let Some(left_out) = self.lines.admit(()) {
            tracing::warn!(
                ended = ended + left_out,
                excess,
                "the connections with the most unread answers are closed: unread answers hold too much memory"
            );
        }
    }
}

/// Ends the connections that hold most, slow ones first, until at most [`LEFT`] of the `held` bytes remain. Returns how many
/// were ended, and by how many bytes the budget was exceeded.
fn end_largest<'a>(connections: impl Iterator<Item = &'a Arc<Activity>>, held: usize, now: Instant) -> (u64, usize) {
    let Some(excess) = held.checked_sub(BUDGET).filter(|excess| *excess > 0) else { return (0, 0) };
    let holding = connections.filter_map(|activity| {
        let (bytes, since) = activity.held()?;
        Some((since + QUICK < now, bytes, activity))
    });
    let mut holding: Vec<_> = holding.collect();
    holding.sort_unstable_by_key(|(is_slow, bytes, _)| (*is_slow, *bytes));
    let (mut remains, mut ended) = (held, 0);
    while remains > LEFT
        && let Some((_, bytes, activity)) = holding.pop()
    {
        activity.end();
        remains = remains.saturating_sub(bytes);
        ended += 1;
    }
    (ended, excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(unread: &Arc<Unread>, bytes: usize) -> Arc<Activity> {
        let activity = Activity::begin(unread);
        activity.hold(bytes);
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn the_slow_ones_that_hold_most_end_first_and_as_many_as_needed() {
        let unread = Unread::new();
        let held = || unread.held.load(Ordering::Relaxed);
        let mut all: Vec<_> = [1, 3, 4].map(|share| holding(&unread, BUDGET / 16 * share)).into();
        tokio::time::advance(2 * QUICK).await;
        all.push(holding(&unread, BUDGET / 2));
        assert_eq!(end_largest(all.iter(), held(), Instant::now()), (0, 0), "the budget is kept");
        all.push(holding(&unread, BUDGET / 16));
        assert_eq!(end_largest(all.iter(), held(), Instant::now()), (2, BUDGET / 16));
        let ended: Vec<_> = all.iter().map(|activity| activity.has_stalled()).collect();
        assert_eq!(ended, [false, true, true, false, false]);
        assert_eq!(held(), BUDGET / 16 * 10, "a connection that ends holds nothing");
        let [_, over, ..] = &all[..] else { panic!() };
        over.hold(BUDGET);
        over.release(BUDGET);
        assert_eq!(held(), BUDGET / 16 * 10);
        all.clear();
        assert_eq!(held(), 0, "a connection that is gone holds nothing");
    }

    #[tokio::test]
    async fn the_connection_ends_that_brings_the_sum_over_the_budget() {
        let unread = Unread::new();
        let small = holding(&unread, BUDGET / 4);
        let _small = unread.enter(&small);
        let large = Activity::begin(&unread);
        let _large = unread.enter(&large);
        large.is_served_by(tokio::spawn(std::future::pending::<()>()).abort_handle());
        large.hold(BUDGET);
        assert!(large.has_stalled() && !small.has_stalled());
        let task = large.task().unwrap().clone();
        tokio::time::timeout(Duration::from_secs(20), async {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
