//! The activity of a connection, and the limits on how long its peer may keep the server waiting: for a request, or with
//! an answer that it does not read.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::unread::{ANSWER, Unread};

/// The slowest speed, in bytes per second, at which a peer may read waiting answers, measured over [`Limits::head`].
const SLOWEST: u128 = 1 << 10;

/// How long a peer may keep the server waiting for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Time for a whole head. It begins with the connection, or with the first byte of a later head.
    pub(crate) head: Duration,
    /// Time until the first byte of the next head.
    pub(crate) idle: Duration,
}

/// The activity of a connection. The connection's tasks write it, and one timer reads it from time to time, so no request
/// needs a timer of its own.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    /// Requests that are being answered.
    running: AtomicUsize,
    /// Answers that the peer has not fully taken, plus one while the socket accepts no bytes.
    owed: AtomicUsize,
    /// How often `owed` has come down to zero.
    settled: AtomicUsize,
    /// Bytes that the peer, or the system on its behalf, has taken.
    taken: AtomicU64,
    /// The peer has read too slowly.
    stalled: AtomicBool,
    /// The memory of this connection's unread answers.
    held: Mutex<Held>,
    /// The memory of the unread answers of all connections.
    unread_answers: Arc<Unread>,
    /// The task that serves the connection.
    task: OnceLock<AbortHandle>,
    /// A webhook's guard has admitted one of its requests.
    let_in: AtomicBool,
    /// While nothing is being answered: the time since which the server waits for the peer, in milliseconds after `began`.
    /// The lowest bit says whether a [`HEAD`] has begun.
    waiting: AtomicU64,
    /// Bytes that the peer has sent.
    read: AtomicUsize,
    /// How many of them were handed on as bodies of HTTP/2 requests.
    bodies: AtomicUsize,
    /// HTTP/2 requests that have begun. In HTTP/2 incoming bytes need not begin a head: they may answer a PING.
    http2_requests: AtomicUsize,
    /// The connection is to end gracefully.
    leaves: Notify,
    /// The body of the last HTTP/1 request has not been read to its end.
    unread: AtomicBool,
    /// The connection ends, and the peer has had time to notice.
    refuses_more: AtomicBool,
}

/// A head has begun and not ended.
const HEAD: u64 = 1;

impl Activity {
    /// A new connection, whose first head the server waits for.
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
            read: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            http2_requests: AtomicUsize::new(0),
            leaves: Notify::new(),
            unread: AtomicBool::new(false),
            refuses_more: AtomicBool::new(false),
        })
    }

    /// Sets the task that serves the connection.
    pub(crate) fn is_served_by(&self, task: AbortHandle) {
        // It is set once.
        let _ = self.task.set(task);
    }

    /// The task that serves the connection; `None` for a moment at the beginning.
    pub(crate) fn task(&self) -> Option<&AbortHandle> {
        self.task.get()
    }

    /// Bytes have arrived.
    pub(crate) fn heard(&self) {
        let is_idle = self.waiting.load(Ordering::Relaxed) & HEAD == 0 && self.running.load(Ordering::Relaxed) == 0;
        if is_idle && !self.is_http2() {
            self.wait_for(HEAD);
        }
    }

    /// Whether the peer may still be sending a body that nobody reads.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Counts bytes that the peer has sent. Only the stream calls this, never on two threads at a time.
    pub(crate) fn read(&self, bytes: usize) {
        self.read.store(self.read.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    pub(crate) fn begins_http2_request(&self) {
        self.http2_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of an HTTP/2 request's body that were handed on.
    pub(crate) fn read_body(&self, bytes: usize) {
        self.bodies.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Traffic { read: load(&self.read), bodies: load(&self.bodies), requests: load(&self.http2_requests) }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2_requests.load(Ordering::Relaxed) > 0
    }

    /// Asks the connection to end gracefully.
    pub(crate) fn leave(&self) {
        self.leaves.notify_one();
    }

    /// Resolves when the connection is asked to end gracefully.
    pub(crate) async fn asked_to_leave(&self) {
        self.leaves.notified().await;
    }

    /// Requests that begin from now on do not keep the connection open.
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

    /// The time since which the server waits for a request of the peer or for the rest of its body. `None` while a request
    /// that has fully arrived is being answered.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        if self.running.load(Ordering::Acquire) > 0 && !self.is_unread() {
            return None;
        }
        Some(self.began + Duration::from_millis(self.waiting.load(Ordering::Relaxed) >> 1))
    }

    /// An answer, or the socket, waits for the peer.
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

    /// Memory is held until the peer reads.
    pub(crate) fn hold(&self, bytes: usize) {
        let is_too_much = self.add(&mut self.lock(), bytes);
        if is_too_much {
            self.unread_answers.make_room();
        }
    }

    /// Adds `bytes` to the count of this connection and of all connections. The caller holds the lock meanwhile, so that both
    /// counts agree. Returns whether all connections together hold too much.
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

    /// The bytes that are held, and the time since which that was never zero. `None` if nothing is held.
    pub(crate) fn held(&self) -> Option<(usize, Instant)> {
        let held = self.lock();
        held.since.filter(|_| held.bytes > 0).map(|since| (held.bytes, since))
    }

    /// Ends the connection at once, since its peer does not read. Its memory no longer counts.
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

    /// The peer has taken bytes. Only the stream calls this, never twice at the same time.
    pub(crate) fn took(&self, bytes: usize) {
        self.taken.store(self.taken.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    /// Whether the connection ends because the peer reads too slowly.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > 0
    }

    /// Begins to wait anew: time in which the peer reads is not idle time.
    fn restart_waiting(&self) {
        self.wait_for(self.waiting.load(Ordering::Relaxed) & HEAD);
    }

    /// The time at which the peer has kept the server waiting too long for a request; `None` while the server works on a
    /// request or the peer reads an answer.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.running.load(Ordering::Acquire) > 0 || self.is_owed() {
            return None;
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        let limit = if waiting & HEAD == HEAD { limits.head } else { limits.idle };
        Some(self.began + Duration::from_millis(waiting >> 1) + limit)
    }

    /// Resolves when the peer has kept the server waiting too long.
    pub(crate) async fn expired(&self, limits: &Limits) {
        let mut reading = None;
        while let Some(next) = self.next_look(&mut reading, limits) {
            sleep_until(next).await;
        }
    }

    /// When to look at the peer again; `None` if it has kept the server waiting too long. `reading` is kept between looks.
    fn next_look(&self, reading: &mut Option<Reading>, limits: &Limits) -> Option<Instant> {
        let now = Instant::now();
        *reading = match Reading::next(reading.take(), self, now, limits.head) {
            Ok(reading) => reading,
            Err(TooSlow) => {
                self.stalled.store(true, Ordering::Relaxed);
                return None;
            }
        };
        if reading.is_some() {
            self.restart_waiting();
        }
        let deadline = self.deadline(limits);
        if deadline.is_some_and(|deadline| deadline <= now) {
            return None;
        }
        // Often enough to notice in time a wait that begins meanwhile.
        let next = now + limits.head.min(limits.idle);
        let next = reading.map_or(next, |reading| next.min(reading.since + limits.head));
        Some(deadline.map_or(next, |deadline| deadline.min(next)))
    }

    /// Whether the peer has taken all answers and has sent no byte of another request.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_idle = self.running.load(Ordering::Relaxed) == 0 && self.waiting.load(Ordering::Relaxed) & HEAD == 0;
        is_idle && !self.is_owed() && !self.is_unread()
    }

    /// Resolves when nothing is being answered; looks every `pause`.
    pub(crate) async fn quiet(&self, pause: Duration) {
        while self.running.load(Ordering::Relaxed) > 0 {
            sleep(pause).await;
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        // The stream may have been dropped while the socket accepted no bytes.
        self.unread_answers.release(self.lock().bytes);
    }
}

/// What the peer of an HTTP/2 connection has sent so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// All bytes.
    pub(crate) read: usize,
    /// The bytes of bodies.
    pub(crate) bodies: usize,
    pub(crate) requests: usize,
}

/// The memory of a connection's unread answers.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    since: Option<Instant>,
    /// The connection ends, and nothing counts any longer.
    is_over: bool,
}

/// The state when the peer was first seen to owe a read. Since then it has owed one at each look.
#[derive(Clone, Copy, Debug)]
struct Reading {
    since: Instant,
    taken: u64,
    settled: usize,
}

struct TooSlow;

impl Reading {
    /// The state to compare with at the next look; `None` if nothing is owed. A peer may read too slowly for `limit`.
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

/// A request that is being answered, and later its answer that is being read.
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

    /// The answer exists: from now on the server waits for the peer.
    pub(crate) fn answered(mut self) -> Self {
        self.activity.owe();
        self.is_answered = true;
        self.end();
        self
    }

    fn end(&self) {
        // The time comes first: a reader that sees that nothing runs must also see since when.
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
