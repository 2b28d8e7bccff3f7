//! What requests, the worker and the writing thread share.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::batch::Memory;
use super::decide::{Chores, MANY, Queued, Wake, decide};
use super::frame::{FRAME_HEAD, Kind, Salt};
use super::ledger::{Ledger, Place, Sizes};
use super::progress::State;
use super::queue::{Batch, Queue};
use super::recover::Recovered;
use super::{event, frame};
use crate::base::group::{Gathers, Stragglers, Waiter, gather, idle};
use crate::base::lock::lock;
use crate::event::{Delivery, EventId};
use crate::queue::{Due, QueueError, StoredEvent, Ticket, ToWorker};
use bytes::Bytes;

/// How long a note of what became of an event may wait for others before it is written.
const LINGER: Duration = Duration::from_millis(10);

/// What events that were just written may take in memory.
const MAX_FRESH: usize = 4 << 20;

/// A disk that has not come to an end with one group after so long is taken for one that fails.
const HANGS: Duration = Duration::from_secs(5);

/// Neither of its two locks is taken by who has the other.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// There is something for the writer to do.
    wake: Condvar,
    ledger: Mutex<Ledger>,
    sizes: Arc<Sizes>,
    memory: Memory,
    max_bytes: u64,
    /// Whether the last write failed.
    has_failed: AtomicBool,
    /// Since when the writer is busy with a group.
    busy: Mutex<Option<Instant>>,
    to_worker: ToWorker,
}

impl Shared {
    /// `recovered` without those that wait.
    pub(super) fn new(recovered: Recovered, max_bytes: u64, to_worker: ToWorker) -> Self {
        let queue = Queue::new(recovered.shares, recovered.next_sequence);
        Self {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            sizes: Arc::clone(recovered.ledger.sizes()),
            ledger: Mutex::new(recovered.ledger),
            memory: Memory::new(MAX_FRESH),
            max_bytes,
            has_failed: AtomicBool::new(false),
            busy: Mutex::new(None),
            to_worker,
        }
    }

    /// Gives events to the worker. Without one they stay for the next process.
    pub(super) fn offer(&self, events: Vec<Due>) {
        self.to_worker.hand_out(events);
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(super) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Whether the disk failed, or hangs.
    pub(super) fn is_failing(&self) -> bool {
        self.has_failed() || lock(&self.busy).is_some_and(|since| since.elapsed() > HANGS)
    }

    /// Whether the last write failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Returns what it was before.
    pub(super) fn set_failed(&self, has_failed: bool) -> bool {
        self.has_failed.swap(has_failed, Ordering::Relaxed)
    }

    pub(super) fn set_busy(&self, is_busy: bool) {
        *lock(&self.busy) = is_busy.then(Instant::now);
    }

    /// Gives the writer an event. Its sender waits for so long at most.
    pub(super) fn push(
        &self,
        delivery: &Delivery,
        patience: Duration,
    ) -> Result<Waiter<Result<(), QueueError>>, QueueError> {
        let length = FRAME_HEAD + event::head_length(delivery) + delivery.body().len();
        let bytes = u32::try_from(length).map_err(|_| QueueError::TooLarge)?;
        let mut queue = self.queue();
        queue.push(delivery, bytes, &self.sizes, self.max_bytes)?;
        Ok(self.join(queue, Some(patience)))
    }

    /// For who waits until everything that was said so far is on disk.
    pub(super) fn flush(&self) -> Option<Waiter<Result<(), QueueError>>> {
        let queue = self.queue();
        (!queue.closed).then(|| self.join(queue, None))
    }

    fn join(&self, mut queue: MutexGuard<'_, Queue>, patience: Option<Duration>) -> Waiter<Result<(), QueueError>> {
        let is_enough = queue.is_enough();
        let (waiter, wake) = queue.gathering.join(patience, is_enough);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        waiter
    }

    pub(super) fn note(&self, sequence: u64, state: State) {
        let is_kept = self.ledger().note(sequence, state);
        if is_kept {
            self.changed([sequence]);
        }
    }

    /// Takes note that an event is not tried any more.
    pub(super) fn bury(&self, id: EventId, ticket: Ticket, state: State) {
        let mut ledger = self.ledger();
        let sequence = ticket.sequence;
        if ledger.note(sequence, state) {
            ledger.bury(id, ticket);
            drop(ledger);
            self.changed([sequence]);
        } else {
            drop(ledger);
            // It became unreadable while it was under way.
            self.give_back([&ticket]);
        }
    }

    pub(super) fn finish(&self, tickets: &[Ticket]) {
        let mut ledger = self.ledger();
        let removed = tickets.iter().filter(|ticket| ledger.remove(ticket.sequence)).map(|ticket| ticket.sequence);
        let removed: Vec<_> = removed.collect();
        drop(ledger);
        self.give_back(tickets);
        self.changed(removed);
    }

    /// The room of these events is free.
    pub(super) fn give_back<'a>(&self, tickets: impl IntoIterator<Item = &'a Ticket>) {
        let mut queue = self.queue();
        tickets.into_iter().for_each(|ticket| queue.shares.give_back(&ticket.webhook, u64::from(ticket.bytes)));
    }

    fn changed(&self, sequences: impl IntoIterator<Item = u64>) {
        let mut queue = self.queue();
        let before = queue.changed.len();
        queue.changed.extend(sequences);
        let has_reached = |count: usize| before < count && queue.changed.len() >= count;
        let wake = queue.gathering.is_idle() && (has_reached(1) || has_reached(MANY));
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Those of the events that are still in memory.
    pub(super) fn take_fresh(&self, tickets: &[Ticket]) -> Vec<Option<StoredEvent>> {
        let mut ledger = self.ledger();
        let payloads: Vec<_> = tickets.iter().map(|ticket| ledger.take_fresh(ticket.sequence)).collect();
        drop(ledger);
        payloads.into_iter().map(|payload| event::decode(payload?)).collect()
    }

    pub(super) fn load(&self, sequence: u64) -> io::Result<Option<(StoredEvent, State)>> {
        loop {
            let ledger = self.ledger();
            let Some((place, state)) = ledger.find(sequence) else { return Ok(None) };
            let Some((segment, salt)) = ledger.segment(place.segment) else { return Ok(None) };
            drop(ledger);
            match read(&*segment, salt, sequence, place) {
                Ok(payload) => {
                    let event = event::decode(payload).ok_or_else(|| io::Error::other("it is no event"))?;
                    return Ok(Some((event, state)));
                }
                Err(error) if self.ledger().is_at(sequence, place) => return Err(error),
                // It was copied meanwhile, and its segment became another one.
                Err(_) => {}
            }
        }
    }

    pub(super) fn refuse(&self) {
        self.queue().is_refusing = true;
    }

    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_one();
    }

    /// There is no writer any more.
    pub(super) fn abandon(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        // Whoever waits learns it.
        drop(queue.take(Vec::new(), |_| 0));
    }

    /// Waits until it is time for a round of the writer, which may find nothing to write. `None` if nothing more comes.
    ///
    /// So much is `left` of the segment with a salt: with what fills it, it is done, and what comes next is for another one.
    pub(super) fn take(
        &self,
        left: impl FnOnce(Salt) -> u64,
        chores: Chores,
        stragglers: &mut Stragglers<Result<(), QueueError>>,
    ) -> Option<Batch> {
        let mut look_again = stragglers.wake();
        let buffer = self.memory.buffer();
        let mut queue = self.queue();
        if !chores.now {
            queue = gather(&self.wake, queue);
        }
        let mut has_lingered = false;
        loop {
            let now = Instant::now();
            let time = match decide(self.queued(&queue, has_lingered), chores, now) {
                Wake::Write => break,
                Wake::End => return None,
                Wake::Linger => Some(LINGER),
                Wake::Idle(until) => {
                    let until = look_again.into_iter().chain(until).min();
                    until.map(|until| until.saturating_duration_since(now))
                }
            };
            has_lingered = !queue.changed.is_empty();
            queue = idle(&self.wake, queue, time);
            if look_again.is_some_and(|at| at <= Instant::now()) {
                drop(queue);
                look_again = stragglers.wake();
                queue = self.queue();
            }
        }
        let mut batch = queue.take(buffer, left);
        drop(queue);
        self.write_notes(&mut batch);
        Some(batch)
    }

    fn queued(&self, queue: &Queue, has_lingered: bool) -> Queued {
        Queued {
            is_awaited: queue.gathering.count() > 0,
            notes: queue.changed.len(),
            has_lingered,
            is_closed: queue.closed,
            has_failed: self.has_failed(),
        }
    }

    /// What became of events so far: the newest is written, once.
    fn write_notes(&self, batch: &mut Batch) {
        let Batch { changed, notes, .. } = batch;
        changed.sort_unstable();
        changed.dedup();
        let ledger = self.ledger();
        let (kept, gone): (Vec<u64>, Vec<u64>) = changed.iter().partition(|sequence| ledger.is_kept(**sequence));
        for (sequence, state) in kept.iter().filter_map(|sequence| Some((*sequence, ledger.state(*sequence)?))) {
            notes.push_state(sequence, state);
        }
        drop(ledger);
        gone.chunks(MANY).for_each(|gone| notes.push_done(gone));
    }
}

/// It will not be any better later.
fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the payload of a frame.
fn read(segment: &dyn super::storage::Segment, salt: Salt, sequence: u64, place: Place) -> io::Result<Bytes> {
    let mut bytes = vec![0; place.length as usize];
    segment.read_at(&mut bytes, u64::from(place.offset))?;
    match frame::read(salt, &bytes) {
        Some(record) if record.kind == Kind::Event && record.sequence == sequence => {}
        _ => return Err(damaged("it is damaged")),
    }
    Ok(Bytes::from(bytes).slice(frame::FRAME_HEAD..))
}
