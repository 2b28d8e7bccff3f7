//! The index of all keys under the prefix. It keeps enough of each key to notice a missed change or another history.

use std::collections::HashMap;

use super::exchange::{Event, Past};
use super::known::{Known, Meta, Revision};
use foldhash::fast::RandomState;

/// All keys at one revision, whether they are used or ignored.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashMap<Box<[u8]>, Known, RandomState>,
}

impl Index {
    pub(super) fn len(&self) -> i64 {
        self.keys.len() as i64
    }

    /// The last revision at which any key changed.
    pub(super) fn newest(&self) -> Revision {
        self.keys.values().map(|known| known.meta.modified).max().unwrap_or(0)
    }

    /// Whether etcd's account of the past agrees with this index.
    pub(super) fn remembers(&self, past: &Past) -> bool {
        match past {
            Past::Unknown => true,
            Past::Future => false,
            Past::Known { keys, changed: Some((key, meta)) } => {
                *keys == self.len() && self.keys.get(key.as_slice()).is_some_and(|known| known.meta == *meta)
            }
            Past::Known { keys, changed: None } => *keys == 0 && self.keys.is_empty(),
        }
    }

    /// Whether the key is known in exactly this state.
    pub(super) fn knows(&self, key: &[u8], state: &Known) -> bool {
        self.keys.get(key) == Some(state)
    }

    /// Whether the index misses a change of one of these keys that was made at or before the revision `applied`.
    pub(super) fn is_behind(&self, changed: &[(Vec<u8>, Meta)], applied: Revision) -> bool {
        let mut due = changed.iter().filter(|(_, meta)| meta.modified <= applied);
        due.any(|(key, meta)| self.keys.get(key.as_slice()).is_some_and(|known| known.meta.modified < meta.modified))
    }

    pub(super) fn insert(&mut self, key: &[u8], known: Known) {
        self.keys.insert(key.into(), known);
    }

    /// Applies an event. Returns `false` if it does not follow from the known state: then an earlier event was missed.
    pub(super) fn apply(&mut self, event: &Event) -> bool {
        let Some((meta, put)) = event.meta().zip(event.put.as_ref()) else {
            return self.keys.remove(event.key.as_slice()).is_some();
        };
        match self.keys.insert(event.key.as_slice().into(), Known::new(meta, &put.value)) {
            Some(Known { meta: before, .. }) => before.created == meta.created && before.version + 1 == meta.version,
            None => meta.version == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::etcd::machine::tests::{delete, put};

    #[test]
    fn an_event_that_does_not_follow_is_detected() {
        let mut index = Index::default();
        assert!(index.apply(&put("a", 2, 1, 2)));
        assert!(index.apply(&put("a", 3, 2, 2)));
        assert!(!index.apply(&put("a", 9, 4, 2)), "a put was missed");
        assert!(!index.apply(&put("a", 12, 1, 12)), "a deletion was missed");
        assert!(index.apply(&delete("a", 13)));
        assert!(!index.apply(&delete("a", 15)), "a key was missed");
        assert!(!index.apply(&put("b", 17, 2, 16)), "a key's beginning was missed");
        assert_eq!(index.len(), 1);
    }
}
