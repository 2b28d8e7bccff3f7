//! Runs checks of hashes on separate threads.
//!
//! A check can take a core for a tenth of a second, and 64 MiB. So only few checks run at a time, and only few wait. The owners,
//! which are the guards of webhooks, take turns: somebody who guesses passwords delays only the webhook under attack.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use tokio::sync::oneshot;

use super::password::Memory;
use crate::base::lock::lock;

/// How many checks of an owner may wait, and how many of all owners.
const MAX_OF_OWNER: usize = 16;
const MAX_WAITING: usize = 256;

/// How many threads may run checks.
const MAX_THREADS: usize = 4;

/// A check that takes long. Equal checks of an owner run once.
pub(super) trait Check: Send + Sync + 'static {
    type Found: Clone + Send;

    /// Whether both checks have the same result.
    fn is_same(&self, other: &Self) -> bool;

    /// Runs the check, which takes long.
    fn run(&self, memory: &mut Memory) -> Self::Found;
}

/// A guard that submits checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

/// The checks that are waiting or running.
pub(super) struct Checks<C: Check> {
    max_threads: usize,
    state: Mutex<State<C>>,
}

struct State<C: Check> {
    owners: u64,
    threads: usize,
    /// The waiting checks of each owner. It is the first owner's turn.
    waiting: VecDeque<(Owner, VecDeque<Task<C>>)>,
    running: Vec<(Owner, Arc<C>, Vec<oneshot::Sender<C::Found>>)>,
}

struct Task<C: Check> {
    check: Arc<C>,
    senders: Vec<oneshot::Sender<C::Found>>,
}

/// There is no room for another check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<C: Check> Checks<C> {
    /// Uses half of the cores, and at most 4.
    pub(super) fn new() -> Arc<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads((cores / 2).clamp(1, MAX_THREADS))
    }

    pub(super) fn with_threads(max_threads: usize) -> Arc<Self> {
        let state = State { owners: 0, threads: 0, waiting: VecDeque::new(), running: Vec::new() };
        Arc::new(Self { max_threads, state: Mutex::new(state) })
    }

    pub(super) fn owner(&self) -> Owner {
        let mut state = self.lock();
        state.owners += 1;
        Owner(state.owners)
    }

    /// Submits a check. The result comes through the channel, which is closed if there will be none. A check does not begin
    /// after all its receivers have been dropped.
    pub(super) fn begin(self: &Arc<Self>, owner: Owner, check: C) -> Result<oneshot::Receiver<C::Found>, Full> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        match state.same(owner, &check) {
            Some(senders) => senders.push(sender),
            None => state.add(owner, Task { check: Arc::new(check), senders: vec![sender] })?,
        }
        if state.threads < self.max_threads {
            let place = Place::take(self, &mut state);
            drop(state);
            // Without a new thread, the closure is dropped, and with it the place.
            let _ = thread::Builder::new().name("password-check".to_owned()).spawn(move || place.work());
        }
        Ok(receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        lock(&self.state)
    }
}

impl<C: Check> State<C> {
    /// The senders of an equal check that is waiting or running.
    fn same(&mut self, owner: Owner, check: &C) -> Option<&mut Vec<oneshot::Sender<C::Found>>> {
        let running = self.running.iter_mut().filter(|(other, running, _)| *other == owner && running.is_same(check));
        let waiting = self.waiting.iter_mut().filter(|(other, _)| *other == owner).flat_map(|(_, tasks)| tasks);
        let waiting = waiting.filter(|task| task.check.is_same(check)).map(|task| &mut task.senders);
        running.map(|(_, _, senders)| senders).chain(waiting).next()
    }

    fn add(&mut self, owner: Owner, task: Task<C>) -> Result<(), Full> {
        for (_, tasks) in &mut self.waiting {
            tasks.retain(Task::is_wanted);
        }
        if self.waiting.iter().map(|(_, tasks)| tasks.len()).sum::<usize>() >= MAX_WAITING {
            return Err(Full);
        }
        match self.waiting.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, tasks)) if tasks.len() >= MAX_OF_OWNER => return Err(Full),
            Some((_, tasks)) => tasks.push_back(task),
            None => self.waiting.push_back((owner, [task].into())),
        }
        Ok(())
    }

    /// The next check. Its owner then goes to the end of the line.
    fn next(&mut self) -> Option<(Owner, Task<C>)> {
        loop {
            let (owner, mut tasks) = self.waiting.pop_front()?;
            let task = tasks.pop_front();
            if !tasks.is_empty() {
                self.waiting.push_back((owner, tasks));
            }
            if let Some(task) = task.filter(Task::is_wanted) {
                return Some((owner, task));
            }
        }
    }

    fn give_place_back(&mut self) {
        self.threads = self.threads.saturating_sub(1);
        // No thread is left for the waiting checks, so their channels are closed.
        if self.threads == 0 {
            self.waiting.clear();
        }
    }
}

impl<C: Check> Task<C> {
    fn is_wanted(&self) -> bool {
        self.senders.iter().any(|sender| !sender.is_closed())
    }
}

/// The place of a running thread. Dropping it gives the place back.
struct Place<C: Check> {
    checks: Arc<Checks<C>>,
    is_given_back: bool,
}

impl<C: Check> Place<C> {
    fn take(checks: &Arc<Checks<C>>, state: &mut State<C>) -> Self {
        state.threads += 1;
        Self { checks: Arc::clone(checks), is_given_back: false }
    }

    /// Runs checks until none is waiting.
    fn work(mut self) {
        let mut memory = Memory::default();
        while let Some(check) = self.next() {
            let running = Running { checks: &self.checks, check: &check };
            let found = check.run(&mut memory);
            for sender in running.end() {
                // The receiver may have been dropped.
                let _ = sender.send(found.clone());
            }
        }
    }

    /// The next check, which counts as running. If there is none, the place is given back before anybody can add one.
    fn next(&mut self) -> Option<Arc<C>> {
        let mut state = self.checks.lock();
        let Some((owner, Task { check, senders })) = state.next() else {
            state.give_place_back();
            self.is_given_back = true;
            return None;
        };
        state.running.push((owner, Arc::clone(&check), senders));
        Some(check)
    }
}

impl<C: Check> Drop for Place<C> {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.checks.lock().give_place_back();
        }
    }
}

/// A running check. If it panics, its channels are closed.
struct Running<'a, C: Check> {
    checks: &'a Checks<C>,
    check: &'a Arc<C>,
}

impl<C: Check> Running<'_, C> {
    fn end(self) -> Vec<oneshot::Sender<C::Found>> {
        self.take()
    }

    fn take(&self) -> Vec<oneshot::Sender<C::Found>> {
        let mut state = self.checks.lock();
        let at = state.running.iter().position(|(_, check, _)| Arc::ptr_eq(check, self.check));
        at.map(|at| state.running.swap_remove(at).2).unwrap_or_default()
    }
}

impl<C: Check> Drop for Running<'_, C> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Returns its number as soon as the test lets it.
    struct Number {
        number: u32,
        begun: mpsc::SyncSender<u32>,
        may_end: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Check for Number {
        type Found = u32;

        fn is_same(&self, other: &Self) -> bool {
            self.number == other.number
        }

        fn run(&self, _: &mut Memory) -> u32 {
            self.begun.send(self.number).unwrap();
            lock(&self.may_end).recv().unwrap();
            assert!(self.number != PANICS, "as it should");
            self.number
        }
    }

    const PANICS: u32 = 1000;
    const LONG: Duration = Duration::from_secs(60);

    struct Bench {
        checks: Arc<Checks<Number>>,
        begun: mpsc::Receiver<u32>,
        begin: mpsc::SyncSender<u32>,
        may_end: Arc<Mutex<mpsc::Receiver<()>>>,
        end: mpsc::SyncSender<()>,
    }

    impl Bench {
        fn new(threads: usize) -> Self {
            let (begin, begun) = mpsc::sync_channel(1000);
            let (end, may_end) = mpsc::sync_channel(1000);
            let may_end = Arc::new(Mutex::new(may_end));
            Self { checks: Checks::with_threads(threads), begun, begin, may_end, end }
        }

        fn begin(&self, owner: Owner, number: u32) -> Result<oneshot::Receiver<u32>, Full> {
            let check = Number { number, begun: self.begin.clone(), may_end: Arc::clone(&self.may_end) };
            self.checks.begin(owner, check)
        }

        fn next(&self) -> u32 {
            self.begun.recv_timeout(LONG).unwrap()
        }

        fn let_end(&self, count: usize) {
            (0..count).for_each(|_| self.end.send(()).unwrap());
        }
    }

    #[test]
    fn each_gets_what_its_check_finds() {
        let bench = Bench::new(2);
        let owner = bench.checks.owner();
        bench.let_end(5);
        let found: Vec<_> = (0..5).map(|number| bench.begin(owner, number).unwrap()).collect();
        let found: Vec<_> = found.into_iter().map(|found| found.blocking_recv().unwrap()).collect();
        assert_eq!(found, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn equal_checks_are_done_once_whether_they_wait_or_run() {
        let bench = Bench::new(1);
        let (owner, other) = (bench.checks.owner(), bench.checks.owner());
        let running = [bench.begin(owner, 1), bench.begin(owner, 1)];
        assert_eq!(bench.next(), 1);
        let more = [bench.begin(owner, 1), bench.begin(owner, 2), bench.begin(owner, 2)];
        let others = bench.begin(other, 1).unwrap();
        bench.let_end(10);
        for found in running.into_iter().chain(more) {
            assert!(found.unwrap().blocking_recv().is_ok());
        }
        assert_eq!(others.blocking_recv(), Ok(1));
        drop(bench.begin);
        assert_eq!(bench.begun.iter().count(), 2, "one for each owner that is left, and no more");
    }

    #[test]
    fn owners_take_turns() {
        let bench = Bench::new(1);
        let owners = [bench.checks.owner(), bench.checks.owner(), bench.checks.owner()];
        let mut found = vec![bench.begin(owners[0], 0).unwrap()];
        assert_eq!(bench.next(), 0);
        for (owner, numbers) in [(0, 1..4), (1, 11..13), (2, 21..22)] {
            found.extend(numbers.map(|number| bench.begin(owners[owner], number).unwrap()));
        }
        bench.let_end(7);
        let order: Vec<_> = (0..6).map(|_| bench.next()).collect();
        assert_eq!(order, [1, 11, 21, 2, 12, 3]);
        for found in found {
            found.blocking_recv().unwrap();
        }
    }

    #[test]
    fn few_wait_of_an_owner_and_few_of_all() {
        let bench = Bench::new(1);
        let first = bench.checks.owner();
        let running = bench.begin(first, 999);
        assert_eq!(bench.next(), 999);
        let mut waiting = Vec::new();
        for owner in 0..MAX_WAITING / MAX_OF_OWNER {
            let owner = if owner == 0 { first } else { bench.checks.owner() };
            waiting.extend((0..16).map(|number| bench.begin(owner, number).unwrap()));
            assert_eq!(bench.begin(owner, 16).err(), Some(Full));
        }
        let late = bench.checks.owner();
        assert_eq!(bench.begin(late, 0).err(), Some(Full));
        // A dropped receiver makes room.
        drop(waiting.pop());
        let late = bench.begin(late, 0).unwrap();
        bench.let_end(MAX_WAITING + 1);
        assert_eq!(late.blocking_recv(), Ok(0));
        for found in waiting.into_iter().chain(running) {
            found.blocking_recv().unwrap();
        }
    }

    #[test]
    fn a_check_that_nobody_waits_for_is_not_begun() {
        let bench = Bench::new(1);
        let owner = bench.checks.owner();
        let running = bench.begin(owner, 0).unwrap();
        assert_eq!(bench.next(), 0);
        drop(bench.begin(owner, 1));
        let wanted = bench.begin(owner, 2).unwrap();
        bench.let_end(2);
        assert_eq!(bench.next(), 2);
        assert_eq!((running.blocking_recv(), wanted.blocking_recv()), (Ok(0), Ok(2)));
    }

    #[test]
    fn a_check_that_panics_finds_nothing_and_the_next_one_goes_on() {
        let bench = Bench::new(1);
        let owner = bench.checks.owner();
        let panics = bench.begin(owner, PANICS).unwrap();
        bench.let_end(1);
        assert!(panics.blocking_recv().is_err());
        bench.let_end(2);
        // A check that is submitted while the thread unwinds may end with it.
        let next = (0..).find_map(|_| bench.begin(owner, 1).unwrap().blocking_recv().ok());
        assert_eq!(next, Some(1));
    }

    #[test]
    fn no_thread_is_left_when_there_is_no_more_to_do() {
        let bench = Bench::new(2);
        let owner = bench.checks.owner();
        bench.let_end(20);
        for number in 0..20 {
            assert_eq!(bench.begin(owner, number).unwrap().blocking_recv(), Ok(number));
        }
        let idle = (0..6000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            let state = bench.checks.lock();
            state.threads == 0 && state.running.is_empty() && state.waiting.is_empty()
        });
        assert!(idle);
    }
}
