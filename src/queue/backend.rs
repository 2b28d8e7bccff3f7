//! The contract of a queue's backend.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use super::{DeadLetter, DeadLetterQuery, State, StoredEvent, Ticket, WaitingEvent, WaitingPage, WaitingQuery};
use crate::event::{DeliverError, Delivery, EventId};
use crate::request::RejectionKind;

/// A boxed future that a [`Backend`] returns.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Stores accepted events until they are delivered. The [module docs](super) list the promises that a backend keeps.
pub trait Backend: Send + Sync + 'static {
    /// Stores an event. When this returns, the backend has cloned everything that it needs, and the event is on its way
    /// into the storage. The future resolves when the event is durable, and within [`Offer::patience`] at the latest.
    /// Events that are offered at the same time should share a write, or a transaction (group commit).
    ///
    /// # Errors
    ///
    /// At once, if the backend knows already that it cannot take the event; otherwise from the future. After an error of
    /// the future, or after the future was dropped, the event may be in the queue all the same.
    fn accept(&self, offer: Offer<'_>) -> Result<BackendFuture<'static, Result<Accepted, QueueError>>, QueueError>;

    /// The worker is gone: [`accept`](Self::accept) fails from now on. The events whose tickets it held wait for the next
    /// process, or for another gateway.
    fn refuse(&self);

    /// The events of these tickets, in the same order; `None` for an event that must be read from the storage, or that
    /// was tried before. Events that are still in memory spare the worker a read, and a task to wait for it.
    fn take_fresh(&self, tickets: &[Ticket]) -> Vec<Option<StoredEvent>> {
        tickets.iter().map(|_| None).collect()
    }

    /// Reads the events of these tickets with their states, in the same order.
    fn load<'a>(&'a self, tickets: &'a [Ticket]) -> BackendFuture<'a, Vec<Loaded>>;

    /// Records the state of an event that is still being tried. The newest record counts.
    fn note(&self, ticket: &Ticket, state: State);

    /// Records that an attempt has failed and the next one is due after `wait`. Returns the ticket if the worker itself
    /// shall wait. Otherwise the ticket has ended, and the event is handed out again when it is due, maybe to another
    /// gateway.
    ///
    /// A change of the wall clock must not make the event wait longer than `wait`, neither now nor after a restart.
    fn put_off(&self, ticket: Ticket, state: State, wait: Duration) -> Option<Ticket>;

    /// Removes these events: they were delivered.
    fn finish(&self, tickets: &[Ticket]);

    /// Makes an event a dead letter: it was given up because of `error`.
    fn bury(&self, ticket: Ticket, id: EventId, state: State, error: &DeliverError);

    /// The worker stops. Resolves when everything that it has recorded is durable. The tickets that it still holds have
    /// then ended: their events are handed out again, by the next process or by another gateway. Events are still accepted.
    fn end(&self) -> BackendFuture<'_, ()>;

    /// How many events there are, and whether the storage is failing. The answer may be some seconds old.
    fn status(&self) -> QueueStatus;

    /// The events that match `query` and wait or are being tried, in the order of their ids.
    fn waiting(&self, query: WaitingQuery) -> BackendFuture<'_, io::Result<WaitingPage>>;

    /// One event that waits or is being tried, with its content.
    fn waiting_event(&self, id: EventId) -> BackendFuture<'_, io::Result<Option<(WaitingEvent, StoredEvent)>>>;

    /// Ends the wait of these events: a later process, too, does not make them wait. If the worker holds the ticket,
    /// the backend tells it by [`ToWorker::hurry`](super::ToWorker::hurry); otherwise it hands the event out. Returns how
    /// many of the ids were events that wait or are being tried.
    fn retry_now(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>>;

    /// Removes these events for good. Returns those that were in the queue, once their removal is durable. Their tickets
    /// have ended: the backend tells the worker by [`ToWorker::ended`](super::ToWorker::ended), and later calls with them
    /// have no effect. Dead letters stay.
    fn drop_waiting(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<Vec<EventId>>>;

    /// The dead letters that match `query`, in the order of their receipt.
    fn dead_letters(&self, query: DeadLetterQuery) -> BackendFuture<'_, io::Result<Vec<DeadLetter>>>;

    /// One dead letter, with its event.
    fn dead_letter(&self, id: EventId) -> BackendFuture<'_, io::Result<Option<(DeadLetter, StoredEvent)>>>;

    /// Hands dead letters out again, with their states [`replayed`](State::replayed). Returns how many of the ids were
    /// dead letters.
    fn replay(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>>;

    /// Deletes dead letters. Returns how many of the ids were dead letters, once the deletion is durable.
    fn remove_dead_letters(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>>;

    /// Deletes the dead letters that were given up longer ago than `age`, and returns their number. A dead letter whose
    /// age is not known for certain stays.
    fn expire_dead_letters(&self, age: Duration) -> BackendFuture<'_, io::Result<usize>>;
}

/// An event that a [`Backend`] is asked to store. Whatever else shall be part of the same transaction becomes a field
/// here.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Offer<'a> {
    /// The event.
    pub delivery: &'a Delivery,
    /// How long the event's sender may be kept waiting.
    pub patience: Duration,
}

impl<'a> Offer<'a> {
    /// Offers an event whose sender may be kept waiting for `patience`.
    pub fn new(delivery: &'a Delivery, patience: Duration) -> Self {
        Self { delivery, patience }
    }
}

/// The successful outcome of an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepted {
    /// The event is in the queue.
    Stored,
}

/// The reason for which an event was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// There is no room for the event now.
    Full,
    /// The event is larger than the queue can ever take.
    TooLarge,
    /// The storage failed or did not answer in time, or there is no worker to deliver the event.
    Failed,
}

impl QueueError {
    /// The refusal that the event's sender gets.
    pub(crate) fn refusal(self) -> RejectionKind {
        match self {
            Self::Full => RejectionKind::QueueFull,
            Self::TooLarge => RejectionKind::BodyTooLarge,
            Self::Failed => RejectionKind::QueueFailed,
        }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no room for the event now",
            Self::TooLarge => "the event is larger than the queue can ever take",
            Self::Failed => "the event cannot be stored now",
        })
    }
}

impl std::error::Error for QueueError {}

/// The outcome of reading an event.
#[derive(Debug)]
pub enum Loaded {
    /// The event, and the state of its delivery.
    Found(StoredEvent, State),
    /// The event is not in the queue any more, or another gateway holds it. Its ticket has ended.
    Gone,
    /// The event was in the queue, and can never be read again. Its ticket has ended.
    Lost(io::Error),
    /// The event cannot be read now, but maybe later.
    NotNow(io::Error),
}

/// The counts of a queue, and the health of its storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Events that wait or are being delivered.
    pub waiting: usize,
    /// Those among them that this process is delivering now. [`Queue::status`](super::Queue::status) sets it.
    pub under_way: usize,
    /// When the oldest of the `waiting` events was received.
    pub oldest: Option<SystemTime>,
    /// Events that were given up.
    pub dead_letters: usize,
    /// Bytes of storage in use.
    pub bytes: u64,
    /// The largest value that `bytes` may have; zero if the storage has no limit of its own.
    pub max_bytes: u64,
    /// Whether the last write failed, or has been under way for more than some seconds.
    pub is_failing: bool,
}
