//! The entries that wait for the writer: bounded in number and in bytes. A request never waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::measure::{self, Dropped};
use super::pace::{self, Flow, Pace};
use super::waiting::{Size, Waiting};
use crate::base::lock::lock;
use crate::base::shares::Held;
use crate::event::EventId;
use crate::history::{Entry, Kept, Outcome};

/// How long the writer waits for more entries once it has one.
const LINGER: Duration = Duration::from_millis(50);

/// The most entries of one transaction.
pub(super) const MAX_BATCH: usize = 1000;

/// The bytes of entries that may wait while only a sample is written, so that the sample is of the last second.
const SAMPLE: u64 = 1 << 20;

/// The most that may wait at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) entries: usize,
    /// Bytes of memory. Bodies may take three quarters of them; the rest is for entries without their bodies.
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 50_000, bytes: 64 << 20 }
    }
}

/// Work for the writer.
#[derive(Default)]
pub(super) struct Work {
    pub(super) entries: Vec<Waiting>,
    pub(super) erasures: Vec<Erasure>,
    /// How many entries had been taken over when this was taken.
    pub(super) until: u64,
    /// Whether no more entries come, and none is left.
    pub(super) is_last: bool,
}

/// An event that is to be erased.
pub(super) struct Erasure {
    pub(super) id: EventId,
    pub(super) done: oneshot::Sender<std::io::Result<bool>>,
}

pub(super) struct Buffer {
    inner: Mutex<Inner>,
    wake: Condvar,
    limits: Limits,
    /// How many of the entries that were taken over are written, or given up.
    written: watch::Sender<u64>,
    metrics: Dropped,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<(Waiting, u64)>,
    bytes: u64,
    by_namespace: HashMap<Box<str>, u64>,
    refused: usize,
    /// Entries whose room is reserved, and which come in a moment.
    reserved: usize,
    erasures: Vec<Erasure>,
    /// How many entries were taken over since the start.
    taken_over: u64,
    dropped: u64,
    dropped_bodies: u64,
    /// Whether only a sample is written.
    is_sampling: bool,
    /// Whether somebody waits until everything is written.
    is_urgent: bool,
    is_closed: bool,
}

impl Buffer {
    pub(super) fn new(limits: Limits) -> Self {
        let (wake, metrics) = (Condvar::new(), Dropped::default());
        Self { inner: Mutex::default(), wake, limits, written: watch::Sender::new(0), metrics }
    }

    /// Whether there is room for a delivered event of the namespace now, at least for its metadata. If not, the event is
    /// counted as left out.
    pub(super) fn has_room(&self, namespace: &str) -> bool {
        let mut inner = self.lock();
        let has_room = inner.room(&self.limits, namespace, false, Size::EVENT) != Kept::None;
        inner.dropped += u64::from(!has_room);
        drop(inner);
        if !has_room {
            self.metrics.entry();
        }
        has_room
    }

    /// Takes an entry over, or leaves its head and body out, or the entry.
    pub(super) fn push(&self, entry: Entry) {
        let Some((has_content, bytes)) = self.reserve(&entry) else { return };
        // Copied without the lock.
        let entry = Waiting::of(entry, has_content);
        let mut inner = self.lock();
        inner.reserved -= 1;
        inner.entries.push_back((entry, bytes));
        inner.taken_over += 1;
        let count = inner.entries.len();
        drop(inner);
        if count == 1 || count == MAX_BATCH {
            self.wake.notify_one();
        }
    }

    /// Reserves room for an entry, before anything of it is copied. Returns whether its head and body fit, and its bytes.
    fn reserve(&self, entry: &Entry) -> Option<(bool, u64)> {
        let size = Size::of(entry);
        let (namespace, is_refused) = match entry {
            Entry::Received(received) => (received.webhook.namespace(), received.outcome == Outcome::Refused),
            Entry::Attempt(attempt) => (attempt.webhook.namespace(), false),
            // An action is an operator's.
            Entry::Action(_) => ("", false),
        };
        let mut inner = self.lock();
        let room = inner.room(&self.limits, namespace, is_refused, size);
        let bytes = match room {
            Kept::Full => size.whole,
            Kept::Metadata => size.bare,
            Kept::None => {
                inner.dropped += 1;
                drop(inner);
                self.metrics.entry();
                return None;
            }
        };
        inner.dropped_bodies += u64::from(room == Kept::Metadata);
        inner.charge(namespace, bytes);
        inner.refused += usize::from(is_refused);
        inner.reserved += 1;
        drop(inner);
        if room == Kept::Metadata {
            self.metrics.body();
        }
        Some((room == Kept::Full, bytes))
    }

    /// Has an event erased, after the entries that are waiting.
    pub(super) fn erase(&self, erasure: Erasure) {
        let mut inner = self.lock();
        inner.erasures.push(erasure);
        inner.is_urgent = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// Resolves once the entries that are waiting now are written, or given up.
    pub(super) async fn settle(&self) {
        let mut written = self.written.subscribe();
        let until = {
            let mut inner = self.lock();
            if *written.borrow() < inner.taken_over {
                inner.is_urgent = true;
                self.wake.notify_one();
            }
            inner.taken_over
        };
        // The sender lives as long as this buffer.
        let _ = written.wait_for(|written| *written >= until).await;
    }

    /// The work that there is now, at most `most` bytes of it, or that comes within `patience`.
    pub(super) fn take(&self, patience: Duration, most: u64) -> Work {
        let until = Instant::now() + patience;
        let mut inner = self.lock();
        while inner.is_idle() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.wait(inner, left);
        }
        let until = Instant::now() + LINGER;
        while !inner.is_idle() && !inner.is_urgent && !inner.is_closed && inner.entries.len() < MAX_BATCH {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.wait(inner, left);
        }
        inner.take(most)
    }

    /// Says that the entries up to this number are written, or given up.
    pub(super) fn settled(&self, until: u64) {
        self.written.send_replace(until);
    }

    /// Lets the writer rest after a batch, as its pace demands. `written` entries were written so far, and the batch began when
    /// the writer had worked for this time.
    pub(super) fn rest(&self, pace: &mut Pace, written: u64, began: Duration) {
        let worked = pace::worked();
        let left_out = {
            let mut inner = self.lock();
            let (came, dropped) = (inner.taken_over + inner.dropped, inner.dropped);
            let was_sampling = inner.is_sampling;
            inner.is_sampling = pace.decide(Instant::now(), Flow { came, dropped, written, worked });
            if inner.is_sampling && !was_sampling { inner.shed() } else { Vec::new() }
        };
        measure::dropped("entry", left_out.len() as u64);
        drop(left_out);
        let rest = pace.rest(worked.saturating_sub(began));
        if !rest.is_zero() {
            self.pause(rest);
        }
    }

    /// Waits, or returns at once when no more entries come.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut inner = self.lock();
        while !inner.is_closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner = self.wait(inner, left);
        }
    }

    /// Ends the writer once everything is written.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Whether no more entries come.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Counts entries that the writer could not write.
    pub(super) fn gave_up(&self, entries: usize) {
        self.lock().dropped += entries as u64;
        measure::dropped("entry", entries as u64);
    }

    /// How many entries and how many bodies were left out since the start.
    pub(super) fn dropped(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.dropped, inner.dropped_bodies)
    }

    /// How many entries wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().entries.len()
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, time: Duration) -> MutexGuard<'a, Inner> {
        self.wake.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.erasures.is_empty() && !self.is_closed
    }

    /// How much of an entry fits.
    fn room(&self, limits: &Limits, namespace: &str, is_refused: bool, size: Size) -> Kept {
        let limits = match self.is_sampling {
            true => Limits { bytes: limits.bytes.min(SAMPLE), ..*limits },
            false => *limits,
        };
        let count = self.entries.len() + self.reserved;
        let is_full = self.is_closed || count >= limits.entries || (is_refused && self.refused >= limits.entries / 8);
        let namespace = self.by_namespace.get(namespace).copied().unwrap_or(0);
        let held = Held { all: self.bytes, webhook: 0, namespace };
        if is_full || !fits(held, size.bare, limits.bytes) {
            Kept::None
        } else if size.whole > size.bare && (self.is_sampling || !fits(held, size.whole, limits.bytes / 4 * 3)) {
            Kept::Metadata
        } else {
            Kept::Full
        }
    }

    fn charge(&mut self, namespace: &str, bytes: u64) {
        self.bytes += bytes;
        match self.by_namespace.get_mut(namespace) {
            Some(held) => *held += bytes,
            None => _ = self.by_namespace.insert(namespace.into(), bytes),
        }
    }

    fn take(&mut self, most: u64) -> Work {
        let mut work = Work::default();
        let mut bytes = 0;
        while let Some((entry, size)) = self.entries.pop_front() {
            bytes += size;
            if work.entries.len() == MAX_BATCH || (bytes > most && !work.entries.is_empty()) {
                self.entries.push_front((entry, size));
                break;
            }
            self.forget(&entry, size);
            work.entries.push(entry);
        }
        work.until = self.taken_over - self.entries.len() as u64;
        if self.entries.is_empty() {
            work.erasures = std::mem::take(&mut self.erasures);
            work.is_last = self.is_closed && self.reserved == 0;
            self.is_urgent = false;
        }
        work
    }

    /// Leaves out the oldest entries of the namespaces that have more of them than a sample. Returns them, to be dropped
    /// elsewhere.
    fn shed(&mut self) -> Vec<Waiting> {
        let mut left_out = Vec::new();
        for (entry, size) in std::mem::take(&mut self.entries) {
            let held = self.by_namespace.get(entry.namespace()).copied().unwrap_or(0);
            if held > SAMPLE / 2 {
                self.forget(&entry, size);
                left_out.push(entry);
            } else {
                self.entries.push_back((entry, size));
            }
        }
        self.dropped += left_out.len() as u64;
        left_out
    }

    fn forget(&mut self, entry: &Waiting, size: u64) {
        self.bytes -= size;
        self.refused -= usize::from(entry.is_refused());
        if let Some(held) = self.by_namespace.get_mut(entry.namespace()) {
            *held -= size;
            if *held == 0 {
                self.by_namespace.remove(entry.namespace());
            }
        }
    }
}

/// Whether `bytes` more fit: one namespace never takes more than two thirds of the room.
fn fits(held: Held, bytes: u64, room: u64) -> bool {
    held.and(bytes).exceeded(room, 0).is_none()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::super::clean::MAX_BODY;
    use super::super::sample;
    use super::*;
    use crate::event::Stamp;
    use crate::history::{Body, Outcome};

    fn buffer(entries: usize, bytes: u64) -> Buffer {
        Buffer::new(Limits { entries, bytes })
    }

    fn event(namespace: &str, body: usize) -> Entry {
        let mut received = sample::received(namespace, "hook", Stamp::now());
        received.body = Body::Whole(vec![b'x'; body].into());
        Entry::Received(Box::new(received))
    }

    fn refused() -> Entry {
        let Entry::Received(mut received) = event("ns", 100) else { unreachable!() };
        received.outcome = Outcome::Refused;
        Entry::Received(received)
    }

    fn bodies(work: &Work) -> usize {
        work.entries
            .iter()
            .filter(|entry| matches!(entry, Waiting::Received(received, _) if !matches!(received.body, Body::Left(_))))
            .count()
    }

    #[test]
    fn bodies_are_left_out_before_entries() {
        let buffer = buffer(1000, 100_000);
        for _ in 0..100 {
            buffer.push(event("ns", 10_000));
        }
        let (dropped, dropped_bodies) = buffer.dropped();
        let work = buffer.take(Duration::ZERO, u64::MAX);
        assert_eq!(work.entries.len() as u64 + dropped, 100);
        assert_eq!(bodies(&work) as u64 + dropped_bodies + dropped, 100);
        assert!(bodies(&work) == 4 && work.entries.len() > 30, "{} of {}", bodies(&work), work.entries.len());
    }

    #[test]
    fn an_event_without_room_is_counted_before_anything_of_it_is_noted() {
        let buffer = buffer(1000, 100_000);
        assert!(buffer.has_room("loud") && buffer.dropped() == (0, 0));
        while buffer.has_room("loud") {
            buffer.push(event("loud", 1000));
        }
        let (dropped, _) = buffer.dropped();
        assert!(dropped == 1 && !buffer.has_room("loud") && buffer.has_room("quiet"));
        assert_eq!(buffer.dropped().0, 2);
        buffer.take(Duration::ZERO, 10_000);
        assert!(buffer.has_room("loud"));
        buffer.close();
        assert!(!buffer.has_room("quiet"));
    }

    #[test]
    fn a_sample_is_small_has_no_bodies_and_leaves_room_for_quiet_namespaces() {
        let buffer = buffer(50_000, 64 << 20);
        buffer.push(event("quiet", 1000));
        (0..10_000).for_each(|_| buffer.push(event("loud", 1000)));
        let shed = {
            let mut inner = buffer.lock();
            inner.is_sampling = true;
            inner.shed()
        };
        assert!(shed.len() > 9_000 && shed.iter().all(|entry| entry.namespace() == "loud"));
        assert_eq!(buffer.dropped(), (shed.len() as u64, 0));
        assert!(buffer.lock().bytes <= SAMPLE);
        while buffer.has_room("loud") {
            buffer.push(event("loud", 1000));
        }
        buffer.push(event("quiet", 1000));
        let (mut waiting, mut quiet) = (0, 0);
        let (bytes, bodies_before) = (buffer.lock().bytes, 1 + 10_000 - shed.len());
        let mut with_body = 0;
        loop {
            let work = buffer.take(Duration::ZERO, u64::MAX);
            if work.entries.is_empty() {
                break;
            }
            waiting += work.entries.len();
            quiet += work.entries.iter().filter(|entry| entry.namespace() == "quiet").count();
            with_body += bodies(&work);
        }
        assert!(waiting < 2_000 && quiet == 2 && bytes <= SAMPLE, "{waiting} entries, {quiet} quiet, {bytes} bytes");
        assert_eq!(with_body, bodies_before);
    }

    #[test]
    fn one_namespace_leaves_room_for_the_others() {
        let buffer = buffer(1000, 100_000);
        (0..1000).for_each(|_| buffer.push(event("loud", 1000)));
        let before = buffer.dropped();
        buffer.push(event("quiet", 1000));
        assert_eq!(buffer.dropped(), before);
    }

    #[test]
    fn refused_requests_take_an_eighth_of_the_entries_and_have_no_body() {
        let buffer = buffer(80, 1 << 20);
        (0..50).for_each(|_| buffer.push(refused()));
        let work = buffer.take(Duration::ZERO, u64::MAX);
        assert_eq!((work.entries.len(), bodies(&work), buffer.dropped()), (10, 0, (40, 0)));
        assert!(matches!(&work.entries[0], Waiting::Received(received, _) if received.body.size() == 100));
    }

    #[test]
    fn a_large_body_does_not_hold_on_to_its_memory() {
        let buffer = buffer(10, 1 << 20);
        let large = Bytes::from(vec![b'x'; 25 << 20]);
        let Entry::Received(mut received) = event("ns", 0) else { unreachable!() };
        received.body = Body::Whole(large.clone());
        buffer.push(Entry::Received(received));
        assert!(large.is_unique(), "nothing but this test holds the body");
        let work = buffer.take(Duration::ZERO, u64::MAX);
        let Waiting::Received(received, _) = &work.entries[0] else { panic!() };
        assert!(matches!(&received.body, Body::Beginning(bytes, size) if bytes.len() == MAX_BODY && *size == 25 << 20));
    }

    #[test]
    fn a_batch_is_bounded_in_entries_and_bytes() {
        let buffer = buffer(10_000, 64 << 20);
        (0..1500).for_each(|_| buffer.push(event("ns", 10)));
        let work = buffer.take(Duration::ZERO, u64::MAX);
        assert_eq!((work.entries.len(), work.until), (MAX_BATCH, MAX_BATCH as u64));
        let work = buffer.take(Duration::ZERO, 10_000);
        assert!((8..=12).contains(&work.entries.len()), "{}", work.entries.len());
        assert_eq!(buffer.take(Duration::ZERO, 1).entries.len(), 1, "never nothing");
        assert!(!work.is_last);
        buffer.close();
        while !buffer.take(Duration::ZERO, u64::MAX).is_last {}
        let inner = buffer.lock();
        assert_eq!((inner.bytes, inner.by_namespace.len()), (0, 0));
        drop(inner);
        buffer.push(event("ns", 10));
        assert_eq!(buffer.dropped(), (1, 0));
    }

    #[tokio::test]
    async fn settling_waits_for_the_entries_before_it_alone() {
        let buffer = buffer(10, 1 << 20);
        buffer.settle().await;
        buffer.push(event("ns", 1));
        assert!(buffer.settle().now_or_never().is_none());
        buffer.settled(1);
        buffer.settle().await;
    }
}
