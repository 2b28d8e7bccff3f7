//! Where accepted events wait for their delivery.
//!
//! A webhook with `"ack": "accepted"` answers 202 once its event is in the queue. From then on the event is delivered or
//! becomes a dead letter; nothing else happens to it. Requests and operators use a [`Queue`]; the
//! [`Worker`](crate::worker::Worker), which delivers the events, uses a [`Backlog`]. Both rely only on the contract,
//! [`Backend`]. With the feature `queue-disk`, `disk::DiskQueue` is a backend in one directory.
//!
//! # Writing a backend
//!
//! A backend is a type that implements [`Backend`], and a function that opens a queue on it:
//!
//! ```ignore
//! pub async fn open(url: &str) -> io::Result<(Queue, Backlog)> {
//!     let (to_worker, handouts) = handouts();
//!     let backend = Arc::new(Database::connect(url, to_worker).await?);
//!     Ok(Queue::new(backend, handouts))
//! }
//! ```
//!
//! A backend keeps these promises, besides those in the docs of each method:
//!
//! * **Accepted means durable.** [`accept`](Backend::accept) succeeds when the event would survive a power cut: in a
//!   database, when its transaction is committed. When the storage fails, events are refused; none is kept in memory
//!   only.
//! * **One worker holds an event at a time.** The backend hands out the event's [`Ticket`] once the event is durable.
//!   The worker holds the ticket until it *ends*: by [`finish`](Backend::finish), by [`bury`](Backend::bury), by a
//!   [`put_off`](Backend::put_off) that keeps the ticket, or by a [`load`](Backend::load) that returns
//!   [`Loaded::Gone`] or [`Loaded::Lost`], or when the backend declares it [`ended`](ToWorker::ended). A backend that several gateways share leases the event to one of them. It
//!   renews the lease of each ticket that the worker holds, until [`refuse`](Backend::refuse) or [`end`](Backend::end)
//!   is called. If a lease was lost to another gateway, `load` returns `Gone`, and later calls with that ticket have no
//!   effect.
//! * **Order.** The events of a webhook that one gateway received are handed out in the order of their receipt. Events
//!   left by an earlier process come first.
//! * **Fairness.** The worker is fair among the tickets that it holds. A backend that holds more events than it hands
//!   out at a time limits the events that it hands out per webhook and per namespace, so that none of them keeps the
//!   others out.
//! * **At least once.** The result of an attempt need not be durable at once. A crash may lose the results of the last
//!   moments; those events are then delivered again, with the same id. An accepted event is never lost.
//! * **Nothing blocks.** Only a future waits for the storage, and each future may be dropped at any await.
//!
//! `tests/it/queue` holds any backend to this contract.

pub(crate) mod backend;
mod bulk;
pub(crate) mod dead_letter;
#[cfg(feature = "queue-disk")]
pub mod disk;
pub(crate) mod event;
mod metrics;
pub(crate) mod under_way;
pub(crate) mod waiting;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use self::backend::{Accepted, Backend, BackendFuture, Loaded, Offer, QueueError, QueueStatus};
pub use self::bulk::Matched;
pub use self::dead_letter::{DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetterQuery};
pub use self::event::{Due, State, StoredEvent, Ticket};
pub use self::under_way::Trying;
use self::under_way::UnderWay;
pub use self::waiting::{Dropped, WaitingEvent, WaitingPage, WaitingQuery};
use crate::event::EventId;

/// Accepts events to be delivered later, and manages waiting events and dead letters. Clones share one queue. See the [module docs](self).
#[derive(Clone)]
pub struct Queue {
    backend: Arc<dyn Backend>,
    under_way: UnderWay,
}

impl Queue {
    /// A queue on `backend`. `handouts` is the receiving end of the channel that the backend sends its events through.
    pub fn new(backend: Arc<dyn Backend>, handouts: Handouts) -> (Self, Backlog) {
        let queue = Self { backend, under_way: UnderWay::default() };
        let backlog = Backlog { queue: queue.clone(), handouts, has_ended: false };
        (queue, backlog)
    }

    /// The backend, for an application that has its own worker.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// How many events there are, and whether the storage is failing.
    pub fn status(&self) -> QueueStatus {
        QueueStatus { under_way: self.under_way.count(), ..self.backend.status() }
    }

    /// Declares that an event is being tried, until the guard is dropped. A [`Worker`](crate::worker::Worker) does so; an
    /// application that has its own worker should.
    pub fn trying(&self, id: EventId) -> Trying {
        self.under_way.begin(id)
    }

    /// Sets the gauges `tower_webhook_queue_*`; a [`Worker`](crate::worker::Worker) does so every 2 s.
    pub fn measure(&self) {
        metrics::status(&self.status());
    }

    /// The events that match `query` and wait or are being tried, in the order of their ids.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn waiting(&self, query: WaitingQuery) -> io::Result<WaitingPage> {
        let mut page = self.backend.waiting(query).await?;
        page.events.iter_mut().for_each(|event| self.mark(event));
        Ok(page)
    }

    /// One event that waits or is being tried, with its content, credentials included; `None` if there is no such event.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn waiting_event(&self, id: EventId) -> io::Result<Option<(WaitingEvent, StoredEvent)>> {
        let mut found = self.backend.waiting_event(id).await?;
        if let Some((event, _)) = &mut found {
            self.mark(event);
        }
        Ok(found)
    }

    fn mark(&self, event: &mut WaitingEvent) {
        event.under_way |= self.under_way.contains(event.id);
        event.next_attempt = event.next_attempt.filter(|at| !event.under_way && *at > SystemTime::now());
    }

    /// Ends the wait of these events: each is tried as soon as it is its turn. The number of its attempts stays. Returns
    /// how many of the ids were events that wait or are being tried.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some of them may be tried all the same.
    pub async fn retry_now(&self, ids: Vec<EventId>) -> io::Result<usize> {
        self.backend.retry_now(ids).await
    }

    /// Removes these events from the queue for good, neither delivered nor kept as dead letters. When this returns, the
    /// removal is durable. An attempt that is under way, or whose event is just being read, goes on and may still deliver
    /// the event; no other follows.
    ///
    /// # Errors
    ///
    /// When the storage fails. The events are not tried again by this process, but may be by the next one.
    pub async fn drop_waiting(&self, ids: Vec<EventId>) -> io::Result<Dropped> {
        let before: Vec<_> = ids.iter().copied().filter(|id| self.under_way.contains(*id)).collect();
        let dropped = self.backend.drop_waiting(ids).await?;
        let under_way = dropped.iter().filter(|id| before.contains(id)).count();
        Ok(Dropped { events: dropped.len(), under_way })
    }

    /// The dead letters that match `query`, in the order of their receipt.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn dead_letters(&self, query: DeadLetterQuery) -> io::Result<Vec<DeadLetter>> {
        self.backend.dead_letters(query).await
    }

    /// One dead letter with its event, credentials included; `None` if there is no dead letter with this id.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn dead_letter(&self, id: EventId) -> io::Result<Option<(DeadLetter, StoredEvent)>> {
        self.backend.dead_letter(id).await
    }

    /// Delivers these dead letters again, as if they had just been accepted. Of a chain, only the steps that have not
    /// succeeded yet run again. Returns how many of the ids were dead letters.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some of them may be delivered all the same.
    pub async fn replay(&self, ids: Vec<EventId>) -> io::Result<usize> {
        self.backend.replay(ids).await
    }

    /// Deletes these dead letters. Returns how many of the ids were dead letters. When this returns, the deletion is
    /// durable.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some of them may be deleted all the same.
    pub async fn remove_dead_letters(&self, ids: Vec<EventId>) -> io::Result<usize> {
        self.backend.remove_dead_letters(ids).await
    }

    /// How many dead letters match `query`, at most [`limit`](DeadLetterQuery::limit).
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn count_dead_letters(&self, query: DeadLetterQuery) -> io::Result<u64> {
        Ok(bulk::each_page(&*self.backend, query, bulk::Work::Count).await?.matched)
    }

    /// Delivers the dead letters again that match `query` and were received before this call, as [`replay`](Self::replay)
    /// does, in batches; at most [`limit`](DeadLetterQuery::limit). With `dry_run` it only counts them.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some of them may be delivered all the same.
    pub async fn replay_matching(&self, query: DeadLetterQuery, dry_run: bool) -> io::Result<Matched> {
        let work = if dry_run { bulk::Work::Count } else { bulk::Work::Replay };
        bulk::each_page(&*self.backend, query, work).await
    }

    /// Deletes the dead letters that match `query` and were received before this call, in batches; at most
    /// [`limit`](DeadLetterQuery::limit). With `dry_run` it only counts them.
    ///
    /// # Errors
    ///
    /// When the storage fails. Some of them may be deleted all the same.
    pub async fn remove_matching(&self, query: DeadLetterQuery, dry_run: bool) -> io::Result<Matched> {
        let work = if dry_run { bulk::Work::Count } else { bulk::Work::Remove };
        bulk::each_page(&*self.backend, query, work).await
    }

    /// Groups the dead letters that match `query` by webhook, kind and reason, the largest group first.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn dead_letter_groups(&self, query: DeadLetterQuery) -> io::Result<DeadLetterGroups> {
        bulk::groups(&*self.backend, query).await
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// The events of a [`Queue`] that wait for their delivery, for one [`Worker`](crate::worker::Worker).
///
/// When a backlog is dropped without a call of [`end`](Self::end), the queue refuses events from then on: without a
/// worker, an accepted event would wait for ever.
#[must_use = "accepted events are delivered by a `Worker`"]
pub struct Backlog {
    queue: Queue,
    handouts: Handouts,
    has_ended: bool,
}

impl Backlog {
    /// The next message of the backend; `None` if the backend will hand out no more events. This is cancel safe.
    pub async fn next(&mut self) -> Option<Handout> {
        self.handouts.0.recv().await
    }

    /// The queue whose events these are.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Declares that the worker stops on purpose: the queue keeps accepting events, for the next worker.
    pub fn end(&mut self) {
        self.has_ended = true;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        if !self.has_ended {
            self.queue.backend.refuse();
        }
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").finish_non_exhaustive()
    }
}

/// The channel from a backend to the worker: the sending and the receiving end.
pub fn handouts() -> (ToWorker, Handouts) {
    let (sender, receiver) = unbounded_channel();
    (ToWorker(sender), Handouts(receiver))
}

/// The backend's end of the channel to the worker. The channel is unbounded: a backend that holds many events limits
/// the number that it hands out itself.
#[derive(Clone, Debug)]
pub struct ToWorker(UnboundedSender<Handout>);

/// A message from a backend to the worker.
#[derive(Clone, Debug)]
pub enum Handout {
    /// Events to be tried. The worker holds their tickets from now on.
    Due(Vec<Due>),
    /// Tickets that the worker may hold. Those that wait for their next attempt are to be tried now; for the others
    /// nothing changes.
    Hurry(Vec<Ticket>),
    /// Tickets that have ended, because their events were removed. The worker forgets those that it has not begun to
    /// try.
    Ended(Vec<Ticket>),
}

impl ToWorker {
    /// Hands events to the worker. Returns `false` if there is no worker: the events then stay for the next process.
    pub fn hand_out(&self, events: Vec<Due>) -> bool {
        self.0.send(Handout::Due(events)).is_ok()
    }

    /// Tells the worker that these events shall wait no longer, if it makes them wait. Returns `false` if there is no
    /// worker.
    pub fn hurry(&self, tickets: Vec<Ticket>) -> bool {
        self.0.send(Handout::Hurry(tickets)).is_ok()
    }

    /// Tells the worker that these tickets have ended, because their events were removed. Returns `false` if there is no
    /// worker.
    pub fn ended(&self, tickets: Vec<Ticket>) -> bool {
        self.0.send(Handout::Ended(tickets)).is_ok()
    }
}

/// The worker's end of the channel. Pass it to [`Queue::new`].
#[derive(Debug)]
pub struct Handouts(UnboundedReceiver<Handout>);

#[cfg(all(test, feature = "queue-disk"))]
impl Handouts {
    /// The tickets that were handed out since the last call.
    pub(crate) fn receive(&mut self) -> Vec<Ticket> {
        let messages = std::iter::from_fn(|| self.0.try_recv().ok());
        let due = messages.filter_map(|message| match message {
            Handout::Due(events) => Some(events),
            Handout::Hurry(_) | Handout::Ended(_) => None,
        });
        due.flatten().map(|due| due.ticket).collect()
    }
}
