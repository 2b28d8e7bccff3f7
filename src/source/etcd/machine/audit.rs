//! The audit: compares every key and value with etcd.

use std::collections::HashMap;
use std::time::Duration;

use super::exchange::{Command, Event, Time};
use super::index::Index;
use super::known::{Known, Revision};

/// The number of keys in the first page.
pub(super) const FIRST_PAGE: i64 = 256;

/// The most keys in a page. For each page etcd counts all remaining keys.
const LARGEST_PAGE: i64 = 16_000;

/// If a page holds fewer bytes than this, the next one has twice as many keys.
const SMALL: usize = 1 << 20;

/// If a page holds more bytes than this, the next one has half as many keys.
const LARGE: usize = 4 << 20;

// Measured with `make scale` on two busy cores: a million keys cost etcd 14 s of CPU. With pauses as long as the pages
// that takes 36 s, in which puts to etcd take 0.5 s at worst; 100,000 keys take 1.6 s and 0.3 s of CPU.

/// The pause after each page, as a multiple of the time that the page took, even if it was too large or too slow.
pub(super) const PAUSES: u32 = 9;

/// The same multiple while proofs wait for the audit: even on a connection that is cut every few minutes, the audit
/// must be able to finish.
pub(super) const PAUSES_UNPROVEN: u32 = 1;

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pause after a page that could not be read because its revision has been compacted.
const AGAIN: Duration = Duration::from_millis(500);

/// Compares the index with etcd's keys and values, page by page, while events keep arriving.
///
/// All pages are read at one revision. When that revision has been compacted, the rest is compared at a newer one. Keys
/// that have changed since the revision of their page are only counted, not compared: each event is checked when it
/// arrives.
#[derive(Debug)]
pub(super) struct Audit {
    /// The revision at which pages are read.
    at: Revision,
    /// The last key of the last page.
    after: Option<Vec<u8>>,
    /// Keys that have changed since, each with the number of keys that the change added. They are not compared.
    touched: HashMap<Vec<u8>, i64>,
    /// The number of keys in etcd's pages so far.
    seen: i64,
    /// The number of keys in the requested page.
    limit: i64,
    /// The pause after a page, as a multiple of the time that it took.
    pauses: u32,
    /// When the page was requested.
    asked: Time,
    /// When the next page may be requested.
    pub(super) next_at: Time,
}

/// The outcome of comparing a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// More pages follow.
    More,
    /// This was the last page, and there is no difference.
    Held,
    /// A key is missing, left over, or different.
    Differs,
}

impl Audit {
    pub(super) fn new(now: Time, at: Revision, pauses: u32) -> Self {
        let touched = HashMap::new();
        Self { at, after: None, touched, seen: 0, limit: FIRST_PAGE, pauses, asked: now, next_at: now }
    }

    pub(super) fn ask(&mut self, now: Time) -> Command {
        self.asked = now;
        Command::Audit { at: self.at, after: self.after.clone(), limit: self.limit }
    }

    /// Records an event. Must be called before the event is applied to the index.
    pub(super) fn touch(&mut self, event: &Event) {
        *self.touched.entry(event.key.clone()).or_default() += match &event.put {
            Some(put) => i64::from(put.version == 1),
            None => -1,
        };
    }

    /// Compares a page of `bytes` bytes with the index.
    pub(super) fn compare(
        &mut self,
        now: Time,
        index: &Index,
        page: &[(Vec<u8>, Known)],
        bytes: usize,
        more: bool,
    ) -> Compared {
        self.seen += page.len() as i64;
        let mut untouched = page.iter().filter(|(key, _)| !self.touched.contains_key(key));
        if !untouched.all(|(key, known)| index.knows(key, known)) {
            return Compared::Differs;
        }
        let Some((last, _)) = page.last().filter(|_| more) else {
            let more: i64 = self.touched.values().sum();
            return if self.seen + more == index.len() { Compared::Held } else { Compared::Differs };
        };
        self.after = Some(last.clone());
        self.limit = match bytes {
            ..SMALL => (2 * self.limit).min(LARGEST_PAGE),
            SMALL..=LARGE => self.limit,
            _ => (self.limit / 2).max(1),
        };
        self.next_at = now + self.pause(now);
        Compared::More
    }

    /// The pause after a page that was requested last and arrived, or failed, now.
    fn pause(&self, now: Time) -> Duration {
        (now.saturating_sub(self.asked) * self.pauses).min(LONGEST_PAUSE)
    }

    /// The page was too large, or took too long. Returns whether a smaller one may work.
    pub(super) fn shorten(&mut self, now: Time) -> bool {
        let shorter = self.limit > 1;
        self.limit = (self.limit / 2).max(1);
        self.next_at = now + self.pause(now);
        shorter
    }

    /// The revision has been compacted: the rest is compared at `applied`, the index's revision.
    pub(super) fn renew(&mut self, now: Time, applied: Revision) {
        let after = self.after.as_deref();
        // The remaining pages will contain these changes.
        self.touched.retain(|key, _| after.is_some_and(|after| key.as_slice() <= after));
        self.at = applied;
        self.next_at = now + AGAIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::etcd::machine::known::Meta;
    use crate::source::etcd::machine::tests::{delete, put};

    fn known(version: i64, created: Revision, modified: Revision) -> Known {
        Known::new(Meta { version, created, modified }, b"value")
    }

    fn index(keys: &[(&str, Known)]) -> Index {
        let mut index = Index::default();
        keys.iter().for_each(|(key, known)| index.insert(key.as_bytes(), *known));
        index
    }

    fn page(keys: &[(&str, Known)]) -> Vec<(Vec<u8>, Known)> {
        keys.iter().map(|(key, known)| (key.as_bytes().to_vec(), *known)).collect()
    }

    #[test]
    fn it_finds_what_is_wrong_missing_and_left_over() {
        let (a, b) = (("a", known(1, 2, 2)), ("b", known(2, 3, 4)));
        let audit = |keys: &[(&str, Known)], touched: &[Event]| {
            let (now, index) = (Time::ZERO, index(keys));
            let mut audit = Audit::new(now, 10, PAUSES);
            touched.iter().for_each(|event| audit.touch(event));
            match audit.compare(now, &index, &page(&[a]), 9, true) {
                Compared::More => audit.compare(now, &index, &page(&[b]), 9, false) == Compared::Held,
                _ => false,
            }
        };
        assert!(audit(&[a, b], &[]));
        assert!(!audit(&[a], &[]), "missing");
        assert!(!audit(&[a, ("b", known(1, 3, 3))], &[]), "old");
        assert!(!audit(&[a, ("b", Known::new(b.1.meta, b"other"))], &[]), "another value");
        assert!(!audit(&[a, b, ("c", known(1, 5, 5))], &[]), "left over");
        let changes = [put("b", 11, 3, 3), put("c", 12, 1, 12), delete("a", 13)];
        assert!(audit(&[("b", known(3, 3, 11)), ("c", known(1, 12, 12))], &changes), "changed since");
    }

    #[test]
    fn after_a_compaction_what_is_left_is_compared_at_a_newer_revision() {
        let now = Time::ZERO;
        let (a, b, c) = (("a", known(1, 2, 2)), ("b", known(2, 3, 4)), ("d", known(1, 12, 12)));
        let changes = [delete("a", 11), put("d", 12, 1, 12)];
        let compared = |then: &[(&str, Known)], more: &[(&str, Known)]| {
            let mut audit = Audit::new(now, 10, PAUSES);
            assert_eq!(audit.compare(now, &index(&[a, b]), &page(&[a]), 9, true), Compared::More);
            changes.iter().for_each(|event| audit.touch(event));
            audit.renew(now, 12);
            assert_eq!(audit.ask(now), Command::Audit { at: 12, after: Some(b"a".to_vec()), limit: 2 * FIRST_PAGE });
            audit.compare(now, &index(then), &page(more), 9, false)
        };
        assert_eq!(compared(&[b, c], &[b, c]), Compared::Held);
        assert_eq!(compared(&[b, c], &[b]), Compared::Differs, "it is new and not there");
        assert_eq!(compared(&[b, c], &[b, ("d", known(1, 13, 13))]), Compared::Differs);
        assert_eq!(compared(&[a, b, c], &[b, c]), Compared::Differs, "it was deleted and is still there");
    }

    #[test]
    fn its_pages_follow_their_bytes_and_its_pauses_their_time() {
        let a = ("a", known(1, 2, 2));
        let index = index(&[a]);
        let mut audit = Audit::new(Time::ZERO, 10, PAUSES);
        let mut now = Time::ZERO;
        let mut next = |bytes: usize, took: Duration| {
            let Command::Audit { limit, .. } = audit.ask(now) else { panic!() };
            now += took;
            assert_eq!(audit.compare(now, &index, &page(&[a]), bytes, true), Compared::More);
            (limit, audit.next_at - now)
        };
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(next(9, ms(100)), (FIRST_PAGE, ms(900)));
        assert_eq!(next(SMALL, ms(1)), (2 * FIRST_PAGE, ms(9)));
        assert_eq!(next(LARGE + 1, secs(7)), (2 * FIRST_PAGE, LONGEST_PAUSE));
        assert_eq!(next(9, ms(0)), (FIRST_PAGE, ms(0)));
        for _ in 0..20 {
            next(9, ms(0));
        }
        assert_eq!(next(9, ms(0)).0, LARGEST_PAGE);
        audit.ask(now);
        now += ms(300);
        assert!(audit.shorten(now));
        assert_eq!(audit.next_at - now, ms(2700), "one that was too slow has cost etcd its time too");
        audit.ask(now);
        now += secs(3);
        assert!(audit.shorten(now));
        assert_eq!(audit.next_at - now, LONGEST_PAUSE);
        for _ in 0..11 {
            assert!(audit.shorten(now));
        }
        assert!(!audit.shorten(now), "one key cannot be halved");
    }
}
