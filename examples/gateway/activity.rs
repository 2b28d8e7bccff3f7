//! The activity of a connection, and how long its peer may keep the server waiting: for a request, or for an answer to be
//! read.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::unread::{ANSWER, Unread};

/// How many bytes a second of the answers that wait for it a peer has to take at least, over [`Limits::head`].
const SLOWEST: u128 = 1 << 10;

/// How long a peer may keep the server waiting for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For a whole head: from the start of the connection on, or from the head's first byte on if it is not the first.
    pub(crate) head: Duration,
    /// For the first byte of the next head.
    pub(crate) idle: Duration,
}

/// The activity of a connection. The connection's tasks write it, and one timer reads it from time to time, so that no
/// request sets a timer.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    /// Requests that are being answered.
    running: AtomicUsize,
    /// Answers that are not yet written as far as the peer lets them, and one more while the socket takes no bytes.
    owed: AtomicUsize,
    /// How often all that was owed has been taken.
    settled: AtomicUsize,
    /// How many bytes the peer, or the system for it, has taken.
    taken: AtomicU64,
    /// The peer was too slow to read.
    stalled: AtomicBool,
    /// What its unread answers hold.
    held: Mutex<Held>,
    /// What those of all connections hold.
    unread_answers: Arc<Unread>,
    /// The task that serves the connection.
    task: OnceLock<AbortHandle>,
    /// One of its requests has got past the guard of a webhook.
    let_in: AtomicBool,
    /// While nothing is being answered: since when the peer is waited for, in milliseconds from `began`, and in the lowest
    /// bit whether a [`HEAD`] has begun.
    waiting: AtomicU64,
    /// In HTTP/2 bytes that come are no sign of a head: they may be the answer to a PING.
    is_http2: AtomicBool,
    /// The body of the last HTTP/1 request has not been read to its end.
    unread: AtomicBool,
    /// The connection ends, and the peer has had the time to learn of it.
    refuses_more: AtomicBool,
}

/// A head has begun, and not yet ended.
const HEAD: u64 = 1;

impl Activity {
    /// A connection that begins now: its first head is waited for.
    pub(crate) fn begin(unread_answers: &Arc<Unread>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            running: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            held: Mutex::default(),
            unread_answers: Arc::clone(unread_answers),
            task: OnceLock::new(),
            let_in: AtomicBool::new(false),
            waiting: AtomicU64::new(HEAD),
            is_http2: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            refuses_more: AtomicBool::new(false),
        })
    }

    /// Names the task that serves the connection.
    pub(crate) fn is_served_by(&self, task: AbortHandle) {
        // There is one.
        let _ = self.task.set(task);
    }

    /// The task that serves the connection; `None` in the moment before it is known.
    pub(crate) fn task(&self) -> Option<&AbortHandle> {
        self.task.get()
    }

    /// Bytes have come.
    pub(crate) fn heard(&self) {
        let is_idle = self.waiting.load(Ordering::Relaxed) & HEAD == 0 && self.running.load(Ordering::Relaxed) == 0;
        if is_idle && !self.is_http2() {
            self.wait_for(HEAD);
        }
    }

    /// Whether the peer may go on to send a body that nobody reads.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    pub(crate) fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// Requests that begin from now on are no reason to keep the connection.
    pub(crate) fn refuse_more(&self) {
        self.refuses_more.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refuses_more(&self) -> bool {
        self.refuses_more.load(Ordering::Relaxed)
    }

    fn wait_for(&self, what: u64) {
        self.waiting.store((self.began.elapsed().as_millis() as u64) << 1 | what, Ordering::Relaxed);
    }

    pub(crate) fn let_in(&self) {
        if !self.is_let_in() {
            self.let_in.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_let_in(&self) -> bool {
        self.let_in.load(Ordering::Relaxed)
    }

    /// Since when the peer has kept the server waiting for a request or for the rest of its body. `None` while a request
    /// that has arrived is being answered.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        if self.running.load(Ordering::Acquire) > 0 && !self.is_unread() {
            return None;
        }
        Some(self.began + Duration::from_millis(self.waiting.load(Ordering::Relaxed) >> 1))
    }

    /// Something waits for the peer to take it.
    pub(crate) fn owe(&self) {
        let mut held = self.lock();
        let is_further = self.owed.fetch_add(1, Ordering::Relaxed) > 0;
        let is_too_much = is_further && self.add(&mut held, ANSWER);
        drop(held);
        if is_too_much {
            self.unread_answers.make_room();
        }
    }

    /// The end of one [`owe`](Self::owe).
    pub(crate) fn settle(&self) {
        let mut held = self.lock();
        match self.owed.fetch_sub(1, Ordering::Relaxed) {
            1 => drop(self.settled.fetch_add(1, Ordering::Relaxed)),
            _ => self.take_off(&mut held, ANSWER),
        }
    }

    /// Memory is held for the peer until it reads.
    pub(crate) fn hold(&self, bytes: usize) {
        let is_too_much = self.add(&mut self.lock(), bytes);
        if is_too_much {
            self.unread_answers.make_room();
        }
    }

    /// Counts `bytes` here and for all connections. The lock is held throughout, so that both counts agree. Returns whether
    /// all connections together hold too much.
    fn add(&self, held: &mut Held, bytes: usize) -> bool {
        if held.is_over {
            return false;
        }
        if held.bytes == 0 {
            held.since = Some(Instant::now());
        }
        held.bytes += bytes;
        self.unread_answers.hold(bytes)
    }

    fn take_off(&self, held: &mut Held, bytes: usize) {
        let bytes = bytes.min(held.bytes);
        held.bytes -= bytes;
        self.unread_answers.release(bytes);
    }

    /// The end of one [`hold`](Self::hold).
    pub(crate) fn release(&self, bytes: usize) {
        self.take_off(&mut self.lock(), bytes);
    }

    /// How many bytes are held, and since when without a break. `None` if nothing is.
    pub(crate) fn held(&self) -> Option<(usize, Instant)> {
        let held = self.lock();
        held.since.filter(|_| held.bytes > 0).map(|since| (held.bytes, since))
    }

    /// Ends the connection at once, since its peer does not read. What it holds counts no more.
    pub(crate) fn end(&self) {
        self.stalled.store(true, Ordering::Relaxed);
        let mut held = self.lock();
        held.is_over = true;
        self.unread_answers.release(std::mem::take(&mut held.bytes));
        drop(held);
        self.task.get().inspect(|task| task.abort());
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have been taken. Only the stream itself says so, one time after the other.
    pub(crate) fn took(&self, bytes: usize) {
        self.taken.store(self.taken.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    /// Whether the connection ends because the peer was too slow to read.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > 0
    }

    /// The time in which the peer reads is not idle time.
    fn restart_waiting(&self) {
        self.wait_for(self.waiting.load(Ordering::Relaxed) & HEAD);
    }

    /// When the peer has kept the server waiting for a request for too long; `None` while the server keeps the peer
    /// waiting, or waits for an answer to be read.
    fn deadline(&self, limits: Limits) -> Option<Instant> {
        if self.running.load(Ordering::Acquire) > 0 || self.is_owed() {
            return None;
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        let limit = if waiting & HEAD == HEAD { limits.head } else { limits.idle };
        Some(self.began + Duration::from_millis(waiting >> 1) + limit)
    }

    /// Resolves when the peer has kept the server waiting for too long.
    pub(crate) async fn expired(&self, limits: Limits) {
        let mut reading = None;
        loop {
            let now = Instant::now();
            reading = match Reading::next(reading, self, now, limits.head) {
                Ok(reading) => reading,
                Err(TooSlow) => return self.stalled.store(true, Ordering::Relaxed),
            };
            if reading.is_some() {
                self.restart_waiting();
            }
            let deadline = self.deadline(limits);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            // Often enough to see in time whatever begins in the meantime.
            let next = now + limits.head.min(limits.idle);
            let next = reading.map_or(next, |reading| next.min(reading.since + limits.head));
            sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        }
    }

    /// Whether all answers have been taken, and no byte of another request has come.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_idle = self.running.load(Ordering::Relaxed) == 0 && self.waiting.load(Ordering::Relaxed) & HEAD == 0;
        is_idle && !self.is_owed() && !self.is_unread()
    }

    /// Resolves when nothing is being answered, as is looked for from time to time.
    pub(crate) async fn quiet(&self, pause: Duration) {
        while self.running.load(Ordering::Relaxed) > 0 {
            sleep(pause).await;
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        // The stream may have been dropped while the socket took no bytes.
        self.unread_answers.release(self.lock().bytes);
    }
}

/// What the unread answers of a connection hold.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    since: Option<Instant>,
    /// The connection ends, and nothing counts any more.
    is_over: bool,
}

/// The state at a time from which on something has been owed without a break, as far as has been seen.
#[derive(Clone, Copy, Debug)]
struct Reading {
    since: Instant,
    taken: u64,
    settled: usize,
}

struct TooSlow;

impl Reading {
    /// What there is to compare with the next time; `None` if nothing is owed. `limit` is how long a peer may be too slow.
    fn next(last: Option<Self>, activity: &Activity, now: Instant, limit: Duration) -> Result<Option<Self>, TooSlow> {
        let taken = activity.taken.load(Ordering::Relaxed);
        let this = Self { since: now, taken, settled: activity.settled.load(Ordering::Relaxed) };
        if !activity.is_owed() {
            return Ok(None);
        }
        let Some(last) = last.filter(|last| last.settled == this.settled) else { return Ok(Some(this)) };
        let time = now.saturating_duration_since(last.since);
        if time < limit {
            return Ok(Some(last));
        }
        let read = u128::from(taken.wrapping_sub(last.taken));
        match read * 1000 < SLOWEST * time.as_millis() {
            true => Err(TooSlow),
            false => Ok(Some(this)),
        }
    }
}

/// A request that is being answered, and then its answer that is being read.
#[derive(Debug)]
pub(crate) struct Running {
    activity: Arc<Activity>,
    is_answered: bool,
}

impl Running {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), is_answered: false }
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// The answer is there: from now on the peer is waited for.
    pub(crate) fn answered(mut self) -> Self {
        self.activity.owe();
        self.is_answered = true;
        self.end();
        self
    }

    fn end(&self) {
        // First the time: a reader that sees that nothing runs must see since when.
        self.activity.wait_for(0);
        self.activity.running.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self.is_answered {
            true => self.activity.settle(),
            false => self.end(),
        }
    }
}
