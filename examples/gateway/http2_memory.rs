//! The memory of HTTP/2 connections, also of those that are idle.
//!
//! h2 allocates 28 KiB for each connection and has no setting for that: an idle one costs about 25 KB, and 33 KB with TLS.
//! Its table of header fields has at most 4 KiB by the rules of HPACK, which count names and values. But a `:path` or an
//! `:authority` in the table keeps the whole buffer in which it arrived, and h2 bounds the table by its own default even if
//! the server announces a smaller one. So a stranger could make an idle connection hold 3.5 MB.
//!
//! Therefore a connection counts as all that h2 may keep of what the peer has sent. When all connections together exceed
//! the budget, the gateway sends a GOAWAY to the largest ones: their peers open another connection for their next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tower_webhook::LogLimit;

use crate::activity::Activity;
use crate::register::{self, Register};

/// The memory of a connection whose peer has sent nothing.
const CONNECTION: usize = 32 << 10;

/// The largest buffer that a head may keep although it holds bytes of a body too.
const BUFFER: usize = 16 << 10;

/// The most that the table of one connection keeps: 107 of the shortest fields, each from a head of 96 KiB.
const TABLE: usize = 10 << 20;

/// The most bytes that all connections together may count. More end gracefully.
const BUDGET: usize = 48 << 20;

/// How many bytes remain after connections were asked to end.
const LEFT: usize = BUDGET / 4 * 3;

/// The most bytes including the connections that are ending. More end at once.
const LIMIT: usize = 4 * BUDGET;

/// Connections that differ by less count as equal, and then those go first that have been idle longest.
const GRAIN: usize = 64 << 10;

/// The shortest time between two log lines.
const LINES: Duration = Duration::from_secs(10);

/// All HTTP/2 connections.
pub(crate) struct Http2Memory {
    held: AtomicUsize,
    connections: Arc<Register<Connection>>,
    closed: metrics::Counter,
    lines: LogLimit<()>,
}

struct Connection {
    activity: Arc<Activity>,
    bytes: AtomicUsize,
    is_leaving: AtomicBool,
}

/// Counts a connection until this is dropped.
pub(crate) struct Place {
    memory: Arc<Http2Memory>,
    connection: Arc<Connection>,
    _registered: register::Place<Connection>,
}

impl Http2Memory {
    pub(crate) fn new() -> Arc<Self> {
        let closed = metrics::counter!("tower_webhook_http2_connections_closed_total");
        let (held, connections) = (AtomicUsize::new(0), Register::new());
        Arc::new(Self { held, connections, closed, lines: LogLimit::new(1, LINES) })
    }

    pub(crate) fn enter(self: &Arc<Self>, activity: &Arc<Activity>) -> Place {
        let (activity, bytes) = (Arc::clone(activity), AtomicUsize::new(0));
        let connection = Arc::new(Connection { activity, bytes, is_leaving: AtomicBool::new(false) });
        let registered = self.connections.enter(&connection);
        Place { memory: Arc::clone(self), connection, _registered: registered }
    }

    fn make_room(&self) {
        let searched = self.connections.search(|all, _| end_largest(all));
        let (asked, ended) = searched.unwrap_or_default();
        // Not those that are ended at once: as a rule, each was asked and counted before.
        self.closed.increment(asked as u64);
        if asked + ended > 0
            && let Some(left_out) = self.lines.admit(())
        {
            tracing::warn!(
                asked,
                ended,
                left_out,
                "the HTTP/2 connections with the most memory are closed: all of them together hold too much"
            );
        }
    }
}

/// Asks the connections that count most to end, until the others keep to [`LEFT`], and ends those at once that together
/// exceed [`LIMIT`]. Returns how many were asked and how many were ended.
fn end_largest<'a>(connections: impl Iterator<Item = &'a Arc<Connection>>) -> (usize, usize) {
    let counted = connections.map(|connection| (connection.bytes.load(Ordering::Relaxed), connection));
    let mut counted: Vec<_> = counted.collect();
    // The largest come first. Of equal ones those come first that answer no request, beginning with the longest idle.
    counted.sort_by_cached_key(|(bytes, connection)| {
        let idle = connection.activity.idle_since();
        (usize::MAX - bytes / GRAIN, idle.is_none(), idle)
    });
    let (mut all, mut lasting) = (0, 0);
    for (bytes, connection) in &counted {
        all += bytes;
        lasting += if connection.is_leaving.load(Ordering::Relaxed) { 0 } else { *bytes };
    }
    let (mut asked, mut ended, is_too_much) = (0, 0, lasting > BUDGET);
    for (bytes, connection) in counted {
        if all > LIMIT {
            connection.activity.task().inspect(|task| task.abort());
            all -= bytes;
            ended += 1;
        }
        if is_too_much && lasting > LEFT && !connection.is_leaving.swap(true, Ordering::Relaxed) {
            connection.activity.leave();
            lasting -= bytes;
            asked += 1;
        }
    }
    (asked, ended)
}

impl Place {
    /// Counts what the peer has sent so far.
    pub(crate) fn count(&self) {
        let traffic = self.connection.activity.traffic();
        let heads = traffic.read.saturating_sub(traffic.bodies).saturating_add(BUFFER.saturating_mul(traffic.requests));
        let bytes = CONNECTION + heads.min(traffic.read).min(TABLE);
        let before = self.connection.bytes.swap(bytes, Ordering::Relaxed);
        if bytes < before {
            self.memory.held.fetch_sub(before - bytes, Ordering::Relaxed);
        } else if self.memory.held.fetch_add(bytes - before, Ordering::Relaxed) + bytes - before > BUDGET {
            self.memory.make_room();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.connection.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::PAUSE;
    use crate::unread::Unread;

    /// A connection whose peer has sent `bytes` of heads.
    fn sent(memory: &Arc<Http2Memory>, bytes: usize) -> Place {
        let activity = Activity::begin(&Unread::new());
        let place = memory.enter(&activity);
        activity.read(bytes);
        place.count();
        place
    }

    fn leaving(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.connection.is_leaving.load(Ordering::Relaxed)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_are_asked_to_leave_and_then_those_that_have_been_idle_longest() {
        let memory = Http2Memory::new();
        let mut places = vec![sent(&memory, 1 << 20), sent(&memory, TABLE)];
        let mut idle = Vec::new();
        while memory.held.load(Ordering::Relaxed) + 2 * CONNECTION < BUDGET {
            idle.push(sent(&memory, 0));
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        assert!(leaving(&places).iter().chain(&leaving(&idle)).all(|leaving| !leaving));
        places.push(sent(&memory, GRAIN));
        assert_eq!(leaving(&places), [true, true, true]);
        let idle = leaving(&idle);
        let asked = idle.iter().filter(|leaving| **leaving).count();
        assert!(asked > 0 && asked < idle.len() / 4, "{asked}");
        assert!(idle[..asked].iter().all(|leaving| *leaving), "the oldest");
        drop(places);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_do_not_leave_end_at_once() {
        let memory = Http2Memory::new();
        let mut places = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..LIMIT / TABLE + 1 {
            let task = tokio::spawn(std::future::pending::<()>());
            let place = sent(&memory, 0);
            place.connection.activity.is_served_by(task.abort_handle());
            place.connection.activity.read(TABLE);
            tokio::time::advance(2 * PAUSE).await;
            place.count();
            places.push(place);
            tasks.push(task);
        }
        tokio::time::advance(PAUSE).await;
        tokio::task::yield_now().await;
        assert_eq!(tasks.iter().filter(|task| task.is_finished()).count(), 1);
        assert!(leaving(&places).iter().filter(|leaving| **leaving).count() > places.len() / 2);
        places.clear();
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn bodies_do_not_count_but_for_the_buffers_that_they_share_with_heads() {
        let memory = Http2Memory::new();
        let place = sent(&memory, 25 << 20);
        let counted = || {
            place.count();
            memory.held.load(Ordering::Relaxed)
        };
        assert_eq!(counted(), CONNECTION + TABLE);
        let activity = &place.connection.activity;
        activity.begins_http2_request();
        activity.read_body((25 << 20) - 100);
        assert_eq!(counted(), CONNECTION + 100 + BUFFER);
    }
}
