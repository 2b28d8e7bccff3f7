//! Which events are being processed, and which were taken. No clock: who calls says what time it is.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use http::StatusCode;
use uuid::Uuid;

use super::rule::{Event, MAX_TTL};

/// What the sender of an event was answered. Of the answer no more is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What [`EVENT_ID`](crate::dispatch::EVENT_ID) said; nil if nothing, or no UUID.
    pub(super) event_id: Uuid,
}

/// An event that was taken. Times are in seconds: in a [`Table`] since this process's start, in the journal since 1970, so
/// that they mean the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) answer: Answer,
    pub(super) at: u32,
    /// The last second in which it is remembered.
    pub(super) until: u32,
}

/// What is known of an event that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it is being processed from now on.
    First,
    /// It is being processed.
    Pending,
    /// It was taken.
    Taken(Answer),
}

/// A part of all events.
///
/// An entry takes about a hundred bytes: 41 in the map and 24 in a queue, and the room that both keep to grow.
#[derive(Debug)]
pub(super) struct Table {
    events: HashMap<Event, Option<Remembered>, RandomState>,
    /// The taken events by the order of magnitude of the time they are remembered for, each queue in the order in which
    /// they were taken. What stands at the head of one is the oldest of its kind, and holds up no other for longer than
    /// that has to stay itself.
    queues: [VecDeque<Due>; QUEUES],
    /// Those of an earlier process whose age is not known yet, with times since 1970. They are remembered until it is.
    undated: VecDeque<Due>,
    max_taken: usize,
    forgotten: u64,
}

const QUEUES: usize = MAX_TTL.as_secs().ilog2() as usize + 1;

/// How many queue heads a call looks at, so that none takes long: more than a call adds.
const SWEEP: usize = 4;

/// `None` in the map is an event that is being processed.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    answer: Answer,
    until: u32,
    is_undated: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    event: Event,
    at: u32,
    until: u32,
}

impl Table {
    pub(super) fn new(max_taken: usize) -> Self {
        Self {
            events: HashMap::default(),
            queues: Default::default(),
            undated: VecDeque::new(),
            max_taken: max_taken.max(1),
            forgotten: 0,
        }
    }

    /// What is known of `event`; if nothing is, it is now pending.
    pub(super) fn claim(&mut self, event: Event, now: u32) -> Known {
        self.sweep(now);
        match self.events.get(&event) {
            Some(None) => Known::Pending,
            Some(Some(remembered)) if remembered.is_undated || now <= remembered.until => {
                Known::Taken(remembered.answer)
            }
            // What is left of it in a queue is told from what follows by its time.
            Some(Some(_)) | None => {
                self.events.insert(event, None);
                Known::First
            }
        }
    }

    /// A pending event was not taken: the next one of the same id is a first one again.
    pub(super) fn release(&mut self, event: Event) {
        if let Some(None) = self.events.get(&event) {
            self.events.remove(&event);
        }
    }

    /// The event was taken. If there are too many, the oldest is forgotten.
    pub(super) fn take(&mut self, event: Event, taken: Taken) {
        let remembered = Remembered { answer: taken.answer, until: taken.until, is_undated: false };
        self.events.insert(event, Some(remembered));
        self.queue(Due { event, at: taken.at, until: taken.until });
        while self.taken() > self.max_taken {
            let was_remembered = self.forget_oldest();
            self.forgotten += u64::from(was_remembered);
        }
    }

    /// The event was taken by an earlier process, by its wall clock then. The oldest come first.
    #[cfg(any(test, feature = "spool"))]
    pub(super) fn recover(&mut self, event: Event, taken: Taken) {
        let remembered = Remembered { answer: taken.answer, until: taken.until, is_undated: true };
        self.events.insert(event, Some(remembered));
        self.undated.push_back(Due { event, at: taken.at, until: taken.until });
        while self.taken() > self.max_taken {
            self.forget_oldest();
        }
    }

    /// Whether there are events whose age is not known.
    pub(super) fn has_undated(&self) -> bool {
        !self.undated.is_empty()
    }

    /// The time is known: `wall` since 1970, `now` since the start. From here on what was recovered has its age.
    pub(super) fn date(&mut self, wall: u32, now: u32) {
        for due in std::mem::take(&mut self.undated) {
            let Some(Some(known)) = self.events.get_mut(&due.event) else { continue };
            if !known.is_undated || known.until != due.until {
                continue;
            }
            // Of a clock that was ahead: it is remembered for its whole time, and no longer.
            let left = due.until.checked_sub(wall).map(|left| left.min(due.until.saturating_sub(due.at)));
            match left {
                None => drop(self.events.remove(&due.event)),
                Some(left) => {
                    (known.until, known.is_undated) = (now.saturating_add(left), false);
                    let until = known.until;
                    // Each is older than anything that this process has taken.
                    self.queue(Due { event: due.event, at: 0, until });
                }
            }
        }
    }

    fn queue(&mut self, due: Due) {
        let queue = due.until.saturating_sub(due.at).max(1).ilog2() as usize;
        self.queues[queue.min(QUEUES - 1)].push_back(due);
    }

    fn taken(&self) -> usize {
        self.undated.len() + self.queues.iter().map(VecDeque::len).sum::<usize>()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// How many events were forgotten before their time.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn sweep(&mut self, now: u32) {
        let mut left = SWEEP;
        for queue in &mut self.queues {
            while left > 0 && queue.front().is_some_and(|due| due.until < now) {
                left -= 1;
                if let Some(due) = queue.pop_front() {
                    remove(&mut self.events, due);
                }
            }
        }
    }

    /// Whether it was remembered still.
    fn forget_oldest(&mut self) -> bool {
        if let Some(due) = self.undated.pop_front() {
            return remove(&mut self.events, due);
        }
        let oldest = self.queues.iter_mut().filter(|queue| !queue.is_empty());
        let oldest = oldest.min_by_key(|queue| queue.front().map(|due| due.at));
        oldest.and_then(VecDeque::pop_front).is_some_and(|due| remove(&mut self.events, due))
    }
}

/// Removes the event unless it has been claimed again since.
fn remove(events: &mut HashMap<Event, Option<Remembered>, RandomState>, due: Due) -> bool {
    let is_it = matches!(events.get(&due.event), Some(Some(remembered)) if remembered.until == due.until);
    if is_it {
        events.remove(&due.event);
    }
    is_it
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(number: u8) -> Event {
        Event([number; 16])
    }

    fn answer(number: u128) -> Answer {
        Answer { status: StatusCode::OK, event_id: Uuid::from_u128(number) }
    }

    fn taken(number: u128, at: u32, ttl: u32) -> Taken {
        Taken { answer: answer(number), at, until: at + ttl }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<(Event, Option<Remembered>)>(), 40);
        assert_eq!(size_of::<Due>(), 24);
    }

    #[test]
    fn a_second_one_waits_for_the_first_and_gets_its_answer() {
        let mut table = Table::new(10);
        assert_eq!(table.claim(event(1), 100), Known::First);
        assert_eq!(table.claim(event(1), 100), Known::Pending);
        assert_eq!(table.claim(event(2), 100), Known::First);
        table.take(event(1), taken(7, 101, 10));
        assert_eq!(table.claim(event(1), 111), Known::Taken(answer(7)));
        assert_eq!(table.claim(event(1), 112), Known::First, "its time is over");
        assert_eq!(table.claim(event(2), 1_000_000), Known::Pending, "what is pending has no time");
    }

    #[test]
    fn what_is_released_is_a_first_one_again() {
        let mut table = Table::new(10);
        table.claim(event(1), 100);
        table.release(event(1));
        assert_eq!(table.len(), 0);
        assert_eq!(table.claim(event(1), 100), Known::First);
        table.take(event(1), taken(7, 100, 10));
        table.release(event(1));
        assert_eq!(table.claim(event(1), 100), Known::Taken(answer(7)), "only what is pending is released");
    }

    #[test]
    fn when_it_is_full_the_oldest_is_forgotten_and_nothing_pending() {
        let mut table = Table::new(2);
        for pending in 10..20 {
            assert_eq!(table.claim(event(pending), 0), Known::First);
        }
        table.take(event(1), taken(1, 100, 1_000_000));
        table.take(event(2), taken(2, 101, 10));
        table.take(event(3), taken(3, 102, 1000));
        assert_eq!(table.forgotten(), 1);
        assert_eq!(table.claim(event(2), 102), Known::Taken(answer(2)));
        assert_eq!(table.claim(event(3), 102), Known::Taken(answer(3)));
        assert_eq!(table.claim(event(1), 102), Known::First, "it was the oldest, though not the first to expire");
        for pending in 10..20 {
            assert_eq!(table.claim(event(pending), 102), Known::Pending);
        }
    }

    #[test]
    fn what_an_earlier_process_has_taken_is_remembered_until_the_time_is_known() {
        const WALL: u32 = 1_795_410_874;
        let mut table = Table::new(10);
        table.recover(event(1), taken(1, WALL - 1000, 10));
        table.recover(event(2), taken(2, WALL - 1000, 1600));
        // Of a clock that was a year ahead, and of one that had not been set.
        table.recover(event(3), taken(3, WALL + 365 * 86_400, 100));
        table.recover(event(4), taken(4, 5, 100));
        // Taken again, once the first one's time was over.
        table.recover(event(5), taken(5, WALL - 5000, 10));
        table.recover(event(5), taken(6, WALL - 100, 1000));
        for (number, now) in [(1, 0), (2, 0), (3, 599), (4, 599)] {
            assert_eq!(table.claim(event(number), now), Known::Taken(answer(number.into())));
        }
        assert!(table.has_undated());
        table.date(WALL, 600);
        assert!(!table.has_undated());
        for number in [1, 4] {
            assert_eq!(table.claim(event(number), 600), Known::First, "{number}: its time is over");
        }
        assert_eq!(table.claim(event(3), 700), Known::Taken(answer(3)), "for its whole time");
        assert_eq!(table.claim(event(3), 701), Known::First, "and no longer");
        assert_eq!(table.claim(event(2), 1200), Known::Taken(answer(2)));
        assert_eq!(table.claim(event(2), 1201), Known::First);
        assert_eq!(table.claim(event(5), 1500), Known::Taken(answer(6)));
        assert_eq!(table.claim(event(5), 1501), Known::First);
    }

    #[test]
    fn what_an_earlier_process_has_taken_is_the_oldest() {
        for is_dated in [false, true] {
            let mut table = Table::new(3);
            for number in 1..=5 {
                table.recover(event(number), taken(1, 1_795_410_874, 100_000));
            }
            assert_eq!((table.len(), table.forgotten()), (3, 0), "no more than there is room for");
            if is_dated {
                table.date(1_795_410_900, 700);
            }
            table.take(event(6), taken(6, 700, 10));
            assert_eq!((table.len(), table.forgotten()), (3, 1));
            assert_eq!(table.claim(event(6), 700), Known::Taken(answer(6)));
            assert_eq!(table.claim(event(3), 700), Known::First);
            assert_eq!(table.claim(event(5), 700), Known::Taken(answer(1)));
        }
    }

    #[test]
    fn what_has_expired_is_removed_as_others_come() {
        let mut table = Table::new(1000);
        for number in 0..100 {
            table.take(event(number), taken(1, 100, 10 + u32::from(number)));
        }
        for _ in 0..100 {
            table.claim(event(200), 1000);
        }
        assert_eq!(table.len(), 1);
        assert_eq!(table.forgotten(), 0);
    }

    #[test]
    fn an_event_that_comes_again_outlives_what_is_left_of_the_first() {
        let mut table = Table::new(1000);
        // Holds up the queue, so that the first one is still in it when the second is taken.
        table.take(event(9), taken(9, 100, 15));
        table.take(event(1), taken(1, 100, 8));
        assert_eq!(table.claim(event(1), 110), Known::First);
        table.take(event(1), taken(2, 110, 8));
        for _ in 0..3 {
            assert_eq!(table.claim(event(1), 117), Known::Taken(answer(2)));
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Claim(u8),
        Release(u8),
        Take(u8, u32),
        Wait(u32),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0..6_u8).prop_map(Op::Claim),
            (0..6_u8).prop_map(Op::Release),
            (0..6_u8, 1..40_u32).prop_map(|(number, ttl)| Op::Take(number, ttl)),
            (0..20_u32).prop_map(Op::Wait),
        ];
        prop::collection::vec(op, 0..120)
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_map_does(ops in ops()) {
            let mut table = Table::new(1000);
            let mut plain: HashMap<u8, Option<(u128, u32)>> = HashMap::new();
            let mut now = 100;
            for (step, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Claim(number) => {
                        let expected = match plain.get(&number) {
                            Some(None) => Known::Pending,
                            Some(Some((id, until))) if now <= *until => Known::Taken(answer(*id)),
                            _ => Known::First,
                        };
                        prop_assert_eq!(table.claim(event(number), now), expected);
                        if expected == Known::First {
                            plain.insert(number, None);
                        }
                    }
                    Op::Release(number) => {
                        table.release(event(number));
                        if let Some(None) = plain.get(&number) {
                            plain.remove(&number);
                        }
                    }
                    Op::Take(number, ttl) => {
                        if let Some(None) = plain.get(&number) {
                            table.take(event(number), taken(step as u128, now, ttl));
                            plain.insert(number, Some((step as u128, now + ttl)));
                        }
                    }
                    Op::Wait(seconds) => now += seconds,
                }
            }
        }
    }
}
