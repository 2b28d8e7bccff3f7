//! Group commit: wakes every task that waits for the same write or sync.
//!
//! Waking a task from a thread outside of its runtime costs a lock and often a system call; from within the runtime it
//! costs next to nothing. The waiters of one thread therefore form a cohort, and the writer thread wakes only one of them.
//! That waiter wakes the rest of its cohort when it is polled or dropped. Only one waiter of a cohort has a timer at a time.

mod gathering;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant as StdInstant};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::base::lock::lock;

#[cfg(all(test, feature = "queue-disk"))]
pub(crate) use self::gathering::GATHER;
pub(crate) use self::gathering::{Gathering, Gathers, gather, idle};

/// One write or sync, and the tasks that wait for it. When it is dropped, the waiters get `None`.
pub(crate) struct Group<T>(Arc<Shared<T>>);

/// A waiter of a group. Resolves to `None` if the group was dropped, or took longer than the waiter's patience.
#[must_use]
pub(crate) struct Waiter<T> {
    group: Arc<Shared<T>>,
    /// The index of its cohort, and its index in that cohort.
    place: Option<(usize, usize)>,
    ends: Option<Instant>,
    /// The timer for `ends`. Only the waiter of the cohort that ends first needs one.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Groups that have ended and may have waiters that are not woken yet. A woken task need not poll its waiter, so the
/// waiter that should wake its cohort may never do so.
pub(crate) struct Stragglers<T>(VecDeque<(StdInstant, Arc<Shared<T>>)>);

/// Grace period for the woken waiter to wake its cohort.
const TIME_TO_WAKE: Duration = Duration::from_millis(20);

impl<T> Group<T> {
    /// Adds a waiter that waits for `patience` at most.
    pub(crate) fn join(&self, patience: Option<Duration>) -> Waiter<T> {
        // A time that overflows never ends.
        let ends = patience.and_then(|patience| Instant::now().checked_add(patience));
        Waiter { group: Arc::clone(&self.0), place: None, ends, timer: None }
    }

    /// Ends the group: all waiters get `outcome`.
    pub(crate) fn end(self, outcome: T, stragglers: &mut Stragglers<T>) {
        if self.0.end(Some(outcome)) {
            stragglers.0.push_back((StdInstant::now() + TIME_TO_WAKE, Arc::clone(&self.0)));
        }
    }
}

impl<T> Stragglers<T> {
    /// Wakes the waiters whose grace period is over. Returns when to call this again.
    pub(crate) fn wake(&mut self) -> Option<StdInstant> {
        while let Some((due, group)) = self.0.front() {
            if *due > StdInstant::now() {
                return Some(*due);
            }
            let cohorts = std::mem::take(&mut *group.lock());
            cohorts.0.into_iter().flat_map(|cohort| cohort.wakers).flatten().for_each(Waker::wake);
            self.0.pop_front();
        }
        None
    }
}

impl<T> Default for Stragglers<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Drop for Group<T> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl<T: Clone> Future for Waiter<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        if let Some(outcome) = this.group.outcome.get() {
            let outcome = outcome.clone();
            this.wake_others();
            return Poll::Ready(outcome);
        }
        let mut cohorts = this.group.lock();
        // Checked again, because the outcome is set under this lock.
        if let Some(outcome) = this.group.outcome.get() {
            let outcome = outcome.clone();
            drop(cohorts);
            this.wake_others();
            return Poll::Ready(outcome);
        }
        let cohort = cohorts.place(&mut this.place, this.ends.is_some(), cx.waker());
        if let Some(ends) = this.ends.filter(|ends| cohort.timer.is_none_or(|timer| *ends < timer)) {
            cohort.timer = Some(ends);
            this.timer.get_or_insert_with(|| Box::pin(sleep_until(ends)));
        }
        drop(cohorts);
        match &mut this.timer {
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}

impl<T> Waiter<T> {
    /// Wakes the rest of the cohort, unless another waiter has done so.
    fn wake_others(&mut self) {
        let Some((at, _)) = self.place.take() else { return };
        if self.group.unwoken.load(Ordering::Acquire) > 0 {
            let others = self.group.lock().take_wakers(at);
            if let Some(others) = others {
                self.group.unwoken.fetch_sub(1, Ordering::Relaxed);
                others.into_iter().flatten().for_each(Waker::wake);
            }
        }
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        let Some((at, index)) = self.place else { return };
        let mut cohorts = self.group.lock();
        if self.group.outcome.get().is_some() {
            drop(cohorts);
            // This may be the waiter that was woken to wake the rest.
            return self.wake_others();
        }
        let cohort = &mut cohorts.0[at];
        cohort.wakers[index] = None;
        cohort.free.push(index);
        cohort.timer.take_if(|_| self.timer.is_some());
        // The waiter that is woken here sets a timer of its own.
        let is_missed = cohort.is_timed && cohort.timer.is_none();
        let next = cohort.wakers.iter().flatten().next().filter(|_| is_missed).cloned();
        drop(cohorts);
        next.into_iter().for_each(Waker::wake);
    }
}

struct Shared<T> {
    cohorts: Mutex<Cohorts>,
    /// Set when the group has ended; `None` if it was dropped.
    outcome: OnceLock<Option<T>>,
    /// How many cohorts have waiters that are not woken yet. Counted when the group ends.
    unwoken: AtomicUsize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { cohorts: Mutex::default(), outcome: OnceLock::new(), unwoken: AtomicUsize::new(0) }
    }
}

#[derive(Default)]
struct Cohorts(Vec<Cohort>);

/// The waiters of one thread: either those with a time limit, or those without.
struct Cohort {
    thread: usize,
    is_timed: bool,
    wakers: Vec<Option<Waker>>,
    /// Free places of waiters that gave up, to be reused: a group that does not end must not grow for ever.
    free: Vec<usize>,
    /// The time of the cohort's timer.
    timer: Option<Instant>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Cohorts> {
        lock(&self.cohorts)
    }

    /// Sets the outcome, unless there is one, and wakes one waiter of each cohort. Returns whether waiters are left for them
    /// to wake.
    fn end(&self, outcome: Option<T>) -> bool {
        let mut cohorts = self.lock();
        let woken: Vec<_> = match self.outcome.get() {
            Some(_) => return false,
            None => cohorts.0.iter_mut().filter_map(|cohort| cohort.wakers.iter_mut().find_map(Option::take)).collect(),
        };
        let unwoken = cohorts.0.iter().filter(|cohort| cohort.wakers.iter().any(Option::is_some)).count();
        self.unwoken.store(unwoken, Ordering::Release);
        let _ = self.outcome.set(outcome);
        drop(cohorts);
        woken.into_iter().for_each(Waker::wake);
        unwoken > 0
    }
}

impl Cohorts {
    /// The cohort of a waiter, which gets a place in the cohort of this thread if it has none yet.
    fn place(&mut self, place: &mut Option<(usize, usize)>, is_timed: bool, waker: &Waker) -> &mut Cohort {
        let cohorts = &mut self.0;
        if let Some((at, index)) = *place {
            let cohort = &mut cohorts[at];
            match &mut cohort.wakers[index] {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return cohort;
        }
        let thread = this_thread();
        let is_mine = |cohort: &Cohort| cohort.thread == thread && cohort.is_timed == is_timed;
        let at = cohorts.iter().position(is_mine).unwrap_or_else(|| {
            cohorts.push(Cohort { thread, is_timed, wakers: Vec::new(), free: Vec::new(), timer: None });
            cohorts.len() - 1
        });
        let cohort = &mut cohorts[at];
        let index = cohort.free.pop().unwrap_or(cohort.wakers.len());
        *place = Some((at, index));
        match cohort.wakers.get_mut(index) {
            Some(free) => *free = Some(waker.clone()),
            None => cohort.wakers.push(Some(waker.clone())),
        }
        cohort
    }

    /// The wakers of a cohort that were not woken yet, if there are any.
    fn take_wakers(&mut self, cohort: usize) -> Option<Vec<Option<Waker>>> {
        let wakers = std::mem::take(&mut self.0.get_mut(cohort)?.wakers);
        wakers.iter().any(Option::is_some).then_some(wakers)
    }
}

/// A number that differs between threads that are alive at the same time.
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;

    /// A waker that counts its calls.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Waiters of this thread, each polled once with a waker of its own.
    fn waiters(group: &Group<u8>, count: usize) -> Vec<(Option<Waiter<u8>>, Arc<Count>)> {
        let wait = |_| {
            let (mut waiter, woken) = (group.join(Some(Duration::MAX)), Arc::<Count>::default());
            assert!(poll(&mut waiter, &woken).is_pending());
            (Some(waiter), woken)
        };
        (0..count).map(wait).collect()
    }

    fn poll(waiter: &mut Waiter<u8>, woken: &Arc<Count>) -> Poll<Option<u8>> {
        waiter.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
    }

    #[test]
    fn one_waiter_of_a_thread_is_woken_and_wakes_the_others() {
        let group = Group::default();
        let mut here = waiters(&group, 3);
        let there = std::thread::scope(|scope| scope.spawn(|| waiters(&group, 2)).join().unwrap());
        let mut stragglers = Stragglers::default();
        group.end(7, &mut stragglers);
        let counts = |waiters: &[(_, Arc<Count>)]| waiters.iter().map(|(_, woken)| woken.get()).collect::<Vec<_>>();
        assert_eq!((counts(&here), counts(&there)), (vec![1, 0, 0], vec![1, 0]));
        let (waiter, woken) = &mut here[0];
        assert_eq!(poll(waiter.as_mut().unwrap(), woken), Poll::Ready(Some(7)));
        assert_eq!((counts(&here), counts(&there)), (vec![1, 1, 1], vec![1, 0]));
        assert!(stragglers.wake().is_some(), "the waiter of the other thread has its grace period");
        std::thread::sleep(TIME_TO_WAKE);
        assert_eq!((stragglers.wake(), counts(&there)), (None, vec![1, 1]));
    }

    #[test]
    fn waiters_of_a_dropped_group_get_none() {
        let group = Group::default();
        let mut waiters = waiters(&group, 1);
        drop(group);
        let (waiter, woken) = &mut waiters[0];
        assert_eq!(woken.get(), 1);
        assert_eq!(poll(waiter.as_mut().unwrap(), woken), Poll::Ready(None));
    }

    #[tokio::test(start_paused = true)]
    async fn each_waiter_waits_for_its_patience_and_no_longer() {
        let group = Group::<u8>::default();
        let began = Instant::now();
        let wait = async |patience: u64| {
            let waiter = group.join(Some(Duration::from_secs(patience)));
            assert_eq!(waiter.await, None);
            assert_eq!(began.elapsed().as_secs(), patience);
        };
        join_all([5, 2, 9, 9, 3].map(wait)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_waiter_hands_its_timer_on() {
        let group = Group::<u8>::default();
        let mut waiters: Vec<_> =
            (5..9).map(|patience| Box::pin(group.join(Some(Duration::from_secs(patience))))).collect();
        let began = Instant::now();
        join_all(waiters.iter_mut().map(|waiter| timeout(Duration::from_secs(1), waiter))).await;
        // The second waiter is woken to take the timer over, and is dropped before it is polled.
        waiters.drain(..2);
        assert_eq!(join_all(waiters).await, [None, None]);
        assert_eq!(began.elapsed().as_secs(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_does_not_end_does_not_grow() {
        let group = Group::<u8>::default();
        for _ in 0..1000 {
            join_all((0..3).map(|_| group.join(Some(Duration::from_secs(1))))).await;
        }
        let cohorts = group.0.lock();
        let places: usize = cohorts.0.iter().map(|cohort| cohort.wakers.len()).sum();
        assert!(places <= 3, "{places}");
    }

    proptest! {
        /// Any waiter may be dropped at any moment: the others are woken, if each woken waiter is polled or dropped.
        #[test]
        fn no_waiter_is_left_waiting(count in 1..8usize, before in any::<u8>(), after in any::<u8>()) {
            let group = Group::default();
            let mut waiters = waiters(&group, count);
            let is_in = |set: u8, at: usize| set >> at & 1 == 1;
            for (at, (waiter, _)) in waiters.iter_mut().enumerate() {
                waiter.take_if(|_| is_in(before, at));
            }
            group.end(7, &mut Stragglers::default());
            loop {
                let mut acted = false;
                for (at, (place, woken)) in waiters.iter_mut().enumerate() {
                    let Some(waiter) = place.as_mut().filter(|_| woken.get() > 0) else { continue };
                    if !is_in(after, at) {
                        prop_assert_eq!(poll(waiter, woken), Poll::Ready(Some(7)));
                    }
                    *place = None;
                    acted = true;
                }
                if !acted {
                    break;
                }
            }
            prop_assert!(waiters.iter().all(|(waiter, _)| waiter.is_none()));
        }
    }
}
