//! Those who wait for what a thread does for many at a time.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Round, Seat};

/// How long the thread waits for more when several have come at a time, and maybe again as long as some do.
pub(crate) const GATHER: Duration = Duration::from_micros(300);

/// Who waits for the next round. It stands with what they wait for, behind the same lock.
pub(crate) struct Crowd<T> {
    round: Round<T>,
    /// How many wait.
    count: usize,
    /// How many were answered by the last round, until those have been waited for.
    answered: usize,
    /// The thread sleeps until so many wait.
    wake_at: usize,
}

/// The thread has nothing to do.
const IDLE: usize = 1;

/// The thread is not to be woken by those who wait.
const BUSY: usize = usize::MAX;

impl<T> Crowd<T> {
    /// One more waits. Whether the thread is to be woken for that; if there is enough to do, it is not to wait for more.
    pub(crate) fn join(&mut self, patience: Option<Duration>, is_enough: bool) -> (Seat<T>, bool) {
        self.count += 1;
        (self.round.join(patience), self.count == self.wake_at || (is_enough && self.wake_at != BUSY))
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether the thread sleeps as there is nothing to do.
    #[cfg(feature = "queue-disk")]
    pub(crate) fn is_idle(&self) -> bool {
        self.wake_at == IDLE
    }

    /// Begins the round.
    pub(crate) fn begin(&mut self) -> Round<T> {
        self.answered = std::mem::take(&mut self.count);
        std::mem::take(&mut self.round)
    }
}

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        Self { round: Round::default(), count: 0, answered: 0, wake_at: BUSY }
    }
}

/// What holds a crowd.
pub(crate) trait HasCrowd {
    type Outcome;

    /// How often the thread waits for more at most: the dearer it is what is done for all of them, the longer.
    const TURNS: usize;

    fn crowd(&mut self) -> &mut Crowd<Self::Outcome>;

    /// Whether there is so much to do that more would not be done sooner by being waited for.
    fn is_enough(&self) -> bool {
        false
    }
}

/// Waits a little for those who have just been answered: often they have the next thing already, and all of it is done at
/// once. Who is alone is not kept waiting.
pub(crate) fn gather<'a, I: HasCrowd>(wake: &Condvar, mut inner: MutexGuard<'a, I>) -> MutexGuard<'a, I> {
    let crowd = inner.crowd();
    let expected = crowd.count + std::mem::take(&mut crowd.answered);
    let is_missing = |inner: &mut I| inner.crowd().count < expected && !inner.is_enough();
    if expected < 2 {
        return inner;
    }
    for _ in 0..I::TURNS {
        let (until, before) = (Instant::now() + GATHER, inner.crowd().count);
        while is_missing(&mut inner) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = sleep(wake, inner, expected, Some(left));
        }
        if !is_missing(&mut inner) || inner.crowd().count == before {
            break;
        }
    }
    inner
}

/// Sleeps until somebody waits, `wake` is told otherwise, or it is time.
pub(crate) fn idle<'a, I: HasCrowd>(
    wake: &Condvar,
    inner: MutexGuard<'a, I>,
    time: Option<Duration>,
) -> MutexGuard<'a, I> {
    sleep(wake, inner, IDLE, time)
}

fn sleep<'a, I: HasCrowd>(
    wake: &Condvar,
    mut inner: MutexGuard<'a, I>,
    wake_at: usize,
    time: Option<Duration>,
) -> MutexGuard<'a, I> {
    inner.crowd().wake_at = wake_at;
    let mut inner = match time {
        Some(time) => wake.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner).0,
        None => wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
    };
    inner.crowd().wake_at = BUSY;
    inner
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Queue(Crowd<()>);

    impl HasCrowd for Queue {
        type Outcome = ();

        const TURNS: usize = 3;

        fn crowd(&mut self) -> &mut Crowd<()> {
            &mut self.0
        }
    }

    /// How long the thread waits after so many were answered, with so many there already.
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
    fn those_who_were_answered_are_waited_for() {
        for (answered, waiting) in [(2, 0), (1, 1), (8, 7)] {
            assert!(gathered(answered, waiting) >= GATHER, "{answered} {waiting}");
        }
    }

    #[test]
    fn who_is_alone_is_not_kept_waiting() {
        for (answered, waiting) in [(0, 0), (1, 0), (0, 1)] {
            let quickest = (0..50).map(|_| gathered(answered, waiting)).min().unwrap();
            assert!(quickest < GATHER, "{answered} {waiting}: {quickest:?}");
        }
    }

    #[test]
    fn they_are_waited_for_as_long_as_some_come() {
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
        // The machine may be busy, and the other thread late.
        assert!((0..50).any(|_| waited() >= GATHER * Queue::TURNS as u32));
    }

    #[test]
    fn the_last_of_them_ends_it() {
        let mut crowd = Crowd::<()> { wake_at: 3, ..Crowd::default() };
        let woken: Vec<_> = (0..5).map(|_| crowd.join(None, false).1).collect();
        assert_eq!(woken, [false, false, true, false, false]);
    }
}
