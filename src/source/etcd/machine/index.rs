//! What is known of every key under the prefix: enough to notice that something was missed.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{Event, Past, Revision};

/// etcd's own count of a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Meta {
    /// 1 when the key is made, and one more with each put.
    pub(in super::super) version: i64,
    /// The revision that made it.
    pub(in super::super) created: Revision,
    /// The revision that changed it last.
    pub(in super::super) modified: Revision,
}

/// All keys at one revision, ours or not.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashMap<Box<[u8]>, Meta, RandomState>,
}

impl Index {
    pub(super) fn len(&self) -> i64 {
        self.keys.len() as i64
    }

    /// The revision that changed any key last.
    pub(super) fn newest(&self) -> Revision {
        self.keys.values().map(|meta| meta.modified).max().unwrap_or(0)
    }

    /// Whether the past that etcd tells is the one that was lived through here.
    pub(super) fn remembers(&self, past: &Past) -> bool {
        match past {
            Past::Unknown => true,
            Past::Future => false,
            Past::Known { keys, changed: Some((key, meta)) } => {
                *keys == self.len() && self.keys.get(key.as_slice()) == Some(meta)
            }
            Past::Known { keys, changed: None } => *keys == 0 && self.keys.is_empty(),
        }
    }

    pub(super) fn insert(&mut self, key: &[u8], meta: Meta) {
        self.keys.insert(key.into(), meta);
    }

    /// Applies an event. Returns whether it follows from what was known; if not, an event before it was missed.
    pub(super) fn apply(&mut self, event: &Event) -> bool {
        let Some(meta) = event.meta() else {
            return self.keys.remove(event.key.as_slice()).is_some();
        };
        match self.keys.insert(event.key.as_slice().into(), meta) {
            Some(before) => before.created == meta.created && before.version + 1 == meta.version,
            None => meta.version == 1,
        }
    }
}

/// A comparison of the index with etcd's keys at one revision, page by page, while events go on coming in.
#[derive(Debug)]
pub(super) struct Audit {
    /// The revision that is compared.
    pub(super) at: Revision,
    /// The last key of the last page.
    pub(super) after: Option<Vec<u8>>,
    /// Keys that have changed since: they are not compared.
    touched: HashSet<Vec<u8>>,
    /// How many keys more than at that revision there are since.
    more: i64,
    /// How many keys etcd has told.
    told: i64,
}

impl Audit {
    pub(super) fn new(at: Revision) -> Self {
        Self { at, after: None, touched: HashSet::new(), more: 0, told: 0 }
    }

    /// Before it is applied, which it must be then.
    pub(super) fn touch(&mut self, event: &Event) {
        self.more += match &event.put {
            Some(put) => i64::from(put.version == 1),
            None => -1,
        };
        self.touched.insert(event.key.clone());
    }

    /// Compares a page. Returns whether all of it is as known.
    pub(super) fn compare(&mut self, index: &Index, page: &[(Vec<u8>, Meta)]) -> bool {
        self.after = page.last().map(|(key, _)| key.clone());
        self.told += page.len() as i64;
        let mut untouched = page.iter().filter(|(key, _)| !self.touched.contains(key));
        untouched.all(|(key, meta)| index.keys.get(key.as_slice()) == Some(meta))
    }

    /// Whether no more was known than what was told.
    pub(super) fn finish(&self, index: &Index) -> bool {
        self.told == index.len() - self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::etcd::machine::tests::{delete, put};

    fn meta(version: i64, created: Revision, modified: Revision) -> Meta {
        Meta { version, created, modified }
    }

    #[test]
    fn events_that_follow_are_told_from_those_that_do_not() {
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

    #[test]
    fn an_audit_finds_what_is_wrong_missing_and_left_over() {
        let page = [(b"a".to_vec(), meta(1, 2, 2)), (b"b".to_vec(), meta(2, 3, 4))];
        let audit = |keys: &[(&str, Meta)], touched: &[Event]| {
            let mut index = Index::default();
            keys.iter().for_each(|(key, meta)| index.insert(key.as_bytes(), *meta));
            let mut audit = Audit::new(10);
            touched.iter().for_each(|event| audit.touch(event));
            audit.compare(&index, &page[..1]) && audit.compare(&index, &page[1..]) && audit.finish(&index)
        };
        let (a, b) = (("a", meta(1, 2, 2)), ("b", meta(2, 3, 4)));
        assert!(audit(&[a, b], &[]));
        assert!(!audit(&[a], &[]), "missing");
        assert!(!audit(&[a, ("b", meta(1, 3, 3))], &[]), "old");
        assert!(!audit(&[a, b, ("c", meta(1, 5, 5))], &[]), "left over");
        let changes = [put("b", 11, 3, 3), put("c", 12, 1, 12), delete("a", 13)];
        assert!(audit(&[("b", meta(3, 3, 11)), ("c", meta(1, 12, 12))], &changes), "changed since");
    }
}
