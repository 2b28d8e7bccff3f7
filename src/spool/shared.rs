//! What requests, the worker and the writing thread share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::event::{self, Event};
use super::frame::{self, Frame, Kind};
use super::ledger::{Ledger, Place};
use super::state::State;
use super::{SpoolError, Ticket};
use crate::module::EventId;

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
    queue: Vec<Item>,
    /// How many items of the queue somebody waits for.
    urgent: usize,
    /// The bytes of the events that are on their way into a segment.
    pub(super) queued: u64,
    /// Nobody is there to deliver events.
    is_refusing: bool,
    /// The writer is gone, or is to go.
    closed: bool,
}

/// Something to be written.
pub(super) enum Item {
    Event {
        frame: Frame,
        ticket: Ticket,
        waiter: oneshot::Sender<Result<(), SpoolError>>,
    },
    /// What became of an event.
    Note(Frame),
    /// Somebody wants to know when everything before this is on disk.
    Flush(oneshot::Sender<()>),
}

impl Shared {
    pub(super) fn new(ledger: Ledger, sequence: u64, max_bytes: u64, tickets: UnboundedSender<Vec<Ticket>>) -> Self {
        let inner = Inner { ledger, queue: Vec::new(), urgent: 0, queued: 0, is_refusing: false, closed: false };
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

    /// Gives the writer something that somebody waits for.
    pub(super) fn push(&self, item: Item) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(SpoolError::Failed);
        }
        if let Item::Event { ticket, .. } = &item {
            let bytes = u64::from(ticket.bytes);
            if inner.is_refusing {
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
                || ledger.share(&ticket.webhook) + bytes > self.max_bytes / 2
            {
                return Err(SpoolError::Full);
            }
            ledger.take_share(&ticket.webhook, bytes);
            *queued += bytes;
        }
        inner.urgent += 1;
        inner.queue.push(item);
        let is_first = inner.urgent == 1;
        drop(inner);
        if is_first {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn note(&self, sequence: u64, state: State) {
        let mut inner = self.lock();
        let frame = Frame::state(self.salt, sequence, &state);
        if inner.ledger.note(sequence, state, frame.len() as u32) {
            self.push_note(inner, frame);
        }
    }

    /// Takes note that an event is not tried any more.
    pub(super) fn bury(&self, id: EventId, ticket: Ticket, state: State) {
        let mut inner = self.lock();
        let frame = Frame::state(self.salt, ticket.sequence, &state);
        if inner.ledger.note(ticket.sequence, state, frame.len() as u32) {
            inner.ledger.bury(id, ticket);
            self.push_note(inner, frame);
        } else {
            // It became unreadable while it was under way.
            inner.ledger.return_share(&ticket.webhook, u64::from(ticket.bytes));
        }
    }

    pub(super) fn finish(&self, ticket: &Ticket) {
        let mut inner = self.lock();
        inner.ledger.return_share(&ticket.webhook, u64::from(ticket.bytes));
        if inner.ledger.remove(ticket.sequence) {
            self.push_note(inner, Frame::done(self.salt, ticket.sequence));
        }
    }

    fn push_note(&self, mut inner: MutexGuard<'_, Inner>, frame: Frame) {
        inner.queue.push(Item::Note(frame));
        let is_first = inner.queue.len() == 1 || inner.queue.len() == MANY;
        drop(inner);
        if is_first {
            self.wake.notify_one();
        }
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

    /// Waits for something to write; empty if it is time to sync, `None` if there is nothing more to come.
    pub(super) fn take(&self, unsynced: Option<Instant>, may_wait: bool) -> Option<Vec<Item>> {
        let mut inner = self.lock();
        let mut lingered = false;
        loop {
            let due = unsynced.is_some_and(|since| since.elapsed() >= UNSYNCED);
            if inner.urgent > 0
                || inner.queue.len() >= MANY
                || (lingered && !inner.queue.is_empty())
                || due
                || !may_wait
            {
                inner.urgent = 0;
                return Some(std::mem::take(&mut inner.queue));
            }
            if inner.closed && self.is_failing() {
                return None;
            }
            if inner.closed {
                return (!inner.queue.is_empty() || unsynced.is_some()).then(|| std::mem::take(&mut inner.queue));
            }
            inner = if !inner.queue.is_empty() {
                lingered = true;
                self.wait(inner, LINGER)
            } else if let Some(since) = unsynced {
                self.wait(inner, UNSYNCED.saturating_sub(since.elapsed()))
            } else {
                self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, time: Duration) -> MutexGuard<'a, Inner> {
        self.wake.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Inner {
    /// Puts notes that could not be written back to the front.
    pub(super) fn put_back(&mut self, mut notes: Vec<Item>) {
        notes.append(&mut self.queue);
        self.queue = notes;
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
