//! The store of history in SQLite: one file of bounded size, in one directory.
//!
//! ```no_run
//! use tower_webhook::history::sqlite::SqliteHistory;
//!
//! # fn example() -> std::io::Result<()> {
//! let history = SqliteHistory::new("./history").days(7).open()?;
//! # Ok(()) }
//! ```
//!
//! # Contents
//!
//! * Of an event: its id, webhook, time, sender's address, status, duration, attempts, and the first 64 KiB of its body.
//! * Of a refused request: the same without head and body. When there are many of them in a namespace, one of 50 is kept.
//! * **Never a secret, as far as names tell.** Header fields whose names sound secret (`Authorization`, `X-Api-Key`, and all
//!   signatures) are masked, and so are the fields of JSON and forms that the module `log` masks. A body that cannot
//!   be read for that is not kept. Bodies of the type `blob` are kept as they are. The query is not kept.
//!
//! # Room
//!
//! The files never take more than [`SqliteHistory::max_bytes`]. When there is no room, the oldest events of the namespace
//! that takes most of it are removed: a namespace with few events keeps all of them. Refused requests have an eighth of the
//! room at most.
//!
//! One thread writes: entries wait in a buffer of 64 MiB at most, and are written together. When the disk is too slow for
//! them, bodies are left out first, then entries; both are counted. Where all cores are busy, requests go before the
//! thread; when it falls behind for that, it keeps a sample of the events, with a twentieth of a core.
//!
//! A crash may lose the entries of the last moments, and never damages the file. A file that was damaged otherwise is moved
//! aside with a line in the log, and a new one begins.
//!
//! Files have mode 0600 in a directory of mode 0700. Only one process at a time can open the directory.

mod activity;
mod answer;
mod buffer;
mod clean;
mod detail;
mod file;
mod index;
mod keep;
mod measure;
mod number;
mod pace;
mod read;
mod remove;
mod room;
mod rows;
#[cfg(test)]
mod sample;
mod sampling;
mod save;
mod schema;
mod search;
mod shared;
#[cfg(test)]
mod tests;
mod waiting;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use self::buffer::Erasure;
use self::file::OpenFile;
use self::keep::{Expiry, Limits};
use self::pace::Pace;
use self::read::Readers;
use self::sampling::Sampling;
use self::schema::Room;
use self::shared::Shared;
use self::writer::Writer;
use super::{Activity, Backend, BackendFuture, Entry, Event, EventQuery, History, HistoryStatus, Page, Summary};
use crate::base::clock::Clock;
use crate::base::lock::lock;
use crate::base::log_limit::LogLimit;
use crate::config::WebhookKey;
use crate::event::EventId;

/// The default of [`SqliteHistory::max_bytes`]: 2 GiB.
pub const DEFAULT_MAX_BYTES: u64 = 2 << 30;

/// The default of [`SqliteHistory::days`].
pub const DEFAULT_DAYS: u32 = 14;

/// The smallest room that is of any use.
const MIN_BYTES: u64 = 4 << 20;

/// How long a query waits until the entries before it are written.
const SETTLING: Duration = Duration::from_millis(500);

/// The directory and the bounds of a history in SQLite. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct SqliteHistory {
    directory: PathBuf,
    max_bytes: u64,
    days: u32,
    body_days: Option<u32>,
    full_text: bool,
}

impl SqliteHistory {
    /// A history in this directory, which [`open`](Self::open) creates if it is missing: [`DEFAULT_MAX_BYTES`],
    /// [`DEFAULT_DAYS`], with the full-text index.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let (max_bytes, days) = (DEFAULT_MAX_BYTES, DEFAULT_DAYS);
        Self { directory: directory.into(), max_bytes, days, body_days: None, full_text: true }
    }

    /// The largest total size of the files in bytes, at least 4 MiB.
    #[must_use]
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// How many days events are kept, at least one.
    #[must_use]
    pub fn days(self, days: u32) -> Self {
        Self { days, ..self }
    }

    /// How many days bodies are kept, if not as long as their events; at least one.
    #[must_use]
    pub fn body_days(self, days: u32) -> Self {
        Self { body_days: Some(days), ..self }
    }

    /// Whether the first 4 KiB of bodies can be searched. The index takes about half as much room as these texts. Without
    /// it, [`EventQuery::text`] searches ids, webhooks, reasons and addresses.
    #[must_use]
    pub fn full_text(self, full_text: bool) -> Self {
        Self { full_text, ..self }
    }

    /// Opens the history, or begins a new one.
    ///
    /// # Errors
    ///
    /// When a bound is too small, the directory cannot be used, or another process has it open.
    pub fn open(&self) -> io::Result<History> {
        let store = self.store(
            buffer::Limits::default(),
            Expiry::Clock(Clock::start()),
            #[cfg(test)]
            Arc::new(|| Ok(())),
        )?;
        Ok(History::new(Arc::new(store)))
    }

    fn store(&self, buffer: buffer::Limits, expiry: Expiry, #[cfg(test)] fault: writer::Fault) -> io::Result<Store> {
        let limits = self.limits()?;
        let file = OpenFile::open(&self.directory, &limits)?;
        let shared = Arc::new(Shared::new(buffer));
        let readers = Arc::new(Readers::new(Arc::clone(&shared), file.file()));
        let writer = Writer {
            shared: Arc::clone(&shared),
            directory: self.directory.clone(),
            limits,
            expiry,
            file: Some(file),
            sampling: Sampling::default(),
            pace: Pace::default(),
            ticked: None,
            is_busy: false,
            must_truncate: false,
            truncated: None,
            log: LogLimit::default(),
            #[cfg(test)]
            fault,
        };
        shared.set_status(HistoryStatus { max_bytes: self.max_bytes, ..HistoryStatus::default() });
        writer.recount();
        std::thread::Builder::new().name("history".to_owned()).spawn(move || writer.run())?;
        Ok(Store { shared, readers })
    }

    fn limits(&self) -> io::Result<Limits> {
        let refused = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        let body_days = self.body_days.unwrap_or(self.days);
        if self.max_bytes < MIN_BYTES {
            return refused(format!("expected at least {MIN_BYTES} bytes for a history, found {}", self.max_bytes));
        }
        if self.days == 0 || body_days == 0 || body_days > self.days {
            return refused(format!(
                "expected at least one day for events and for bodies, and no more for bodies than for events; found {} and {body_days}",
                self.days
            ));
        }
        let room = Room::of(self.max_bytes);
        Ok(Limits { max_bytes: self.max_bytes, room, days: self.days, body_days, full_text: self.full_text })
    }
}

/// The backend. The writer ends once everything is written, when this is dropped.
struct Store {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.buffer.close();
    }
}

impl Store {
    /// Waits for the entries before a query, but not for a disk that fails.
    async fn settle(&self) {
        let _ = tokio::time::timeout(SETTLING, self.shared.buffer.settle()).await;
    }
}

impl Backend for Store {
    fn has_room(&self, webhook: &WebhookKey) -> bool {
        self.shared.buffer.has_room(webhook.namespace())
    }

    fn record(&self, entry: Entry) {
        self.shared.buffer.push(entry);
    }

    fn events(&self, query: EventQuery) -> BackendFuture<'_, Page> {
        Box::pin(async move {
            self.settle().await;
            self.readers.run(move |connection, bound| answer::page(connection, &query, bound)).await
        })
    }

    fn summary(&self, query: EventQuery) -> BackendFuture<'_, Summary> {
        Box::pin(async move {
            self.settle().await;
            let now = SystemTime::now();
            self.readers.run(move |connection, bound| answer::summary(connection, &query, now, bound)).await
        })
    }

    fn activity(&self, namespaces: Option<Arc<[Box<str>]>>) -> BackendFuture<'_, Vec<Activity>> {
        Box::pin(async move {
            self.settle().await;
            Ok(lock(&self.shared.activity).report(namespaces.as_ref(), SystemTime::now()))
        })
    }

    fn event(&self, id: EventId) -> BackendFuture<'_, Option<Event>> {
        Box::pin(async move {
            self.settle().await;
            self.readers.run(move |connection, _| answer::event(connection, id)).await
        })
    }

    fn erase(&self, id: EventId) -> BackendFuture<'_, bool> {
        let (done, erased) = oneshot::channel();
        self.shared.buffer.erase(Erasure { id, done });
        Box::pin(async move { erased.await.unwrap_or_else(|_| Err(io::Error::other("the history has ended"))) })
    }

    fn flush(&self) -> BackendFuture<'_, ()> {
        Box::pin(async move {
            self.shared.buffer.settle().await;
            if self.shared.is_failing() { Err(io::Error::other("the history cannot be written")) } else { Ok(()) }
        })
    }

    fn status(&self) -> HistoryStatus {
        self.shared.status()
    }
}
