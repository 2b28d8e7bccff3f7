//! Limits the events that continue without their senders.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use super::metrics::{self, Outcome};
use crate::base::lock::lock;

/// One namespace may use this fraction of each limit: a quarter.
const SHARE: usize = 4;

/// The events that continue without their senders. Clones share them.
#[derive(Clone)]
pub struct Remainders {
    shared: Arc<Shared>,
}

struct Shared {
    under_way: Mutex<UnderWay>,
    /// The number of remainders, which can be waited for.
    count: watch::Sender<usize>,
}

impl Remainders {
    /// The most events that continue without their senders; a quarter of this for one namespace.
    pub const MAX_EVENTS: usize = 4096;

    /// The most bytes of the bodies of such events together; a quarter of this for one namespace. An event that is the
    /// only one of its namespace may be larger than the quarter, if there is room in total.
    pub const MAX_BYTES: usize = 256 << 20;

    /// The current number of remainders.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Resolves as soon as there are no remainders. While requests are served, new ones may begin.
    pub async fn ended(&self) {
        // The sender is part of `self`, so this cannot fail.
        let _ = self.shared.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// From now on, no remainder begins: an event whose request is dropped is aborted. Call this when a server that
    /// stops has waited long enough.
    pub fn close(&self) {
        self.shared.lock().is_closed = true;
    }

    /// `None` if there is no room.
    pub(crate) fn begin(&self, namespace: &str, bytes: usize) -> Option<Place> {
        let mut under_way = self.shared.lock();
        let count = under_way.begin(namespace, bytes).then_some(under_way.all.events)?;
        self.shared.count.send_replace(count);
        drop(under_way);
        let shared = Arc::clone(&self.shared);
        Some(Place { shared, namespace: namespace.into(), bytes, outcome: Outcome::BrokenOff })
    }
}

impl Default for Remainders {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { under_way: Mutex::default(), count: watch::channel(0).0 }) }
    }
}

impl fmt::Debug for Remainders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remainders").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Shared {
    /// No panic under the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        lock(&self.under_way)
    }
}

/// The place of one event, until it is dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    namespace: Box<str>,
    bytes: usize,
    outcome: Outcome,
}

impl Place {
    /// The event was processed. Without this call, dropping the place counts it as broken off.
    pub(crate) fn ended(mut self, is_taken: bool) {
        self.outcome = if is_taken { Outcome::Taken } else { Outcome::Refused };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gone(self.outcome);
        let mut under_way = self.shared.lock();
        under_way.end(&self.namespace, self.bytes);
        self.shared.count.send_replace(under_way.all.events);
    }
}

#[derive(Default)]
struct UnderWay {
    all: Load,
    by_namespace: HashMap<Box<str>, Load, RandomState>,
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    events: usize,
    bytes: usize,
}

impl Load {
    const MAX: Self = Self { events: Remainders::MAX_EVENTS, bytes: Remainders::MAX_BYTES };

    fn and(self, bytes: usize) -> Self {
        Self { events: self.events + 1, bytes: self.bytes.saturating_add(bytes) }
    }

    fn without(self, bytes: usize) -> Self {
        Self { events: self.events.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }

    fn is_within(self, share: usize) -> bool {
        self.events <= Self::MAX.events / share && self.bytes <= Self::MAX.bytes / share
    }
}

impl UnderWay {
    /// Whether there is room for one more.
    fn begin(&mut self, namespace: &str, bytes: usize) -> bool {
        let all = self.all.and(bytes);
        let known = self.by_namespace.get(namespace).copied().unwrap_or_default();
        let own = known.and(bytes);
        let has_room = all.is_within(1) && (own.is_within(SHARE) || own.events == 1);
        if self.is_closed || !has_room {
            return false;
        }
        self.all = all;
        self.by_namespace.insert(namespace.into(), own);
        true
    }

    fn end(&mut self, namespace: &str, bytes: usize) {
        self.all = self.all.without(bytes);
        let Some(own) = self.by_namespace.get_mut(namespace) else { return };
        *own = own.without(bytes);
        if own.events == 0 {
            self.by_namespace.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_namespace_has_a_quarter_and_leaves_the_rest_to_others() {
        let remainders = Remainders::default();
        let mut places: Vec<_> =
            (0..Remainders::MAX_EVENTS / SHARE).map(|_| remainders.begin("a", 1).unwrap()).collect();
        assert!(remainders.begin("a", 1).is_none());
        for other in ["b", "c", "d"] {
            places.extend((0..Remainders::MAX_EVENTS / SHARE).map(|_| remainders.begin(other, 1).unwrap()));
        }
        assert!(remainders.begin("e", 1).is_none(), "there is no room in all");
        assert_eq!(remainders.count(), Remainders::MAX_EVENTS);
        places.pop();
        assert!(remainders.begin("e", 1).is_some());
        drop(places);
        assert_eq!(remainders.count(), 0);
        let under_way = remainders.shared.lock();
        assert_eq!((under_way.all, under_way.by_namespace.len()), (Load::default(), 0), "nothing is left");
    }

    #[test]
    fn bytes_are_bounded_and_one_large_event_goes_on() {
        let remainders = Remainders::default();
        let large = remainders.begin("a", Remainders::MAX_BYTES / 2);
        assert!(large.is_some(), "it is the only one");
        assert!(remainders.begin("a", 1).is_none());
        assert!(remainders.begin("b", Remainders::MAX_BYTES).is_none());
        let _others: Vec<_> = (0..8).map(|_| remainders.begin("b", Remainders::MAX_BYTES / 32).unwrap()).collect();
        assert!(remainders.begin("b", 1).is_none());
        drop(large);
        assert!(remainders.begin("a", 1).is_some());
    }

    #[test]
    fn the_end_is_told_and_none_begins_once_they_are_closed() {
        let remainders = Remainders::default();
        assert!(remainders.ended().now_or_never().is_some());
        let place = remainders.begin("a", 1);
        let mut ended = Box::pin(remainders.ended());
        assert!(ended.as_mut().now_or_never().is_none());
        remainders.close();
        assert!(remainders.begin("a", 1).is_none());
        drop(place);
        assert!(ended.now_or_never().is_some());
    }
}
