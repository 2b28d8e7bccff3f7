//! Those who wait for the same thing are told of it together.
//!
//! To wake a task from a thread outside of its runtime costs a lock and often a system call; from within, next to nothing.
//! So of those who wait on one thread a single one is woken from outside, and wakes the others when it is polled, or when
//! it is dropped. In the same way a single one of them has a timer at a time.

pub(crate) mod crowd;

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
pub(crate) use self::crowd::GATHER;
pub(crate) use self::crowd::{Crowd, HasCrowd, gather, idle};

/// What many wait for. Dropped, it tells them that nothing comes.
pub(crate) struct Round<T>(Arc<Shared<T>>);

/// The place of one who waits: `None` if the round was dropped, or took too long.
#[must_use]
pub(crate) struct Seat<T> {
    round: Arc<Shared<T>>,
    /// Which group, and where in it.
    place: Option<(usize, usize)>,
    ends: Option<Instant>,
    /// One in a group has a timer, and one who ends before that.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Rounds that have ended, and in which somebody may not have been woken yet: a task that is woken need not poll, and so
/// who was to wake the others may never come to it.
pub(crate) struct Recent<T>(VecDeque<(StdInstant, Arc<Shared<T>>)>);

/// How long who was woken has for waking the others.
const TIME_TO_WAKE: Duration = Duration::from_millis(20);

impl<T> Round<T> {
    /// One more waits for it, for so long at most.
    pub(crate) fn join(&self, patience: Option<Duration>) -> Seat<T> {
        // Beyond all time there is no end.
        let ends = patience.and_then(|patience| Instant::now().checked_add(patience));
        Seat { round: Arc::clone(&self.0), place: None, ends, timer: None }
    }

    /// Tells all who wait.
    pub(crate) fn end(self, outcome: T, recent: &mut Recent<T>) {
        if self.0.end(Some(outcome)) {
            recent.0.push_back((StdInstant::now() + TIME_TO_WAKE, Arc::clone(&self.0)));
        }
    }
}

impl<T> Recent<T> {
    /// Wakes whoever should have been woken by now. Returns when to look again.
    pub(crate) fn wake(&mut self) -> Option<StdInstant> {
        while let Some((due, round)) = self.0.front() {
            if *due > StdInstant::now() {
                return Some(*due);
            }
            let groups = std::mem::take(&mut *round.lock());
            groups.0.into_iter().flat_map(|group| group.wakers).flatten().for_each(Waker::wake);
            self.0.pop_front();
        }
        None
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Drop for Round<T> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl<T: Clone> Future for Seat<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        if let Some(outcome) = this.round.outcome.get() {
            let outcome = outcome.clone();
            this.leave();
            return Poll::Ready(outcome);
        }
        let mut groups = this.round.lock();
        // Set behind the same lock.
        if let Some(outcome) = this.round.outcome.get() {
            let outcome = outcome.clone();
            drop(groups);
            this.leave();
            return Poll::Ready(outcome);
        }
        let group = groups.sit(&mut this.place, this.ends.is_some(), cx.waker());
        if let Some(ends) = this.ends.filter(|ends| group.timer.is_none_or(|timer| *ends < timer)) {
            group.timer = Some(ends);
            this.timer.get_or_insert_with(|| Box::pin(sleep_until(ends)));
        }
        drop(groups);
        match &mut this.timer {
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}

impl<T> Seat<T> {
    /// Wakes the others of its group, if the round has ended and nobody has done so before.
    fn leave(&mut self) {
        let Some((at, _)) = self.place.take() else { return };
        if self.round.asleep.load(Ordering::Acquire) > 0 {
            let fellows = self.round.lock().dissolve(at);
            if let Some(fellows) = fellows {
                self.round.asleep.fetch_sub(1, Ordering::Relaxed);
                fellows.into_iter().flatten().for_each(Waker::wake);
            }
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let Some((at, seat)) = self.place else { return };
        let mut groups = self.round.lock();
        if self.round.outcome.get().is_some() {
            drop(groups);
            // It may be the one who was to wake the others.
            return self.leave();
        }
        let group = &mut groups.0[at];
        group.wakers[seat] = None;
        group.free.push(seat);
        group.timer.take_if(|_| self.timer.is_some());
        // Whoever is polled next takes one.
        let is_missed = group.is_timed && group.timer.is_none();
        let next = group.wakers.iter().flatten().next().filter(|_| is_missed).cloned();
        drop(groups);
        next.into_iter().for_each(Waker::wake);
    }
}

struct Shared<T> {
    groups: Mutex<Groups>,
    /// Of a round that has ended.
    outcome: OnceLock<Option<T>>,
    /// How many groups have somebody who has not been woken, once the round has ended.
    asleep: AtomicUsize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { groups: Mutex::default(), outcome: OnceLock::new(), asleep: AtomicUsize::new(0) }
    }
}

#[derive(Default)]
struct Groups(Vec<Group>);

/// Those who wait on one thread, either with or without an end.
struct Group {
    thread: usize,
    is_timed: bool,
    wakers: Vec<Option<Waker>>,
    /// Places of those who gave up: a round that does not end must not grow for ever.
    free: Vec<usize>,
    /// When the one who has a timer looks after the others.
    timer: Option<Instant>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        lock(&self.groups)
    }

    /// Whether somebody is left to be woken by others. The first end counts.
    fn end(&self, outcome: Option<T>) -> bool {
        let mut groups = self.lock();
        let woken: Vec<_> = match self.outcome.get() {
            Some(_) => return false,
            None => groups.0.iter_mut().filter_map(|group| group.wakers.iter_mut().find_map(Option::take)).collect(),
        };
        let asleep = groups.0.iter().filter(|group| group.wakers.iter().any(Option::is_some)).count();
        self.asleep.store(asleep, Ordering::Release);
        let _ = self.outcome.set(outcome);
        drop(groups);
        woken.into_iter().for_each(Waker::wake);
        asleep > 0
    }
}

impl Groups {
    /// Takes a place in the group of this thread, or keeps the one it has.
    fn sit(&mut self, place: &mut Option<(usize, usize)>, is_timed: bool, waker: &Waker) -> &mut Group {
        let groups = &mut self.0;
        if let Some((at, seat)) = *place {
            let group = &mut groups[at];
            match &mut group.wakers[seat] {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return group;
        }
        let thread = this_thread();
        let is_mine = |group: &Group| group.thread == thread && group.is_timed == is_timed;
        let at = groups.iter().position(is_mine).unwrap_or_else(|| {
            groups.push(Group { thread, is_timed, wakers: Vec::new(), free: Vec::new(), timer: None });
            groups.len() - 1
        });
        let group = &mut groups[at];
        let seat = group.free.pop().unwrap_or(group.wakers.len());
        *place = Some((at, seat));
        match group.wakers.get_mut(seat) {
            Some(free) => *free = Some(waker.clone()),
            None => group.wakers.push(Some(waker.clone())),
        }
        group
    }

    /// Those of a group who are still to be woken, if there are any.
    fn dissolve(&mut self, group: usize) -> Option<Vec<Option<Waker>>> {
        let wakers = std::mem::take(&mut self.0.get_mut(group)?.wakers);
        wakers.iter().any(Option::is_some).then_some(wakers)
    }
}

/// Tells threads apart that live at the same time.
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

    /// Counts how often it is woken.
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

    /// Seats of this thread, each polled once with a waker of its own.
    fn seats(round: &Round<u8>, count: usize) -> Vec<(Option<Seat<u8>>, Arc<Count>)> {
        let sit = |_| {
            let (mut seat, woken) = (round.join(Some(Duration::MAX)), Arc::<Count>::default());
            assert!(poll(&mut seat, &woken).is_pending());
            (Some(seat), woken)
        };
        (0..count).map(sit).collect()
    }

    fn poll(seat: &mut Seat<u8>, woken: &Arc<Count>) -> Poll<Option<u8>> {
        seat.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
    }

    #[test]
    fn one_of_a_thread_is_woken_and_wakes_the_others() {
        let round = Round::default();
        let mut here = seats(&round, 3);
        let there = std::thread::scope(|scope| scope.spawn(|| seats(&round, 2)).join().unwrap());
        let mut recent = Recent::default();
        round.end(7, &mut recent);
        let counts = |seats: &[(_, Arc<Count>)]| seats.iter().map(|(_, woken)| woken.get()).collect::<Vec<_>>();
        assert_eq!((counts(&here), counts(&there)), (vec![1, 0, 0], vec![1, 0]));
        let (seat, woken) = &mut here[0];
        assert_eq!(poll(seat.as_mut().unwrap(), woken), Poll::Ready(Some(7)));
        assert_eq!((counts(&here), counts(&there)), (vec![1, 1, 1], vec![1, 0]));
        assert!(recent.wake().is_some(), "the one of the other thread has its time");
        std::thread::sleep(TIME_TO_WAKE);
        assert_eq!((recent.wake(), counts(&there)), (None, vec![1, 1]));
    }

    #[test]
    fn a_round_that_is_dropped_tells_it() {
        let round = Round::default();
        let mut seats = seats(&round, 1);
        drop(round);
        let (seat, woken) = &mut seats[0];
        assert_eq!(woken.get(), 1);
        assert_eq!(poll(seat.as_mut().unwrap(), woken), Poll::Ready(None));
    }

    #[tokio::test(start_paused = true)]
    async fn each_waits_as_long_as_it_may_and_no_longer() {
        let round = Round::<u8>::default();
        let began = Instant::now();
        let wait = async |patience: u64| {
            let seat = round.join(Some(Duration::from_secs(patience)));
            assert_eq!(seat.await, None);
            assert_eq!(began.elapsed().as_secs(), patience);
        };
        join_all([5, 2, 9, 9, 3].map(wait)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_hands_the_timer_on() {
        let round = Round::<u8>::default();
        let mut seats: Vec<_> =
            (5..9).map(|patience| Box::pin(round.join(Some(Duration::from_secs(patience))))).collect();
        let began = Instant::now();
        join_all(seats.iter_mut().map(|seat| timeout(Duration::from_secs(1), seat))).await;
        // The second is woken to take the timer, and is gone before it is polled.
        seats.drain(..2);
        assert_eq!(join_all(seats).await, [None, None]);
        assert_eq!(began.elapsed().as_secs(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_does_not_end_does_not_grow() {
        let round = Round::<u8>::default();
        for _ in 0..1000 {
            join_all((0..3).map(|_| round.join(Some(Duration::from_secs(1))))).await;
        }
        let groups = round.0.lock();
        let places: usize = groups.0.iter().map(|group| group.wakers.len()).sum();
        assert!(places <= 3, "{places}");
    }

    proptest! {
        /// Whoever hangs up, at whatever moment: the others are woken, if each that is woken is polled or dropped.
        #[test]
        fn nobody_is_left_waiting(count in 1..8usize, before in any::<u8>(), after in any::<u8>()) {
            let round = Round::default();
            let mut seats = seats(&round, count);
            let is_in = |set: u8, at: usize| set >> at & 1 == 1;
            for (at, (seat, _)) in seats.iter_mut().enumerate() {
                seat.take_if(|_| is_in(before, at));
            }
            round.end(7, &mut Recent::default());
            loop {
                let mut acted = false;
                for (at, (place, woken)) in seats.iter_mut().enumerate() {
                    let Some(seat) = place.as_mut().filter(|_| woken.get() > 0) else { continue };
                    if !is_in(after, at) {
                        prop_assert_eq!(poll(seat, woken), Poll::Ready(Some(7)));
                    }
                    *place = None;
                    acted = true;
                }
                if !acted {
                    break;
                }
            }
            prop_assert!(seats.iter().all(|(seat, _)| seat.is_none()));
        }
    }
}
