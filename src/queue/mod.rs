//! Where accepted events wait for their delivery.
//!
//! A webhook with `"ack": "accepted"` answers 202 once its event is in the queue. From then on the event is delivered or
//! becomes a dead letter; nothing else happens to it. A [`Queue`] is the handle of requests and operators, a [`Backlog`]
//! that of the [`Worker`](crate::worker::Worker), which delivers. Both know only the contract, [`Backend`]; with the
//! feature `queue-disk` [`DiskQueue`](disk::DiskQueue) is a backend in one directory.
//!
//! # To write a backend
//!
//! A type that implements [`Backend`], and a function that makes a queue of it:
//!
//! ```ignore
//! pub async fn open(url: &str) -> io::Result<(Queue, Backlog)> {
//!     let (to_worker, handouts) = handouts();
//!     let backend = Arc::new(Database::connect(url, to_worker).await?);
//!     Ok(Queue::new(backend, handouts))
//! }
//! ```
//!
//! What it must keep to, beside the docs of each method:
//!
//! * **Accepted means durable.** [`accept`](Backend::accept) succeeds when the event would survive a power cut, in a
//!   database when its transaction is committed. When the storage fails, events are refused; none is kept in memory
//!   only.
//! * **An event is with one worker at a time.** Its [`Ticket`] is handed out once the event is durable, and is with the
//!   worker until it *ends*: by [`finish`](Backend::finish), [`bury`](Backend::bury), a
//!   [`put_off`](Backend::put_off) that keeps the ticket, or a [`load`](Backend::load) that says [`Loaded::Gone`] or
//!   [`Loaded::Lost`]. A backend that several gateways share leases the event to one of them. It renews the lease of
//!   each ticket that is with the worker, and stops to do so with [`refuse`](Backend::refuse) and
//!   [`end`](Backend::end). If a lease was lost to another gateway, `load` says `Gone`, and what the worker says of
//!   the ticket from then on changes nothing.
//! * **Order.** The events of a webhook are handed out in the order of their receipt, as far as one gateway received
//!   them; those that an earlier process has left come first.
//! * **Fairness.** The worker is fair among the tickets that it has. A backend that holds more events than it hands out
//!   at a time bounds what it hands out by webhook and by namespace, so that one of them cannot keep the others out.
//! * **At least once.** What the worker says of a ticket need not be durable at once. A crash may forget the last
//!   moments, and the event is then delivered again, with the same id. It is never forgotten that an event was accepted.
//! * **Nobody is kept waiting.** No method that is not a future blocks on the storage, and each future may be dropped
//!   at any await.
//!
//! `tests/it/queue` holds any backend to this contract.

pub(crate) mod backend;
pub(crate) mod dead_letter;
#[cfg(feature = "queue-disk")]
pub mod disk;
pub(crate) mod event;
mod metrics;

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use self::backend::{Accepted, Backend, Later, Loaded, Offer, QueueError, QueueStatus};
pub use self::dead_letter::{DeadLetter, DeadLetterQuery};
pub use self::event::{Due, State, StoredEvent, Ticket};
use crate::event::EventId;

/// Takes events for later, and shows what became of them. A clone is the same queue. See the [module docs](self).
#[derive(Clone)]
pub struct Queue {
    backend: Arc<dyn Backend>,
}

impl Queue {
    /// A queue on this backend, which hands its events out through the other end of `handouts`.
    pub fn new(backend: Arc<dyn Backend>, handouts: Handouts) -> (Self, Backlog) {
        let queue = Self { backend };
        let backlog = Backlog { queue: queue.clone(), handouts, is_at_its_end: false };
        (queue, backlog)
    }

    /// The backend: for a worker of your own.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// How many events there are, and whether the storage fails.
    pub fn status(&self) -> QueueStatus {
        self.backend.status()
    }

    /// Sets the gauges `tower_webhook_queue_*`; a [`Worker`](crate::worker::Worker) does so every 2 s.
    pub fn measure(&self) {
        metrics::status(&self.status());
    }

    /// The dead letters that `query` asks for, in the order of their receipt.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn dead_letters(&self, query: DeadLetterQuery) -> io::Result<Vec<DeadLetter>> {
        self.backend.dead_letters(query).await
    }

    /// A dead letter with its event, credentials included.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn dead_letter(&self, id: EventId) -> io::Result<Option<(DeadLetter, StoredEvent)>> {
        self.backend.dead_letter(id).await
    }

    /// Delivers these dead letters again, as if they had just been accepted; of a chain, what is not done yet. Returns how
    /// many there were.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some may be delivered all the same.
    pub async fn replay(&self, ids: Vec<EventId>) -> io::Result<usize> {
        self.backend.replay(ids).await
    }

    /// Forgets these dead letters. Returns how many there were.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some may be forgotten all the same.
    pub async fn remove_dead_letters(&self, ids: Vec<EventId>) -> io::Result<usize> {
        self.backend.remove_dead_letters(ids).await
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// The events of a [`Queue`] that wait for their delivery, for one [`Worker`](crate::worker::Worker).
///
/// Dropped, it makes the queue refuse events, unless it was told [`end`](Self::end): what is accepted when nobody is
/// there to deliver it would only wait.
#[must_use = "accepted events are delivered by a `Worker`"]
pub struct Backlog {
    queue: Queue,
    handouts: Handouts,
    is_at_its_end: bool,
}

impl Backlog {
    /// The next events to be tried; `None` if the backend hands out nothing more. May be dropped at any await.
    pub async fn next(&mut self) -> Option<Vec<Due>> {
        self.handouts.0.recv().await
    }

    /// Its queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The worker is to stop: from here on the queue takes events for the next one.
    pub fn end(&mut self) {
        self.is_at_its_end = true;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        if !self.is_at_its_end {
            self.queue.backend.refuse();
        }
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").finish_non_exhaustive()
    }
}

/// The way from a backend to the worker, both ends of it.
pub fn handouts() -> (ToWorker, Handouts) {
    let (sender, receiver) = unbounded_channel();
    (ToWorker(sender), Handouts(receiver))
}

/// The end of a backend: hands events to the worker. It has no bound, a backend that holds many events has.
#[derive(Clone, Debug)]
pub struct ToWorker(UnboundedSender<Vec<Due>>);

impl ToWorker {
    /// Hands out events. Whether there is a worker to take them: if not, they stay for the next process.
    pub fn hand_out(&self, events: Vec<Due>) -> bool {
        self.0.send(events).is_ok()
    }
}

/// The worker's end. Goes into [`Queue::new`].
#[derive(Debug)]
pub struct Handouts(UnboundedReceiver<Vec<Due>>);

#[cfg(all(test, feature = "queue-disk"))]
impl Handouts {
    /// The tickets that were handed out and not taken so far.
    pub(crate) fn receive(&mut self) -> Vec<Ticket> {
        let handed_out = std::iter::from_fn(|| self.0.try_recv().ok());
        handed_out.flatten().map(|due| due.ticket).collect()
    }
}
