//! The backend on disk: the events of one process, in one directory.
//!
//! ```no_run
//! use tower_webhook::queue::disk::DiskQueue;
//! use tower_webhook::worker::Worker;
//!
//! # fn example() -> std::io::Result<()> {
//! let (queue, backlog) = DiskQueue::new("./spool").open()?; // blocks while it reads the segments
//! let worker = Worker::new(backlog);
//! # Ok(()) }
//! ```
//!
//! # On disk
//!
//! One thread appends events to the current segment of a checksummed log. Requests that wait at the same time share one
//! `fdatasync` (group commit); after a group of several, the thread waits a millisecond at most for the next group to
//! gather. The state of an event (delivered, attempts made, given up) is appended as well, and is synced with the next
//! events, or after a second. A crash may lose the last states; those events are then delivered again. A few megabytes of
//! new events stay in memory too, so that an event that is delivered at once is not read back. A segment without live
//! records is removed, or recycled as the next segment. When garbage takes more than an eighth of the room, the live
//! records of the oldest segment are moved to the end of the log.
//!
//! The queue promises:
//!
//! * An accepted event is delivered **at least once**, or kept as a dead letter. A crash may cause another delivery, with
//!   the same id.
//! * After a start, the events of each webhook are delivered in the order of their receipt.
//! * A torn tail of the log never holds an accepted event. Damage before the tail, or a block that cannot be read, costs
//!   the events that it hits and no others; it is logged and counted.
//! * A failing disk costs a 503, never an event: the writer gives the segment up, and tries again in a new one.
//!
//! Files hold events as received, credentials included: they have mode 0600, in a directory of mode 0700. Only one process
//! at a time can open the directory.

pub(crate) mod batch;
pub(crate) mod current;
mod dead;
mod decide;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod ledger;
mod measure;
pub(crate) mod pending;
pub(crate) mod quota;
pub(crate) mod recover;
pub(crate) mod shared;
pub(crate) mod state;
pub(crate) mod storage;
mod waiting;
pub(crate) mod writer;

#[cfg(fuzzing)]
#[path = "tests/faulty.rs"]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{FutureExt, ready};
use tokio::time::Instant;

#[cfg(fuzzing)]
pub(crate) use self::frame::fuzz as fuzz_frames;
#[cfg(fuzzing)]
pub(crate) use self::recover::fuzz as fuzz_recovery;
use self::shared::Shared;
use self::state::{Death, Retry, StoredState};
use self::storage::{Directory, Disk};
use self::writer::Writer;
use super::{
    Accepted, Backend, BackendFuture, Backlog, DeadLetter, DeadLetterQuery, Due, Handouts, Loaded, Offer, Queue,
    QueueError, QueueStatus, StoredEvent, Ticket, WaitingEvent, WaitingPage, WaitingQuery, handouts,
};
use crate::base::clock::Clock;
use crate::event::{DeliverError, EventId};

/// The default of [`DiskQueue::max_bytes`]: 1 GiB.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// The directory and the largest size of a queue on disk. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct DiskQueue {
    directory: PathBuf,
    max_bytes: u64,
}

impl DiskQueue {
    /// A queue of [`DEFAULT_MAX_BYTES`] in this directory. [`open`](Self::open) creates the directory if it is missing.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), max_bytes: DEFAULT_MAX_BYTES }
    }

    /// The largest total size of the files in bytes, dead letters included. Thirteen sixteenths of it are for events: a
    /// webhook may hold as many bytes as are still free, and a namespace twice as many, so that a target that is down
    /// never shuts out the others. An event larger than half of that room is refused as too large.
    #[must_use]
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Opens the queue, and recovers the events that an earlier process left in it.
    ///
    /// Blocks while it reads the segments, at some hundred MB a second.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, another process has it open, or the head of a segment is damaged.
    pub fn open(&self) -> io::Result<(Queue, Backlog)> {
        let disk = Directory::open(&self.directory)?;
        let (spool, handouts) = Spool::on(Arc::new(disk), self.max_bytes)?;
        Ok(Queue::new(Arc::new(spool), handouts))
    }
}

/// The backend on disk. Clones share one queue.
#[derive(Clone)]
struct Spool {
    handle: Arc<Handle>,
}

/// The state that all clones of a [`Spool`] share. The writer thread ends when it is dropped.
struct Handle {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Spool {
    fn on(disk: Arc<dyn Disk>, max_bytes: u64) -> io::Result<(Self, Handouts)> {
        let mut recovered = recover::read(&*disk)?;
        measure::damaged(recovered.damaged);
        let (to_worker, handouts) = handouts();
        let waiting = due(&recovered.ledger, std::mem::take(&mut recovered.waiting));
        let next_segment = recovered.next_segment;
        to_worker.hand_out(waiting);
        let shared = Arc::new(Shared::new(recovered, max_bytes, to_worker));
        let writer = Writer::new(Arc::clone(&shared), disk, next_segment);
        std::thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run())?;
        Ok((Self { handle: Arc::new(Handle { shared, clock: Clock::start() }) }, handouts))
    }

    fn clock(&self) -> &Clock {
        &self.handle.clock
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

/// The times at which recovered events are due. They are converted to the monotonic clock here, so that setting the wall
/// clock later makes no event wait longer.
fn due(ledger: &ledger::Ledger, tickets: Vec<Ticket>) -> Vec<Due> {
    let (now, here) = (SystemTime::now(), Instant::now());
    let due = |ticket: Ticket| {
        let left = ledger.left(ticket.sequence, now);
        Due { ticket, not_before: left.map(|left| (here + left).into_std()) }
    };
    tickets.into_iter().map(due).collect()
}

impl Backend for Spool {
    fn accept(&self, offer: Offer<'_>) -> Result<BackendFuture<'static, Result<Accepted, QueueError>>, QueueError> {
        let written = self.shared().push(offer.delivery, offer.patience)?;
        // `None` means that the disk hangs, or that the writer has ended.
        Ok(Box::pin(written.map(|written| written.unwrap_or(Err(QueueError::Failed)).map(|()| Accepted::Stored))))
    }

    fn refuse(&self) {
        self.shared().refuse();
    }

    fn take_fresh(&self, tickets: &[Ticket]) -> Vec<Option<StoredEvent>> {
        self.shared().take_fresh(tickets)
    }

    fn load<'a>(&'a self, tickets: &'a [Ticket]) -> BackendFuture<'a, Vec<Loaded>> {
        let (shared, tickets) = (Arc::clone(self.shared()), tickets.to_vec());
        let reading = tokio::task::spawn_blocking(move || tickets.iter().map(|ticket| load(&shared, ticket)).collect());
        // `load` catches panics, so that the task fails only when the runtime shuts down.
        Box::pin(reading.map(Result::unwrap_or_default))
    }

    fn note(&self, ticket: &Ticket, state: super::State) {
        self.shared().note(ticket.sequence, state.into());
    }

    fn put_off(&self, ticket: Ticket, state: super::State, wait: Duration) -> Option<Ticket> {
        let retry = Some(Retry { at: self.clock().for_stamps() + wait, wait });
        // The worker need not wait for an event that was dropped meanwhile.
        self.shared().note(ticket.sequence, StoredState { retry, ..state.into() }).then_some(ticket)
    }

    fn finish(&self, tickets: &[Ticket]) {
        self.shared().finish(tickets);
    }

    fn bury(&self, ticket: Ticket, id: EventId, state: super::State, error: &DeliverError) {
        let (at, instant) = (self.clock().for_stamps(), Some(std::time::Instant::now()));
        let death = Death { at, instant, kind: error.kind(), reason: error.to_string().into() };
        self.shared().bury(id, ticket, StoredState { dead: Some(Box::new(death)), ..state.into() });
    }

    fn end(&self) -> BackendFuture<'_, ()> {
        let written = self.shared().flush();
        Box::pin(async move {
            if let Some(written) = written {
                let _ = written.await;
            }
        })
    }

    fn status(&self) -> QueueStatus {
        let mut ledger = self.shared().ledger();
        let oldest = ledger.oldest_waiting();
        let (waiting, dead_letters, bytes) = (ledger.waiting(), ledger.dead().len(), ledger.sizes().taken());
        drop(ledger);
        QueueStatus {
            waiting,
            under_way: 0,
            oldest: oldest.map(|id| id.received_at()),
            dead_letters,
            bytes,
            max_bytes: self.shared().max_bytes(),
            is_failing: self.shared().is_failing(),
        }
    }

    fn waiting(&self, query: WaitingQuery) -> BackendFuture<'_, io::Result<WaitingPage>> {
        let spool = self.clone();
        Box::pin(async move { Ok(tokio::task::spawn_blocking(move || spool.list_waiting(&query)).await?) })
    }

    fn waiting_event(&self, id: EventId) -> BackendFuture<'_, io::Result<Option<(WaitingEvent, StoredEvent)>>> {
        let spool = self.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || spool.read_waiting(id)).await? })
    }

    fn retry_now(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>> {
        let spool = self.clone();
        let ids = ids.into_iter().collect();
        Box::pin(async move { Ok(tokio::task::spawn_blocking(move || spool.shared().retry_now(&ids)).await?) })
    }

    fn drop_waiting(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<Vec<EventId>>> {
        let spool = self.clone();
        let ids = ids.into_iter().collect();
        Box::pin(async move {
            let dropping = spool.clone();
            let dropped = tokio::task::spawn_blocking(move || dropping.shared().drop_waiting(&ids)).await?;
            if !dropped.is_empty() {
                spool.shared().persist().await?;
            }
            Ok(dropped)
        })
    }

    fn dead_letters(&self, query: DeadLetterQuery) -> BackendFuture<'_, io::Result<Vec<DeadLetter>>> {
        let spool = self.clone();
        Box::pin(async move { Ok(tokio::task::spawn_blocking(move || spool.list(&query)).await?) })
    }

    fn dead_letter(&self, id: EventId) -> BackendFuture<'_, io::Result<Option<(DeadLetter, StoredEvent)>>> {
        let spool = self.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || spool.read(id)).await? })
    }

    fn replay(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>> {
        Box::pin(ready(Ok(ids.into_iter().filter(|id| self.replay_one(*id)).count())))
    }

    fn remove_dead_letters(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>> {
        let spool = self.clone();
        Box::pin(async move {
            let removed = ids.into_iter().filter(|id| spool.remove(*id)).count();
            if removed > 0 {
                spool.shared().persist().await?;
            }
            Ok(removed)
        })
    }

    fn expire_dead_letters(&self, age: Duration) -> BackendFuture<'_, io::Result<usize>> {
        Box::pin(ready(Ok(self.expire(age))))
    }
}

/// Reads an event. Removes an event that can never be read, and releases its quota. Blocks.
fn load(shared: &Shared, ticket: &Ticket) -> Loaded {
    let undecodable = || Err(io::Error::other("the stored event cannot be decoded"));
    match catch_unwind(AssertUnwindSafe(|| shared.load(ticket.sequence))).unwrap_or_else(|_| undecodable()) {
        Ok(Some((event, state))) => Loaded::Found(event, state.into()),
        Ok(None) => Loaded::Gone,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            measure::lost(1);
            shared.finish(std::slice::from_ref(ticket));
            Loaded::Lost(error)
        }
        Err(error) => Loaded::NotNow(error),
    }
}
