//! History: what happened to each event, for an operator who asks.
//!
//! The layers and the worker report [`Entry`]s to a [`History`]; an operator's page reads them back. Reporting never
//! waits: when the storage is slower than the requests, entries are left out and counted, bodies first. A [`History`]
//! relies only on the contract [`Backend`], so that another store can follow.

mod backend;
mod entry;
mod news;
mod query;
#[cfg(feature = "history")]
pub mod sqlite;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};

pub use self::backend::{Backend, BackendFuture, HistoryStatus};
pub use self::entry::{Action, Attempt, Body, Dedup, Entry, Kept, Outcome, Received, Step};
pub use self::news::{News, Progress};
pub use self::query::{Activity, Bucket, Event, EventQuery, Page, Row, Summary};
use crate::config::WebhookKey;
use crate::event::EventId;

/// The most news that a reader of [`History::live`] may be behind. It then misses some, and learns how many.
const LIVE: usize = 1024;

/// How long [`History::flush`] waits for entries that are to be recorded: longer than the answer of a target is read.
const LATE: Duration = Duration::from_millis(1500);

/// How long [`History::flush`] waits.
const FLUSH: Duration = Duration::from_secs(5);

/// The history of events. Clones share one history. See the [module docs](self).
#[derive(Clone)]
pub struct History {
    backend: Arc<dyn Backend>,
    live: broadcast::Sender<Arc<News>>,
    /// The number of entries that are to be recorded in a moment.
    due: Arc<watch::Sender<usize>>,
}

impl History {
    /// A history that is kept in `backend`.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, live: broadcast::Sender::new(LIVE), due: Arc::new(watch::Sender::new(0)) }
    }

    /// Whether anything would be kept of an event of this webhook that comes now. If not, the event counts as left out, and
    /// is not to be reported.
    pub fn has_room(&self, webhook: &WebhookKey) -> bool {
        self.backend.has_room(webhook)
    }

    /// Reports an entry. This never waits; the entry may be left out, which is counted.
    pub fn record(&self, entry: Entry) {
        if self.live.receiver_count() > 0
            && let Some(news) = News::of(&entry)
        {
            // Nobody may be listening any more.
            let _ = self.live.send(Arc::new(news));
        }
        self.backend.record(entry);
    }

    /// News of events from now on: each answered request, and each attempt.
    pub fn live(&self) -> broadcast::Receiver<Arc<News>> {
        self.live.subscribe()
    }

    /// One page of the events that match `query`, newest first.
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    pub async fn events(&self, query: EventQuery) -> io::Result<Page> {
        self.backend.events(query).await
    }

    /// Counts of the events that match `query`. See [`Summary`].
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    pub async fn summary(&self, query: EventQuery) -> io::Result<Summary> {
        self.backend.summary(query).await
    }

    /// The activity of each webhook that had an event in the last hour, or in any of `namespaces` if they are given.
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    pub async fn activity(&self, namespaces: Option<Arc<[Box<str>]>>) -> io::Result<Vec<Activity>> {
        self.backend.activity(namespaces).await
    }

    /// One event with everything that is kept of it; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    pub async fn event(&self, id: EventId) -> io::Result<Option<Event>> {
        self.backend.event(id).await
    }

    /// Erases everything that is kept of an event. Returns whether anything was.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn erase(&self, id: EventId) -> io::Result<bool> {
        self.backend.erase(id).await
    }

    /// Announces an entry that is to be recorded in a moment: [`flush`](Self::flush) waits for it.
    pub(crate) fn due(&self) -> EntryDue {
        self.due.send_modify(|due| *due += 1);
        EntryDue(Arc::clone(&self.due))
    }

    /// Writes the entries recorded so far, for a graceful stop. Takes 5 s at most.
    ///
    /// # Errors
    ///
    /// When the storage fails, or is too slow.
    pub async fn flush(&self) -> io::Result<()> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the history could not be written within 5 s");
        let written = async {
            let mut due = self.due.subscribe();
            // The sender is part of `self`, so this cannot fail.
            let _ = tokio::time::timeout(LATE, due.wait_for(|due| *due == 0)).await;
            self.backend.flush().await
        };
        tokio::time::timeout(FLUSH, written).await.unwrap_or_else(|_| Err(late()))
    }

    /// How much is kept, and what was left out.
    pub fn status(&self) -> HistoryStatus {
        self.backend.status()
    }
}

/// An entry that is to be recorded, until this is dropped.
pub(crate) struct EntryDue(Arc<watch::Sender<usize>>);

impl Drop for EntryDue {
    fn drop(&mut self) {
        self.0.send_modify(|due| *due -= 1);
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}
