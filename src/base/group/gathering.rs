//! Gathers the waiters of the next group for a writer thread.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Group, Waiter};

/// How long the thread waits for more waiters in one turn. It takes further turns as long as waiters arrive.
pub(crate) const GATHER: Duration = Duration::from_micros(300);

/// The waiters of the next group. It is kept behind the same lock as the work of the thread.
pub(crate) struct Gathering<T> {
    group: Group<T>,
    /// How many waiters there are.
    count: usize,
    /// How many waiters the last group had; zero once the thread has waited for them to come again.
    answered: usize,
    /// The number of waiters that wakes the thread.
    wake_at: usize,
}

/// `wake_at` of a thread that has no work: the first waiter wakes it.
const IDLE: usize = 1;

/// `wake_at` of a thread that is awake: waiters do not wake it.
const BUSY: usize = usize::MAX;

impl<T> Gathering<T> {
    /// Adds a waiter. The flag is `true` if the thread must be woken. `is_enough` wakes it without waiting for more waiters.
    pub(crate) fn join(&mut self, patience: Option<Duration>, is_enough: bool) -> (Waiter<T>, bool) {
        self.count += 1;
        (self.group.join(patience), self.count == self.wake_at || (is_enough && self.wake_at != BUSY))
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether the thread sleeps because there is no work.
    #[cfg(feature = "queue-disk")]
    pub(crate) fn is_idle(&self) -> bool {
        self.wake_at == IDLE
    }

    /// Closes the group, and opens the next one.
    pub(crate) fn begin(&mut self) -> Group<T> {
        self.answered = std::mem::take(&mut self.count);
        std::mem::take(&mut self.group)
    }
}

impl<T> Default for Gathering<T> {
    fn default() -> Self {
        Self { group: Group::default(), count: 0, answered: 0, wake_at: BUSY }
    }
}

/// The work of a thread, with its gathering.
pub(crate) trait Gathers {
    type Outcome;

    /// The largest number of turns that the thread waits for more waiters: the more a group costs, the more turns pay.
    const MAX_TURNS: usize;

    fn gathering(&mut self) -> &mut Gathering<Self::Outcome>;

    /// Whether there is enough work to begin at once.
    fn is_enough(&self) -> bool {
        false
    }
}

/// Waits a little for the waiters of the last group: often they come back at once, and then one group serves all of them.
/// A single waiter is not kept waiting.
pub(crate) fn gather<'a, I: Gathers>(wake: &Condvar, mut inner: MutexGuard<'a, I>) -> MutexGuard<'a, I> {
    let gathering = inner.gathering();
    let expected = gathering.count + std::mem::take(&mut gathering.answered);
    let is_missing = |inner: &mut I| inner.gathering().count < expected && !inner.is_enough();
    if expected < 2 {
        return inner;
    }
    for _ in 0..I::MAX_TURNS {
        let (until, before) = (Instant::now() + GATHER, inner.gathering().count);
        while is_missing(&mut inner) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = sleep(wake, inner, expected, Some(left));
        }
        if !is_missing(&mut inner) || inner.gathering().count == before {
            break;
        }
    }
    inner
}

/// Sleeps until there is a waiter, `wake` is notified, or the time is over.
pub(crate) fn idle<'a, I: Gathers>(
    wake: &Condvar,
    inner: MutexGuard<'a, I>,
    time: Option<Duration>,
) -> MutexGuard<'a, I> {
    sleep(wake, inner, IDLE, time)
}

fn sleep<'a, I: Gathers>(
    wake: &Condvar,
    mut inner: MutexGuard<'a, I>,
    wake_at: usize,
    time: Option<Duration>,
) -> MutexGuard<'a, I> {
    inner.gathering().wake_at = wake_at;
    let mut inner = match time {
        Some(time) => wake.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner).0,
        None => wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
    };
    inner.gathering().wake_at = BUSY;
    inner
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Queue(Gathering<()>);

    impl Gathers for Queue {
        type Outcome = ();

        const MAX_TURNS: usize = 3;

        fn gathering(&mut self) -> &mut Gathering<()> {
            &mut self.0
        }
    }

    /// How long the thread waits after a group of `answered`, with `waiting` waiters there already.
    fn gathered(answered: usize, waiting: usize) -> Duration {
        let (queue, wake) = (Mutex::<Queue>::default(), Condvar::new());
        let mut inner = queue.lock().unwrap();
        (0..answered).for_each(|_| drop(inner.0.join(None, false)));
        drop(inner.0.begin());
        (0..waiting).for_each(|_| drop(inner.0.join(None, false)));
        let began = Instant::now();
        let inner = gather(&wake, inner);
        assert_eq!((inner.0.count, inner.0.answered), (waiting, 0));
        began.elapsed()
    }

    #[test]
    fn the_thread_waits_for_waiters_of_the_last_group() {
        for (answered, waiting) in [(2, 0), (1, 1), (8, 7)] {
            assert!(gathered(answered, waiting) >= GATHER, "{answered} {waiting}");
        }
    }

    #[test]
    fn a_single_waiter_is_not_kept_waiting() {
        for (answered, waiting) in [(0, 0), (1, 0), (0, 1)] {
            let quickest = (0..50).map(|_| gathered(answered, waiting)).min().unwrap();
            assert!(quickest < GATHER, "{answered} {waiting}: {quickest:?}");
        }
    }

    #[test]
    fn the_thread_waits_as_long_as_waiters_arrive() {
        let waited = || {
            let (queue, wake) = (Mutex::<Queue>::default(), Condvar::new());
            let mut inner = queue.lock().unwrap();
            (0..1000).for_each(|_| drop(inner.0.join(None, false)));
            drop(inner.0.begin());
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        drop(queue.lock().unwrap().0.join(None, false));
                        std::thread::sleep(GATHER / 10);
                    }
                });
                let began = Instant::now();
                drop(gather(&wake, inner));
                let waited = began.elapsed();
                is_over.store(true, Ordering::Relaxed);
                waited
            })
        };
        // Tried many times: on a busy machine the other thread may be late.
        assert!((0..50).any(|_| waited() >= GATHER * Queue::MAX_TURNS as u32));
    }

    #[test]
    fn only_the_waiter_that_completes_the_number_wakes_the_thread() {
        let mut gathering = Gathering::<()> { wake_at: 3, ..Gathering::default() };
        let woken: Vec<_> = (0..5).map(|_| gathering.join(None, false).1).collect();
        assert_eq!(woken, [false, false, true, false, false]);
    }
}
