//! The entries that wait for the writer: bounded in number and in bytes. A request never waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{oneshot, watch};

use super::clean::MAX_BODY;
use super::measure;
use crate::base::lock::lock;
use crate::base::shares::Held;
use crate::event::EventId;
use crate::history::{Action, Attempt, Body, Entry, Outcome, Received};

/// How long the writer waits for more entries once it has one.
const LINGER: Duration = Duration::from_millis(50);

/// The most entries of one transaction.
pub(super) const MAX_BATCH: usize = 1000;

/// The memory that an entry takes besides its texts, in bytes. A generous estimate.
const OVERHEAD: u64 = 768;

/// The most bytes of a head that are copied.
const MAX_HEAD: usize = 32 << 10;

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

/// An entry that waits. Its head and body are copies, which hold on to no memory of the request.
#[derive(Debug)]
pub(super) enum Waiting {
    Received(Box<Received>, Head),
    Attempt(Box<Attempt>),
    Action(Box<Action>),
}

/// The fields of a head, in one allocation: the length of each text in two bytes before it.
#[derive(Debug, Default)]
pub(super) struct Head(Vec<u8>);

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
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<(Waiting, u64)>,
    bytes: u64,
    by_namespace: HashMap<Box<str>, u64>,
    refused: usize,
    erasures: Vec<Erasure>,
    /// How many entries were taken over since the start.
    taken_over: u64,
    dropped: u64,
    dropped_bodies: u64,
    /// Whether somebody waits until everything is written.
    is_urgent: bool,
    is_closed: bool,
}

impl Buffer {
    pub(super) fn new(limits: Limits) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), limits, written: watch::Sender::new(0) }
    }

    /// Takes an entry over, or leaves its body out, or the entry.
    pub(super) fn push(&self, entry: Entry) {
        // Copied before the lock is taken. When nothing fits, these bytes were copied in vain.
        let mut entry = copied(entry);
        let is_refused = matches!(&entry, Waiting::Received(received, _) if received.outcome == Outcome::Refused);
        let (whole, bare) = (entry.bytes(), entry.bytes() - entry.content());
        let namespace = entry.namespace();
        let mut inner = self.lock();
        let held = inner.held(&namespace);
        let is_full = inner.is_closed
            || inner.entries.len() >= self.limits.entries
            || (is_refused && inner.refused >= self.limits.entries / 8);
        if is_full || !fits(held, bare, self.limits.bytes) {
            inner.dropped += 1;
            measure::dropped("entry", 1);
            return;
        }
        let mut bytes = whole;
        if whole > bare && !fits(held, whole, self.limits.bytes / 4 * 3) {
            bytes = bare;
            inner.dropped_bodies += 1;
            measure::dropped("body", 1);
        }
        let emptied = (bytes < whole).then(|| entry.empty());
        inner.bytes += bytes;
        *inner.by_namespace.entry(namespace).or_default() += bytes;
        inner.refused += usize::from(is_refused);
        inner.entries.push_back((entry, bytes));
        inner.taken_over += 1;
        let count = inner.entries.len();
        drop(inner);
        drop(emptied);
        if count == 1 || count == MAX_BATCH {
            self.wake.notify_one();
        }
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

    fn held(&self, namespace: &str) -> Held {
        Held { all: self.bytes, webhook: 0, namespace: self.by_namespace.get(namespace).copied().unwrap_or(0) }
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
            work.is_last = self.is_closed;
            self.is_urgent = false;
        }
        work
    }

    fn forget(&mut self, entry: &Waiting, size: u64) {
        self.bytes -= size;
        self.refused -=
            usize::from(matches!(entry, Waiting::Received(received, _) if received.outcome == Outcome::Refused));
        let namespace = entry.namespace();
        if let Some(held) = self.by_namespace.get_mut(&namespace) {
            *held -= size;
            if *held == 0 {
                self.by_namespace.remove(&namespace);
            }
        }
    }
}

/// Whether `bytes` more fit: one namespace never takes more than two thirds of the room.
fn fits(held: Held, bytes: u64, room: u64) -> bool {
    held.and(bytes).exceeded(room, 0).is_none()
}

/// The entry with its own copy of each text that may be a part of a larger buffer.
fn copied(entry: Entry) -> Waiting {
    match entry {
        Entry::Received(mut received) => {
            if received.outcome == Outcome::Refused {
                received.headers = HeaderMap::new();
                received.body = Body::Left(received.body.size());
                return Waiting::Received(received, Head::default());
            }
            let head = Head::of(&std::mem::take(&mut received.headers));
            let copy = |bytes: &Bytes| Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_BODY)]);
            received.body = match &received.body {
                Body::Whole(bytes) if bytes.len() <= MAX_BODY => Body::Whole(copy(bytes)),
                Body::Whole(bytes) => Body::Beginning(copy(bytes), bytes.len() as u64),
                Body::Beginning(bytes, size) => Body::Beginning(copy(bytes), *size),
                Body::Left(size) => Body::Left(*size),
            };
            Waiting::Received(received, head)
        }
        Entry::Attempt(mut attempt) => {
            if let Some(answer) = &mut attempt.answer {
                answer.body = Bytes::copy_from_slice(&answer.body[..answer.body.len().min(1024)]);
            }
            Waiting::Attempt(attempt)
        }
        Entry::Action(action) => Waiting::Action(action),
    }
}

impl Waiting {
    pub(super) fn id(&self) -> EventId {
        match self {
            Self::Received(received, _) => received.id,
            Self::Attempt(attempt) => attempt.event,
            Self::Action(action) => action.event,
        }
    }

    /// The namespace whose share it counts for. An action is an operator's.
    fn namespace(&self) -> Box<str> {
        match self {
            Self::Received(received, _) => received.webhook.namespace().into(),
            Self::Attempt(attempt) => attempt.webhook.namespace().into(),
            Self::Action(_) => "".into(),
        }
    }

    /// The bytes of the head and the body.
    fn content(&self) -> u64 {
        match self {
            Self::Received(received, head) => {
                let body = match &received.body {
                    Body::Left(_) => 0,
                    Body::Whole(bytes) | Body::Beginning(bytes, _) => bytes.len(),
                };
                (head.0.len() + body) as u64
            }
            _ => 0,
        }
    }

    fn bytes(&self) -> u64 {
        let texts = match self {
            Self::Received(received, _) => {
                received.path.len()
                    + received.reason.as_ref().map_or(0, |reason| reason.len())
                    + 64 * received.steps.len()
            }
            Self::Attempt(attempt) => {
                let answer = attempt.answer.as_ref().map_or(0, |answer| answer.body.len());
                answer + attempt.error.as_ref().map_or(0, |(_, reason)| reason.len())
            }
            Self::Action(action) => action.by.len(),
        };
        OVERHEAD + texts as u64 + self.content()
    }

    /// Leaves the head and the body out. Returns them, to be dropped elsewhere.
    fn empty(&mut self) -> Option<(Head, Body)> {
        let Self::Received(received, head) = self else { return None };
        let size = received.body.size();
        let head = std::mem::replace(head, Head::left_out());
        Some((head, std::mem::replace(&mut received.body, Body::Left(size))))
    }
}

impl Head {
    fn of(headers: &HeaderMap) -> Self {
        let length: usize = headers.iter().map(|(name, value)| 4 + name.as_str().len() + value.len()).sum();
        let mut bytes = Vec::with_capacity(length.min(MAX_HEAD));
        for (name, value) in headers {
            let parts = [name.as_str().as_bytes(), value.as_bytes()];
            if bytes.len() + 4 + parts[0].len() + parts[1].len() > MAX_HEAD {
                return Self::cut(bytes);
            }
            for part in parts {
                bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Self(bytes)
    }

    fn left_out() -> Self {
        Self::cut(Vec::new())
    }

    /// A mark at the end says that fields are missing: half a length.
    fn cut(mut bytes: Vec<u8>) -> Self {
        bytes.push(0);
        Self(bytes)
    }

    /// The fields, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || Some((part(&mut rest)?, part(&mut rest)?)))
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.len() != self.fields().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>()
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<2>()?;
    let (part, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::sample;
    use super::*;
    use crate::event::Stamp;

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

    #[test]
    fn a_head_is_copied_field_by_field() {
        let mut headers = HeaderMap::new();
        headers.append("a", "1".parse().unwrap());
        headers.append("b", "".parse().unwrap());
        headers.append("a", "2".parse().unwrap());
        let head = Head::of(&headers);
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields.len(), 3);
        assert!(fields.contains(&(b"a", b"2")) && fields.contains(&(b"b", b"")) && !head.is_cut());
        headers.append("c", "x".repeat(MAX_HEAD).parse().unwrap());
        assert!(Head::of(&headers).is_cut() && Head::left_out().is_cut());
        assert!(!Head::default().is_cut());
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
