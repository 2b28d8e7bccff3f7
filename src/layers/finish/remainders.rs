//! How many events may go on without their senders.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use super::metrics::{self, Outcome};
use crate::base::lock::lock;

/// One namespace may have so much less of each.
const SHARE: usize = 4;

/// The events that go on without their senders. A clone is the same.
#[derive(Clone)]
pub struct Remainders {
    shared: Arc<Shared>,
}

struct Shared {
    under_way: Mutex<UnderWay>,
    /// How many there are, so that their end can be waited for.
    count: watch::Sender<usize>,
}

impl Remainders {
    /// So many events may go on without their senders, a quarter of them of one namespace.
    pub const MAX_EVENTS: usize = 4096;

    /// The bodies of such events may have so many bytes together, a quarter of them of one namespace. An event that is the
    /// only one of its namespace goes on whatever its size, if there is room for it in all.
    pub const MAX_BYTES: usize = 256 << 20;

    /// How many there are now.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Resolves as soon as there are none. More may begin while there are requests.
    pub async fn ended(&self) {
        // The sender is right here.
        let _ = self.shared.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// From now on none begins: an event whose request is dropped is broken off. For the moment when a server that
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
    /// Nothing that runs under the lock leaves it half changed.
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        lock(&self.under_way)
    }
}

/// The place of one event, as long as it is there.
pub(crate) struct Place {
    shared: Arc<Shared>,
    namespace: Box<str>,
    bytes: usize,
    outcome: Outcome,
}

impl Place {
    /// The event came to its end: without this call it was broken off.
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
