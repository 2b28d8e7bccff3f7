//! The contract of a store of history.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::{BoxFuture, ready};

use super::entry::Entry;
use super::query::{Activity, Event, EventQuery, Page, Summary};
use crate::config::WebhookKey;
use crate::event::EventId;

/// A future of a [`Backend`].
pub type BackendFuture<'a, T> = BoxFuture<'a, io::Result<T>>;

/// A store of history. [`History`](super::History) documents what each method is for.
pub trait Backend: Send + Sync + 'static {
    /// Whether anything would be kept of an event of this webhook that comes now. The layers ask before they note anything,
    /// so that a store that is behind costs next to nothing; an event without room is not reported, and the store counts it
    /// as left out. It must neither wait nor panic.
    fn has_room(&self, webhook: &WebhookKey) -> bool {
        let _ = webhook;
        true
    }

    /// Takes an entry. It must neither wait nor panic. When there is no room, it leaves out the entry's body, or else the
    /// entry, and counts that.
    ///
    /// Entries of one event may come in any order: an attempt may be reported before the request that brought the event.
    fn record(&self, entry: Entry);

    /// One page of events, newest first. The entries recorded before the call are included.
    fn events(&self, query: EventQuery) -> BackendFuture<'_, Page>;

    /// Counts of events.
    fn summary(&self, query: EventQuery) -> BackendFuture<'_, Summary>;

    /// The activity of webhooks in the last hour; of these namespaces only, if they are given.
    fn activity(&self, namespaces: Option<Arc<[Box<str>]>>) -> BackendFuture<'_, Vec<Activity>>;

    /// One event.
    fn event(&self, id: EventId) -> BackendFuture<'_, Option<Event>>;

    /// Erases an event. Returns whether anything was kept of it.
    fn erase(&self, id: EventId) -> BackendFuture<'_, bool>;

    /// Resolves once the entries recorded before the call are on disk, or cannot be written.
    fn flush(&self) -> BackendFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    /// How much is kept. The answer may be some seconds old.
    fn status(&self) -> HistoryStatus;
}

/// How much a history keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryStatus {
    /// Events that something is kept of.
    pub events: u64,
    /// Bytes of storage in use.
    pub bytes: u64,
    /// The most bytes of storage that may be used.
    pub max_bytes: u64,
    /// The time of the oldest event.
    pub oldest: Option<SystemTime>,
    /// Entries that were left out since the start, because the storage was too slow or failed.
    pub dropped: u64,
    /// Bodies that were left out of kept entries since the start.
    pub dropped_bodies: u64,
    /// Whether the last write failed.
    pub is_failing: bool,
}
