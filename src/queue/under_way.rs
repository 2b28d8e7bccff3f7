//! The events that this process is trying now.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::base::lock::lock;
use crate::event::EventId;

/// The ids of the events that are being tried. Clones share them.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<EventId, foldhash::fast::RandomState>>>);

impl UnderWay {
    pub(super) fn begin(&self, id: EventId) -> Trying {
        lock(&self.0).insert(id);
        Trying { id, under_way: self.clone() }
    }

    pub(super) fn contains(&self, id: EventId) -> bool {
        lock(&self.0).contains(&id)
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// An event counts as being tried until this is dropped. [`Queue::trying`](super::Queue::trying) makes it.
#[must_use = "the event counts as being tried until this is dropped"]
pub struct Trying {
    id: EventId,
    under_way: UnderWay,
}

impl Drop for Trying {
    fn drop(&mut self) {
        lock(&self.under_way.0).remove(&self.id);
    }
}

impl fmt::Debug for Trying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trying").field(&self.id).finish()
    }
}
