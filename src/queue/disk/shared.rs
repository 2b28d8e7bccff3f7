//! The state that requests, the worker and the writer thread share, and the calls between them.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::batch::Memory;
use super::decide::{Chores, MANY, Queued, Wake, decide};
use super::frame::{FRAME_HEAD, Kind, Salt};
use super::ledger::{Ledger, Place, Sizes};
use super::pending::{Batch, Pending};
use super::recover::Recovered;
use super::state::StoredState;
use super::{event, frame};
use crate::base::group::{Gathers, Stragglers, Waiter, gather, idle};
use crate::base::lock::lock;
use crate::event::{Delivery, EventId};
use crate::queue::{Due, QueueError, StoredEvent, Ticket, ToWorker};
use bytes::Bytes;

/// How long a note of an event's state may wait for more notes before it is written.
const LINGER: Duration = Duration::from_millis(10);

/// How many bytes of recently written events stay in memory.
const MAX_FRESH: usize = 4 << 20;

/// A group that takes longer than this to be written means that the disk hangs; the queue then reports that it fails.
pub(super) const HANGS: Duration = Duration::from_secs(5);

/// The state behind two locks, `pending` and `ledger`, that no thread ever holds at the same time.
pub(super) struct Shared {
    pending: Mutex<Pending>,
    /// Wakes the writer when there is work.
    wake: Condvar,
    ledger: Mutex<Ledger>,
    sizes: Arc<Sizes>,
    memory: Memory,
    max_bytes: u64,
    /// Whether the last write failed.
    has_failed: AtomicBool,
    /// When the writer began the group that it is writing.
    busy: Mutex<Option<Instant>>,
    to_worker: ToWorker,
}

impl Shared {
    /// The state as it was recovered. The tickets in `recovered.waiting` are not used.
    pub(super) fn new(recovered: Recovered, max_bytes: u64, to_worker: ToWorker) -> Self {
        let pending = Pending::new(recovered.shares, recovered.next_sequence);
        Self {
            pending: Mutex::new(pending),
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

    /// Hands events to the worker. Without a worker they stay for the next process.
    pub(super) fn hand_out(&self, events: Vec<Due>) {
        self.to_worker.hand_out(events);
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
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

    /// Whether the last write failed, or the disk hangs.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing_at(Instant::now())
    }

    pub(super) fn is_failing_at(&self, now: Instant) -> bool {
        self.has_failed() || self.busy_since().is_some_and(|since| now.saturating_duration_since(since) > HANGS)
    }

    /// When the writer began the group that it is writing; `None` if it waits for work.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        *lock(&self.busy)
    }

    /// Whether the last write failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Returns whether the write before failed.
    pub(super) fn set_failed(&self, has_failed: bool) -> bool {
        self.has_failed.swap(has_failed, Ordering::Relaxed)
    }

    pub(super) fn set_busy(&self, is_busy: bool) {
        *lock(&self.busy) = is_busy.then(Instant::now);
    }

    /// Queues an event for the writer. The waiter waits for `patience` at most.
    pub(super) fn push(
        &self,
        delivery: &Delivery,
        patience: Duration,
    ) -> Result<Waiter<Result<(), QueueError>>, QueueError> {
        let length = FRAME_HEAD + event::head_length(delivery) + delivery.body().len();
        let bytes = u32::try_from(length).map_err(|_| QueueError::TooLarge)?;
        let mut pending = self.pending();
        pending.push(delivery, bytes, &self.sizes, self.max_bytes)?;
        Ok(self.join(pending, Some(patience)))
    }

    /// A waiter for the moment when everything queued so far is on disk; `None` if the writer has ended.
    pub(super) fn flush(&self) -> Option<Waiter<Result<(), QueueError>>> {
        let pending = self.pending();
        (!pending.closed).then(|| self.join(pending, None))
    }

    fn join(&self, mut pending: MutexGuard<'_, Pending>, patience: Option<Duration>) -> Waiter<Result<(), QueueError>> {
        let is_enough = pending.is_enough();
        let (waiter, wake) = pending.gathering.join(patience, is_enough);
        drop(pending);
        if wake {
            self.wake.notify_one();
        }
        waiter
    }

    /// Records the state of an event. Returns `false` if the event is not in the queue any more.
    pub(super) fn note(&self, sequence: u64, state: StoredState) -> bool {
        let is_kept = self.ledger().note(sequence, state);
        if is_kept {
            self.changed([sequence]);
        }
        is_kept
    }

    /// Makes an event a dead letter.
    pub(super) fn bury(&self, id: EventId, ticket: Ticket, state: StoredState) {
        let mut ledger = self.ledger();
        let sequence = ticket.sequence;
        if ledger.note(sequence, state) {
            ledger.bury(id, ticket);
            drop(ledger);
            self.changed([sequence]);
        }
    }

    /// Removes these events. An event that became unreadable or was dropped while it was being tried has been removed
    /// before, and its quota has been returned then.
    pub(super) fn finish(&self, tickets: &[Ticket]) {
        let mut ledger = self.ledger();
        let removed: Vec<_> = tickets.iter().filter(|ticket| ledger.remove(ticket.sequence)).collect();
        drop(ledger);
        self.give_back(removed.iter().copied());
        self.changed(removed.iter().map(|ticket| ticket.sequence));
    }

    /// Ends the wait of these events. Returns how many of the ids were waiting events.
    pub(super) fn retry_now(&self, ids: &HashSet<EventId>) -> usize {
        let mut ledger = self.ledger();
        let tickets: Vec<_> = ledger.find_waiting(ids).into_iter().map(|waits| waits.ticket).collect();
        let changed = tickets.iter().map(|ticket| ticket.sequence).filter(|sequence| ledger.end_wait(*sequence));
        let changed: Vec<_> = changed.collect();
        drop(ledger);
        self.changed(changed);
        let count = tickets.len();
        self.to_worker.hurry(tickets);
        count
    }

    /// Removes those of these events that wait or are being tried, and returns their ids.
    pub(super) fn drop_waiting(&self, ids: &HashSet<EventId>) -> Vec<EventId> {
        let mut ledger = self.ledger();
        let (ids, tickets): (Vec<_>, Vec<_>) =
            ledger.find_waiting(ids).into_iter().map(|waits| (waits.id, waits.ticket)).unzip();
        tickets.iter().for_each(|ticket| _ = ledger.remove(ticket.sequence));
        drop(ledger);
        self.give_back(&tickets);
        self.changed(tickets.iter().map(|ticket| ticket.sequence));
        self.to_worker.ended(tickets);
        ids
    }

    /// Resolves when every change so far is on disk.
    pub(super) async fn persist(&self) -> io::Result<()> {
        let written = match self.flush() {
            Some(written) => written.await,
            None => None,
        };
        match written {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the spool cannot be written now: after a restart the events may be back")),
        }
    }

    /// Returns the quota of these events to their webhooks.
    pub(super) fn give_back<'a>(&self, tickets: impl IntoIterator<Item = &'a Ticket>) {
        let mut pending = self.pending();
        tickets.into_iter().for_each(|ticket| pending.shares.give_back(&ticket.webhook, u64::from(ticket.bytes)));
    }

    fn changed(&self, sequences: impl IntoIterator<Item = u64>) {
        let mut pending = self.pending();
        let before = pending.changed.len();
        pending.changed.extend(sequences);
        let has_reached = |count: usize| before < count && pending.changed.len() >= count;
        let wake = pending.gathering.is_idle() && (has_reached(1) || has_reached(MANY));
        drop(pending);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The events of these tickets; `None` for an event that is not in memory.
    pub(super) fn take_fresh(&self, tickets: &[Ticket]) -> Vec<Option<StoredEvent>> {
        let mut ledger = self.ledger();
        let payloads: Vec<_> = tickets.iter().map(|ticket| ledger.take_fresh(ticket.sequence)).collect();
        drop(ledger);
        payloads.into_iter().map(|payload| event::decode(payload?)).collect()
    }

    pub(super) fn load(&self, sequence: u64) -> io::Result<Option<(StoredEvent, StoredState)>> {
        loop {
            let ledger = self.ledger();
            let Some((place, state)) = ledger.find(sequence) else { return Ok(None) };
            let Some((segment, salt)) = ledger.segment(place.segment) else { return Ok(None) };
            drop(ledger);
            match read(&*segment, salt, sequence, place) {
                Ok(payload) => {
                    let event =
                        event::decode(payload).ok_or_else(|| io::Error::other("the stored event cannot be decoded"))?;
                    return Ok(Some((event, state)));
                }
                Err(error) if self.ledger().is_at(sequence, place) => return Err(error),
                // Compaction has moved the event meanwhile: it is found in its new place.
                Err(_) => {}
            }
        }
    }

    pub(super) fn refuse(&self) {
        self.pending().is_refusing = true;
    }

    pub(super) fn close(&self) {
        self.pending().closed = true;
        self.wake.notify_one();
    }

    /// The writer has ended: wakes every waiter with an error.
    pub(super) fn abandon(&self) {
        let mut pending = self.pending();
        pending.closed = true;
        // Dropping the group wakes its waiters.
        drop(pending.take(Vec::new(), |_| 0));
    }

    /// Waits until the writer has a batch to write, which may be empty: the writer then only syncs. `None` if the queue
    /// is closed.
    ///
    /// `left` returns how many bytes are free in the segment with a salt. A batch that fills its segment is the last one for
    /// this segment; the frames after it get the salt of a new one.
    pub(super) fn next_batch(
        &self,
        left: impl FnOnce(Salt) -> u64,
        chores: Chores,
        stragglers: &mut Stragglers<Result<(), QueueError>>,
    ) -> Option<Batch> {
        let mut look_again = stragglers.wake();
        let buffer = self.memory.buffer();
        let mut pending = self.pending();
        if !chores.now {
            pending = gather(&self.wake, pending);
        }
        let mut has_lingered = false;
        loop {
            let now = Instant::now();
            let time = match decide(self.queued(&pending, has_lingered), chores, now) {
                Wake::Write => break,
                Wake::End => return None,
                Wake::Linger => Some(LINGER),
                Wake::Idle(until) => {
                    let until = look_again.into_iter().chain(until).min();
                    until.map(|until| until.saturating_duration_since(now))
                }
            };
            has_lingered = !pending.changed.is_empty();
            pending = idle(&self.wake, pending, time);
            if look_again.is_some_and(|at| at <= Instant::now()) {
                drop(pending);
                look_again = stragglers.wake();
                pending = self.pending();
            }
        }
        let mut batch = pending.take(buffer, left);
        drop(pending);
        self.write_notes(&mut batch);
        Some(batch)
    }

    fn queued(&self, pending: &Pending, has_lingered: bool) -> Queued {
        Queued {
            is_awaited: pending.gathering.count() > 0,
            notes: pending.changed.len(),
            has_lingered,
            is_closed: pending.closed,
            has_failed: self.has_failed(),
        }
    }

    /// Adds the newest state of each changed event to the batch, once.
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

/// Reads the payload of an event's frame. `InvalidData` means that the frame is damaged, and can never be read.
fn read(segment: &dyn super::storage::Segment, salt: Salt, sequence: u64, place: Place) -> io::Result<Bytes> {
    let mut bytes = vec![0; place.length as usize];
    segment.read_at(&mut bytes, u64::from(place.offset))?;
    match frame::read(salt, &bytes) {
        Some(record) if record.kind == Kind::Event && record.sequence == sequence => {}
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the stored event is damaged")),
    }
    Ok(Bytes::from(bytes).slice(frame::FRAME_HEAD..))
}
