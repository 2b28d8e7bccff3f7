//! The comparison of every key and its value with etcd's.

use std::collections::HashMap;
use std::time::Duration;

use super::exchange::{Command, Event, Time};
use super::index::Index;
use super::known::{Known, Revision};

/// Keys in the first page.
pub(super) const FIRST_PAGE: i64 = 256;

/// Keys in a page at most. For each page etcd counts all that is left.
const LARGEST_PAGE: i64 = 16_000;

/// A page that holds fewer bytes than this is followed by one of twice as many keys.
const SMALL: usize = 1 << 20;

/// A page that holds more bytes than this is followed by one of half as many keys.
const LARGE: usize = 4 << 20;

// Measured with `make scale` on two busy cores: a million keys cost etcd 14 s of CPU. With pauses as long as the pages that
// takes 36 s, in which puts to etcd take 0.5 s at worst; 100,000 keys take 1.6 s and 0.3 s of CPU.

/// Each page, also one that was too large or too slow, is followed by a pause of this many times what the page took.
pub(super) const PAUSES: u32 = 9;

/// The same while no proof can be told before the comparison has held: a connection that is cut every few minutes must come
/// to an end of it.
pub(super) const PAUSES_UNPROVEN: u32 = 1;

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// After a page that could not be read since its revision has been compacted.
const AGAIN: Duration = Duration::from_millis(500);

/// A comparison of the index with etcd's keys and values, page by page, while events go on coming in.
///
/// All pages are read at one revision. When that has been compacted, the rest is compared at a newer one. Keys that have
/// changed since the revision of their page are not compared, only counted: each event is checked when it comes.
#[derive(Debug)]
pub(super) struct Audit {
    /// The revision that is compared.
    at: Revision,
    /// The last key of the last page.
    after: Option<Vec<u8>>,
    /// Keys that have changed since, and how many keys more there are by that: they are not compared.
    touched: HashMap<Vec<u8>, i64>,
    /// How many keys etcd has told.
    told: i64,
    /// Keys in the page that is asked for.
    limit: i64,
    /// How many times what a page took the pause after it is.
    pauses: u32,
    /// When the page was asked for.
    asked: Time,
    /// When the next page may be asked for.
    pub(super) next_at: Time,
}

/// The outcome of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// There are further pages.
    More,
    /// It was the last one, and all is as known.
    Held,
    /// A key is missing, left over, or not as known.
    Differs,
}

impl Audit {
    pub(super) fn new(now: Time, at: Revision, pauses: u32) -> Self {
        let touched = HashMap::new();
        Self { at, after: None, touched, told: 0, limit: FIRST_PAGE, pauses, asked: now, next_at: now }
    }

    pub(super) fn ask(&mut self, now: Time) -> Command {
        self.asked = now;
        Command::Audit { at: self.at, after: self.after.clone(), limit: self.limit }
    }

    /// Before it is applied, which it must be then.
    pub(super) fn touch(&mut self, event: &Event) {
        *self.touched.entry(event.key.clone()).or_default() += match &event.put {
            Some(put) => i64::from(put.version == 1),
            None => -1,
        };
    }

    /// Compares a page of so many bytes.
    pub(super) fn compare(
        &mut self,
        now: Time,
        index: &Index,
        page: &[(Vec<u8>, Known)],
        bytes: usize,
        more: bool,
    ) -> Compared {
        self.told += page.len() as i64;
        let mut untouched = page.iter().filter(|(key, _)| !self.touched.contains_key(key));
        if !untouched.all(|(key, known)| index.knows(key, known)) {
            return Compared::Differs;
        }
        let Some((last, _)) = page.last().filter(|_| more) else {
            let more: i64 = self.touched.values().sum();
            return if self.told + more == index.len() { Compared::Held } else { Compared::Differs };
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

    /// After a page that was asked for last and came now, or did not.
    fn pause(&self, now: Time) -> Duration {
        (now.saturating_sub(self.asked) * self.pauses).min(LONGEST_PAUSE)
    }

    /// The page was too large, or took too long. Returns whether a shorter one may do.
    pub(super) fn shorten(&mut self, now: Time) -> bool {
        let shorter = self.limit > 1;
        self.limit = (self.limit / 2).max(1);
        self.next_at = now + self.pause(now);
        shorter
    }

    /// The revision has been compacted: the rest is compared at `applied`, the index's revision.
    pub(super) fn renew(&mut self, now: Time, applied: Revision) {
        let after = self.after.as_deref();
        // The pages to come are read with these changes.
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
