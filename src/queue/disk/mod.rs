//! Where accepted events wait for their delivery: on disk.
//!
//! A webhook with `"ack": "accepted"` answers 202 once its event would survive a power cut. From then on it is delivered
//! or becomes a dead letter; nothing else happens to it.
//!
//! ```no_run
//! use tower_webhook::receiver::ReceiverBuilder;
//! use tower_webhook::queue::disk::{Spool, SpoolOptions};
//! use tower_webhook::{FixedSource, Registry, reflect};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (spool, worker) = Spool::open(SpoolOptions::new("./spool"))?;
//! let (store, reflector) = reflect(FixedSource::new(), Registry::builtin().accepting(true));
//! tokio::spawn(reflector.run());
//! let worker = tokio::spawn(worker.run(store.clone(), async { /* until it is to stop */ std::future::pending().await }));
//! let receiver = ReceiverBuilder::new().spool(spool).build(store);
//! # Ok(())
//! # }
//! ```
//!
//! # On disk
//!
//! Events are appended to a segment of a checksummed log by one thread. Requests that wait at the same time share one
//! `fdatasync`; when several were answered together, the next ones are waited for, a millisecond at most. What became of an
//! event (delivered, tried so often, given up) is appended, too, and shares the next sync: a crash may forget the last
//! moments of it, and the event is then delivered again. Some megabytes of events that have just been accepted stay in
//! memory, too, so that what is delivered at once is not read again. A segment is removed, or becomes the next one, when
//! none of its events is needed any more; when too much of the room is taken by what nobody needs, the oldest segment's
//! rest is copied to the end.
//!
//! Promised:
//!
//! * What was accepted is delivered **at least once**, or kept as a dead letter. A crash may deliver it again, with the
//!   same id.
//! * After a start, events go out in the order of their receipt, webhook by webhook.
//! * What is torn at the end of the log was never accepted. Damage before that, also a block that cannot be read, costs the
//!   events it hits and no others; it is logged and counted.
//! * A disk that fails costs a 503, never an event: the segment is left, and the next try is made in a new one.
//!
//! Files hold events as received, credentials included: mode 0600, in a directory of mode 0700, which one process at a
//! time can have.

pub(crate) mod current;
pub(crate) mod dead;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod frames;
pub(crate) mod ledger;
pub(crate) mod measure;
pub(crate) mod queue;
pub(crate) mod recover;
pub(crate) mod shared;
pub(crate) mod shares;
pub(crate) mod state;
pub(crate) mod storage;
pub(crate) mod writer;

#[cfg(fuzzing)]
#[path = "tests/faulty.rs"]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use self::dead::{DeadLetter, Letter};
pub(crate) use self::event::Event;
#[cfg(fuzzing)]
pub(crate) use self::frame::fuzz as fuzz_frames;
#[cfg(fuzzing)]
pub(crate) use self::recover::fuzz as fuzz_recovery;
use self::shared::Shared;
pub(crate) use self::state::{Again, Death, State};
use self::storage::{Directory, Disk};
use self::writer::Writer;
use crate::base::clock::Clock;
use crate::config::WebhookKey;
use crate::event::Delivery;
use crate::worker::Worker;

/// Room for events, if [`SpoolOptions`] are not told: 1 GiB.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// Takes events for later. See the [module docs](self).
#[derive(Clone)]
pub struct Spool {
    handle: Arc<Handle>,
}

/// What all clones of a [`Spool`] share. The writing thread ends with it.
struct Handle {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Where a spool is and how large it may get.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    directory: PathBuf,
    max_bytes: u64,
}

impl SpoolOptions {
    /// A spool of [`DEFAULT_MAX_BYTES`] in this directory, which is made if it is missing.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), max_bytes: DEFAULT_MAX_BYTES }
    }

    /// How many bytes its files may have together, dead letters included. Thirteen sixteenths of them are for events: a
    /// webhook may hold as many bytes as are still free, and a namespace twice as many, so that a target that is down
    /// never shuts out the others. An event of more than half of that room is too large.
    #[must_use]
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }
}

/// Why an event was not accepted. It is not in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpoolError {
    /// There is no room for it now.
    Full,
    /// There never is room for it: see [`SpoolOptions::max_bytes`].
    TooLarge,
    /// The disk failed, or the [`Worker`] ended without having been told to stop.
    Failed,
}

/// A claim on an event that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    /// Grows with each event.
    pub(crate) sequence: u64,
    pub(crate) webhook: WebhookKey,
    /// What the event takes on disk.
    pub(crate) bytes: u32,
}

/// The events that are to be delivered: first what an earlier process has left, then each that is accepted.
pub(crate) type Tickets = UnboundedReceiver<Vec<Ticket>>;

impl Spool {
    /// Opens the spool, with what an earlier process has left in it, and the worker that delivers its events.
    ///
    /// Blocks while it reads: some hundred MB a second.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, another process has it, or a segment's head is damaged.
    pub fn open(options: SpoolOptions) -> io::Result<(Self, Worker)> {
        let disk = Directory::open(&options.directory)?;
        let (spool, tickets) = Self::on(Arc::new(disk), options.max_bytes)?;
        Ok((spool.clone(), Worker::new(spool, tickets)))
    }

    fn on(disk: Arc<dyn Disk>, max_bytes: u64) -> io::Result<(Self, Tickets)> {
        let mut recovered = recover::read(&*disk)?;
        measure::damaged(recovered.damaged);
        let (sender, tickets) = unbounded_channel();
        let waiting = std::mem::take(&mut recovered.waiting);
        let next_segment = recovered.next_segment;
        let shared = Arc::new(Shared::new(recovered, max_bytes, sender));
        shared.offer(waiting);
        let writer = Writer::new(Arc::clone(&shared), disk, next_segment);
        std::thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run())?;
        Ok((Self { handle: Arc::new(Handle { shared, clock: Clock::start() }) }, tickets))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.handle.clock
    }

    /// The events that were put off by an earlier process, and how much longer.
    pub(crate) fn put_off(&self, now: SystemTime) -> impl Iterator<Item = (u64, Duration)> + use<> {
        self.shared().ledger().put_off(now).into_iter()
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The event is on its way to the disk. The future resolves once it would survive a power cut. If that fails, if it
    /// takes longer than `patience`, or if the future is dropped before, the event may be in the spool or not.
    pub(crate) fn accept(
        &self,
        delivery: &Delivery,
        patience: Duration,
    ) -> Result<impl Future<Output = Result<(), SpoolError>> + use<>, SpoolError> {
        let written = self.shared().push(delivery, patience)?;
        Ok(async move { written.await.unwrap_or(Err(SpoolError::Failed)) })
    }

    /// Takes what is still in memory of the events, in their order. Nothing became of those so far.
    pub(crate) fn take_fresh<'a>(&self, tickets: impl Iterator<Item = &'a Ticket>) -> Vec<Option<Event>> {
        self.shared().take_fresh(tickets)
    }

    /// Reads an event and what became of it so far. Blocks. `None` if it is not there any more.
    pub(crate) fn load(&self, ticket: &Ticket) -> io::Result<Option<(Event, State)>> {
        self.shared().load(ticket.sequence)
    }

    /// Takes note of what became of an event.
    pub(crate) fn note(&self, ticket: &Ticket, state: State) {
        self.shared().note(ticket.sequence, state);
    }

    /// The events have been delivered.
    pub(crate) fn finish(&self, tickets: &[Ticket]) {
        self.shared().finish(tickets);
    }

    /// The event is there, and cannot be read any more, now or later.
    pub(crate) fn give_up(&self, ticket: &Ticket) {
        measure::lost(1);
        self.finish(std::slice::from_ref(ticket));
    }

    /// The event is not there any more.
    pub(crate) fn lost(&self, ticket: &Ticket) {
        self.shared().give_back([ticket]);
    }

    /// Waits until everything that was said so far is on disk.
    pub(crate) async fn flush(&self) {
        if let Some(written) = self.shared().flush() {
            let _ = written.await;
        }
    }

    /// Sets the gauges `tower_webhook_spool_*`; the [`Worker`] does so every 2 s.
    pub fn measure(&self) {
        let ledger = self.shared().ledger();
        measure::state(ledger.waiting(), ledger.sizes().taken(), ledger.dead().len());
    }

    /// Takes nothing more: nobody is there to deliver it.
    pub(crate) fn refuse(&self) {
        self.shared().refuse();
    }

    /// How many events wait or are being delivered.
    pub fn waiting(&self) -> usize {
        self.shared().ledger().waiting()
    }

    /// Whether the last write failed, or has not come to its end for some seconds.
    pub fn is_failing(&self) -> bool {
        self.shared().is_failing()
    }

    /// The bytes of the spool's files.
    pub fn bytes(&self) -> u64 {
        self.shared().sizes().taken()
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}
