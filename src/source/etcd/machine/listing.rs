//! A list of all keys, read page by page.

use super::exchange::{Command, Header, Page, Time};
use super::index::Index;
use super::known::Known;
use crate::store::ListReason;

/// The number of keys in the first page of a list.
pub(super) const PAGE: i64 = 1000;

/// The most keys in a page. For each page etcd counts all remaining keys, which among a million takes longer than
/// reading a small page.
pub(super) const LARGEST_PAGE: i64 = 64_000;

/// If a page holds fewer bytes than this, the next page may hold twice as many keys.
const SMALL: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Listing {
    pub(super) asked: Time,
    pub(super) reason: ListReason,
    /// The header of the first page. All pages are read at its revision.
    pub(super) header: Option<Header>,
    pub(super) index: Index,
    pub(super) restarts: u32,
    /// The number of keys in the page that was requested last.
    pub(super) limit: i64,
    /// Whether the list was empty once.
    was_empty: bool,
}

impl Listing {
    /// `most` is the largest allowed number of keys in a page.
    pub(super) fn new(asked: Time, reason: ListReason, restarts: u32, most: i64) -> Self {
        let (index, limit) = (Index::default(), PAGE.min(most));
        Self { asked, reason, header: None, index, restarts, limit, was_empty: false }
    }

    pub(super) fn first_page(&self) -> Command {
        Command::List { at: None, after: None, limit: self.limit }
    }

    /// Takes a page. Returns the request for the next one, if there is one.
    pub(super) fn take(&mut self, page: &Page, most: i64) -> Option<Command> {
        let header = *self.header.get_or_insert(page.header);
        for entry in &page.entries {
            self.index.insert(&entry.key, Known::new(entry.meta, &entry.value));
        }
        let last = page.entries.last().filter(|_| page.more)?;
        let bytes: usize = page.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        if bytes < SMALL {
            self.limit = (2 * self.limit).min(most);
        }
        Some(Command::List { at: Some(header.revision), after: Some(last.key.clone()), limit: self.limit })
    }

    /// Whether the list must be requested once more before it is trusted, because it would empty the configuration.
    pub(super) fn is_doubtful(&mut self, held: &Index) -> bool {
        let empties = self.index.len() == 0 && held.len() > 0;
        let doubtful = empties && !std::mem::replace(&mut self.was_empty, true);
        if doubtful {
            self.header = None;
        }
        doubtful
    }
}
