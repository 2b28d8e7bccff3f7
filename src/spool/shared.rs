//! What requests, the worker and the writing thread share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::event::{self, Event};
use super::frame::{self, Frame, Kind};
use super::ledger::{Ledger, Place};
use super::state::State;
use super::{SpoolError, Ticket};
use crate::module::EventId;
use crate::round::{Crowd, HasCrowd, Recent, Round, Seat, gather, idle};

/// How long a note of what became of an event may wait for others before it is written.
const LINGER: Duration = Duration::from_millis(10);

/// How long what was written may stay without a sync if no event asks for one.
const UNSYNCED: Duration = Duration::from_secs(1);

/// So many notes are written without waiting for more.
const MANY: usize = 512;

/// Bytes of events that may be on their way into a segment.
const MAX_QUEUED: u64 = 64 << 20;

/// So much of the room may be taken by what nobody needs before it is freed.
pub(super) fn max_garbage(max_bytes: u64) -> u64 {
    max_bytes / 8
}

pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// There is something for the writer to do.
    wake: Condvar,
    salt: u64,
    sequence: AtomicU64,
    max_bytes: u64,
    is_failing: AtomicBool,
    /// To the worker.
    tickets: UnboundedSender<Vec<Ticket>>,
}

pub(super) struct Inner {
    pub(super) ledger: Ledger,
    /// Those who wait for what is written next.
    crowd: Crowd<Result<(), SpoolError>>,
    events: Vec<New>,
    /// The events whose state is to be written.
    changed: Vec<u64>,
    /// The bytes of the events that are on their way into a segment.
    pub(super) queued: u64,
    /// Nobody is there to deliver events.
    is_refusing: bool,
    /// The writer is gone, or is to go.
    closed: bool,
}

impl HasCrowd for Inner {
    type Outcome = Result<(), SpoolError>;

    fn crowd(&mut self) -> &mut Crowd<Self::Outcome> {
        &mut self.crowd
    }
}

/// An event that is to be written.
pub(super) struct New {
    pub(super) frame: Frame,
    pub(super) ticket: Ticket,
}

/// What is written at once.
pub(super) struct Batch {
    /// Of those who wait until it is on disk.
    pub(super) round: Round<Result<(), SpoolError>>,
    /// Whether there are any.
    pub(super) is_awaited: bool,
    pub(super) events: Vec<New>,
    /// What became of earlier events.
    pub(super) notes: Vec<Frame>,
    /// Which those are.
    pub(super) changed: Vec<u64>,
}

impl Shared {
    pub(super) fn new(ledger: Ledger, sequence: u64, max_bytes: u64, tickets: UnboundedSender<Vec<Ticket>>) -> Self {
        let inner = Inner {
            ledger,
            crowd: Crowd::default(),
            events: Vec::new(),
            changed: Vec::new(),
            queued: 0,
            is_refusing: false,
            closed: false,
        };
        Self {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            salt: fastrand::u64(..),
            sequence: AtomicU64::new(sequence),
            max_bytes,
            is_failing: AtomicBool::new(false),
            tickets,
        }
    }

    /// Gives events to the worker. Without one they stay for the next process.
    pub(super) fn offer(&self, tickets: Vec<Ticket>) {
        let _ = self.tickets.send(tickets);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn salt(&self) -> u64 {
        self.salt
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Returns what it was before.
    pub(super) fn set_failing(&self, is_failing: bool) -> bool {
        self.is_failing.swap(is_failing, Ordering::Relaxed)
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the writer an event. Its sender waits for so long at most.
    pub(super) fn push(&self, new: New, patience: Duration) -> Result<Seat<Result<(), SpoolError>>, SpoolError> {
        let bytes = u64::from(new.ticket.bytes);
        let mut inner = self.lock();
        if inner.closed || inner.is_refusing {
            return Err(SpoolError::Failed);
        }
        if bytes > self.max_bytes / 2 {
            return Err(SpoolError::TooLarge);
        }
        let Inner { ledger, queued, .. } = &mut *inner;
        // A sixteenth is for notes and for the copies that free a segment; so much garbage is let be.
        let room = self.max_bytes - self.max_bytes / 16;
        let needed = ledger.live() + *queued + bytes;
        // In memory as long as the disk hangs; one always may.
        let is_held_up = *queued > 0 && *queued + bytes > MAX_QUEUED;
        if is_held_up
            || needed > room - max_garbage(self.max_bytes)
            || ledger.taken() + *queued + bytes > room
            || ledger.share(&new.ticket.webhook) + bytes > self.max_bytes / 2
        {
            return Err(SpoolError::Full);
        }
        ledger.take_share(&new.ticket.webhook, bytes);
        *queued += bytes;
        inner.events.push(new);
        Ok(self.join(inner, Some(patience)))
    }

    /// For who waits until everything that was said so far is on disk.
    pub(super) fn flush(&self) -> Option<Seat<Result<(), SpoolError>>> {
        let inner = self.lock();
        (!inner.closed).then(|| self.join(inner, None))
    }

    fn join(&self, mut inner: MutexGuard<'_, Inner>, patience: Option<Duration>) -> Seat<Result<(), SpoolError>> {
        let (seat, wake) = inner.crowd.join(patience);
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        seat
    }

    pub(super) fn note(&self, sequence: u64, state: State) {
        let mut inner = self.lock();
        if inner.ledger.note(sequence, state) {
            self.changed(inner, [sequence]);
        }
    }

    /// Takes note that an event is not tried any more.
    pub(super) fn bury(&self, id: EventId, ticket: Ticket, state: State) {
        let mut inner = self.lock();
        let sequence = ticket.sequence;
        if inner.ledger.note(sequence, state) {
            inner.ledger.bury(id, ticket);
            self.changed(inner, [sequence]);
        } else {
            // It became unreadable while it was under way.
            inner.ledger.return_share(&ticket.webhook, u64::from(ticket.bytes));
        }
    }

    pub(super) fn finish(&self, tickets: &[Ticket]) {
        let mut inner = self.lock();
        let Inner { ledger, .. } = &mut *inner;
        let is_kept = |ticket: &&Ticket| {
            ledger.return_share(&ticket.webhook, u64::from(ticket.bytes));
            ledger.remove(ticket.sequence)
        };
        let finished: Vec<_> = tickets.iter().filter(is_kept).map(|ticket| ticket.sequence).collect();
        self.changed(inner, finished);
    }

    fn changed(&self, mut inner: MutexGuard<'_, Inner>, sequences: impl IntoIterator<Item = u64>) {
        let before = inner.changed.len();
        inner.changed.extend(sequences);
        let has_reached = |count: usize| before < count && inner.changed.len() >= count;
        let wake = inner.crowd.is_idle() && (has_reached(1) || has_reached(MANY));
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Those of the events that are still in memory.
    pub(super) fn take_fresh<'a>(&self, tickets: impl Iterator<Item = &'a Ticket>) -> Vec<Option<Event>> {
        let mut inner = self.lock();
        let payloads: Vec<_> = tickets.map(|ticket| inner.ledger.take_fresh(ticket.sequence)).collect();
        drop(inner);
        payloads.into_iter().map(|payload| event::decode(payload?.into())).collect()
    }

    pub(super) fn load(&self, sequence: u64) -> io::Result<Option<(Event, State)>> {
        let inner = self.lock();
        let Some((place, state)) = inner.ledger.find(sequence) else { return Ok(None) };
        let Some((segment, salt)) = inner.ledger.segment(place.segment) else { return Ok(None) };
        drop(inner);
        let payload = read(&*segment, salt, sequence, place)?;
        let event = event::decode(payload).ok_or_else(|| io::Error::other("it is no event"))?;
        Ok(Some((event, state)))
    }

    pub(super) fn refuse(&self) {
        self.lock().is_refusing = true;
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// There is no writer any more.
    pub(super) fn abandon(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        // Whoever waits learns it.
        drop(inner.take(self.salt));
    }

    /// Waits for something to write; nothing if it is time to sync, `None` if there is nothing more to come.
    pub(super) fn take(
        &self,
        unsynced: Option<Instant>,
        recent: &mut Recent<Result<(), SpoolError>>,
        may_wait: bool,
    ) -> Option<Batch> {
        let mut look_again = recent.wake();
        let mut inner = self.lock();
        if may_wait {
            inner = gather(&self.wake, inner);
        }
        let mut lingered = false;
        loop {
            let due = unsynced.map(|since| since + UNSYNCED);
            if inner.crowd.count() > 0
                || inner.changed.len() >= MANY
                || (lingered && !inner.changed.is_empty())
                || due.is_some_and(|due| due <= Instant::now())
                || !may_wait
            {
                return Some(inner.take(self.salt));
            }
            if inner.closed && self.is_failing() {
                return None;
            }
            if inner.closed {
                return (!inner.changed.is_empty() || unsynced.is_some()).then(|| inner.take(self.salt));
            }
            lingered = !inner.changed.is_empty();
            let until = look_again.into_iter().chain(due).min();
            let time = match lingered {
                true => Some(LINGER),
                false => until.map(|until| until.saturating_duration_since(Instant::now())),
            };
            inner = idle(&self.wake, inner, time);
            if look_again.is_some_and(|at| at <= Instant::now()) {
                drop(inner);
                look_again = recent.wake();
                inner = self.lock();
            }
        }
    }
}

impl Inner {
    fn take(&mut self, salt: u64) -> Batch {
        let mut batch = Batch {
            is_awaited: self.crowd.count() > 0,
            round: self.crowd.begin(),
            events: std::mem::take(&mut self.events),
            changed: std::mem::take(&mut self.changed),
            notes: Vec::new(),
        };
        batch.changed.sort_unstable();
        batch.changed.dedup();
        let (kept, gone): (Vec<u64>, Vec<u64>) =
            batch.changed.iter().partition(|sequence| self.ledger.is_kept(**sequence));
        let states = kept.iter().filter_map(|sequence| Some((*sequence, self.ledger.state(*sequence)?)));
        batch.notes.extend(states.map(|(sequence, state)| Frame::state(salt, sequence, state)));
        batch.notes.extend(gone.chunks(MANY).map(|gone| Frame::done(salt, gone)));
        batch
    }

    /// Takes back notes that could not be written.
    pub(super) fn put_back(&mut self, changed: &[u64]) {
        self.changed.extend_from_slice(changed);
    }
}

/// Reads the payload of a frame.
fn read(segment: &dyn super::disk::Segment, salt: u64, sequence: u64, place: Place) -> io::Result<Bytes> {
    let mut bytes = vec![0; place.length as usize];
    segment.read_at(&mut bytes, u64::from(place.offset))?;
    match frame::read(salt, &bytes) {
        Some(record) if record.kind == Kind::Event && record.sequence == sequence => {}
        _ => return Err(io::Error::other("it is damaged")),
    }
    Ok(Bytes::from(bytes).slice(frame::FRAME_HEAD..))
}
