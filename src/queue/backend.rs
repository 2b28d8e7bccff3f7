//! What a backend of the queue must do.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use super::{DeadLetter, DeadLetterQuery, State, StoredEvent, Ticket};
use crate::event::{DeliverError, Delivery, EventId};

/// A future of a [`Backend`].
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps accepted events until they are delivered. The [module docs](super) have the rules that hold for all of it.
pub trait Backend: Send + Sync + 'static {
    /// Takes an event. What it keeps of the offer it has cloned when this returns, and the event is then on its way: the
    /// future only waits until it is durable, and is over within the offer's patience. Events that are offered at the
    /// same time should share a write, or a transaction.
    ///
    /// # Errors
    ///
    /// At once, if it is known that the event cannot be taken; else from the future. After an error of the future, and
    /// when it is dropped, the event may have been taken all the same.
    fn accept(&self, offer: Offer<'_>) -> Result<Later<'static, Result<Accepted, QueueError>>, QueueError>;

    /// Nobody is there any more to deliver events: [`accept`](Self::accept) fails from here on. The tickets that are
    /// with the worker are of another one, or wait for the next process.
    fn refuse(&self);

    /// The events of these tickets, in their order, as far as they need not be read and nothing became of them so far.
    /// It spares the worker a task for what is delivered at once.
    fn take_fresh(&self, tickets: &[Ticket]) -> Vec<Option<StoredEvent>> {
        tickets.iter().map(|_| None).collect()
    }

    /// Reads the events of these tickets, in their order, with what became of them so far.
    fn load<'a>(&'a self, tickets: &'a [Ticket]) -> Later<'a, Vec<Loaded>>;

    /// Takes note of what became of an event that is still being tried. The newest note counts.
    fn note(&self, ticket: &Ticket, state: State);

    /// An attempt has failed, and there is another after `wait`. Gives the ticket back if the worker is to wait itself.
    /// Else the ticket has ended, and the event is handed out again when its time has come, maybe to another gateway.
    ///
    /// How long is left to be waited must not depend on what happens to the wall clock, neither now nor after a start.
    fn put_off(&self, ticket: Ticket, state: State, wait: Duration) -> Option<Ticket>;

    /// These events were delivered.
    fn finish(&self, tickets: &[Ticket]);

    /// An event is not tried any more, because of `error`: it becomes a dead letter.
    fn bury(&self, ticket: Ticket, id: EventId, state: State, error: &DeliverError);

    /// The worker stops. Resolves when everything that it has said is durable. Tickets that are still with it have then
    /// ended: they are handed out again, by the next process or by another gateway. Events are still accepted.
    fn end(&self) -> Later<'_, ()>;

    /// How many events there are, and whether the storage fails. A database may answer what it knew some seconds ago.
    fn status(&self) -> QueueStatus;

    /// The dead letters that `query` asks for, in the order of their receipt.
    fn dead_letters(&self, query: DeadLetterQuery) -> Later<'_, io::Result<Vec<DeadLetter>>>;

    /// A dead letter, with its event.
    fn dead_letter(&self, id: EventId) -> Later<'_, io::Result<Option<(DeadLetter, StoredEvent)>>>;

    /// Hands dead letters out again, with their state [`replayed`](State::replayed). Returns how many there were.
    fn replay(&self, ids: Vec<EventId>) -> Later<'_, io::Result<usize>>;

    /// Forgets dead letters. Returns how many there were.
    fn remove_dead_letters(&self, ids: Vec<EventId>) -> Later<'_, io::Result<usize>>;

    /// Forgets the dead letters that were given up longer ago than `age`. Returns how many. One whose age is not known
    /// for certain stays.
    fn expire_dead_letters(&self, age: Duration) -> Later<'_, io::Result<usize>>;
}

/// An event that a [`Backend`] is to take. What else belongs into its transaction is added here.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Offer<'a> {
    /// The event.
    pub delivery: &'a Delivery,
    /// How long its sender may be kept waiting.
    pub patience: Duration,
}

impl<'a> Offer<'a> {
    /// An event whose sender waits at most so long.
    pub fn new(delivery: &'a Delivery, patience: Duration) -> Self {
        Self { delivery, patience }
    }
}

/// What came of an [`Offer`] that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepted {
    /// The event is in the queue.
    Stored,
}

/// Why an event was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// There is no room for it now.
    Full,
    /// There never is room for it.
    TooLarge,
    /// The storage failed, or did not answer in time; or nobody is there to deliver the event.
    Failed,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no room for the event now",
            Self::TooLarge => "the event is larger than the queue may ever take",
            Self::Failed => "the event cannot be stored now",
        })
    }
}

impl std::error::Error for QueueError {}

/// What came of reading an event.
#[derive(Debug)]
pub enum Loaded {
    /// The event, and what became of it so far.
    Found(StoredEvent, State),
    /// It is not in the queue any more, or not this worker's. Its ticket has ended.
    Gone,
    /// It was in the queue, and can never be read again. Its ticket has ended.
    Lost(io::Error),
    /// It cannot be read now.
    NotNow(io::Error),
}

/// What is in a queue, as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Events that wait or are being delivered.
    pub waiting: usize,
    /// Events that are not tried any more.
    pub dead_letters: usize,
    /// What it takes of its storage.
    pub bytes: u64,
    /// Whether the last write failed, or has not come to its end for some seconds.
    pub is_failing: bool,
}
