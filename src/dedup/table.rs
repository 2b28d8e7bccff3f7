//! The table of events that are being processed or were taken. Pure: the caller passes the time.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::StatusCode;
use uuid::Uuid;

use super::queues::{Due, Queues};
use super::rule::EventDigest;

/// The parts of an answer that are kept to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The value of [`EVENT_ID`](crate::event::EVENT_ID); nil if the answer had none, or not a UUID.
    pub(crate) event_id: Uuid,
}

/// The record of a taken event. Times are in seconds: in a [`Table`] since the start of this process, in the journal since
/// 1970, so that they keep their meaning after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) answer: Answer,
    pub(crate) at: u32,
    /// The last second in which the event is remembered.
    pub(crate) until: u32,
}

/// The state of an event when a request for it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The event was unknown. It is being processed from now on.
    First,
    /// The event is being processed.
    Pending,
    /// The event was taken, with this answer.
    Taken(Answer),
}

/// The events of one shard.
///
/// An entry takes about a hundred bytes: 41 in the map, 24 in a queue, and the spare capacity of both. A webhook takes about
/// as much.
#[derive(Debug)]
pub(crate) struct Table {
    events: HashMap<EventDigest, Option<Remembered>, RandomState>,
    queues: Queues,
    /// Whether there are events of an earlier process whose age is not known yet. Their times are since 1970, and they do
    /// not expire until [`date`](Self::date) is called.
    has_undated: bool,
    max_taken: usize,
    forgotten: u64,
}

/// How many queue heads a call visits: few, so that no call takes long, but more than a call adds.
const SWEEP: usize = 4;

/// The expiry of an event that is to be removed.
const OVER: u32 = 0;

/// A taken event in the map; the map holds `None` for an event that is being processed.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    answer: Answer,
    until: u32,
    is_undated: bool,
}

impl Table {
    pub(crate) fn new(max_taken: usize) -> Self {
        Self {
            events: HashMap::default(),
            queues: Queues::new(),
            has_undated: false,
            max_taken: max_taken.max(1),
            forgotten: 0,
        }
    }

    /// The state of `event`. If it was unknown, it is now pending.
    pub(crate) fn claim(&mut self, event: EventDigest, now: u32) -> Known {
        self.sweep(now);
        match self.events.get(&event) {
            Some(None) => Known::Pending,
            Some(Some(remembered)) if remembered.is_undated || now <= remembered.until => {
                Known::Taken(remembered.answer)
            }
            // If the queue still holds an old entry of the event, its different expiry distinguishes it.
            Some(Some(_)) | None => {
                self.events.insert(event, None);
                Known::First
            }
        }
    }

    /// Gives up a pending event: the next request with the same id is a first one again.
    pub(crate) fn release(&mut self, event: EventDigest) {
        if let Some(None) = self.events.get(&event) {
            self.events.remove(&event);
        }
    }

    /// Records that an event was taken. If there are too many, the oldest event of the largest owner is forgotten.
    pub(crate) fn take(&mut self, event: EventDigest, taken: Taken) {
        let remembered = Remembered { answer: taken.answer, until: taken.until, is_undated: false };
        self.events.insert(event, Some(remembered));
        self.queues.push(Due { event, at: taken.at, until: taken.until }, false);
        self.forgotten += self.make_room();
    }

    /// Adds an event that an earlier process took, with times of the wall clock then. Call this for the oldest events first.
    /// Of two records of one event, the one that expires later counts.
    #[cfg(any(test, feature = "durable"))]
    pub(crate) fn recover(&mut self, event: EventDigest, taken: Taken) {
        if let Some(Some(known)) = self.events.get(&event)
            && known.until >= taken.until
        {
            return;
        }
        let remembered = Remembered { answer: taken.answer, until: taken.until, is_undated: true };
        self.events.insert(event, Some(remembered));
        self.queues.push(Due { event, at: taken.at, until: taken.until }, true);
        self.has_undated = true;
        self.make_room();
    }

    /// Whether the event is remembered with this answer.
    #[cfg(any(test, feature = "durable"))]
    pub(crate) fn remembers(&self, event: EventDigest, answer: Answer) -> bool {
        matches!(self.events.get(&event), Some(Some(known)) if known.answer == answer)
    }

    /// Whether there are recovered events whose age is not known yet.
    pub(crate) fn has_undated(&self) -> bool {
        self.has_undated
    }

    /// Dates the recovered events, once the time is known: `wall` since 1970, `now` since the start of the process.
    pub(crate) fn date(&mut self, wall: u32, now: u32) {
        let events = &mut self.events;
        self.queues.date(|due| {
            // An expiry far ahead is from a clock that was ahead: such an event is remembered for its whole `ttl`.
            let left = due.until.checked_sub(wall).map(|left| left.min(due.until.saturating_sub(due.at)));
            match (events.get_mut(&due.event), left) {
                (Some(Some(known)), Some(left)) if known.is_undated && known.until == due.until => {
                    (known.until, known.is_undated) = (now.saturating_add(left), false);
                    known.until
                }
                (Some(Some(known)), None) if known.is_undated && known.until == due.until => {
                    events.remove(&due.event);
                    OVER
                }
                _ => OVER,
            }
        });
        self.has_undated = false;
    }

    /// Forgets events until there is room. Returns how many were still remembered.
    fn make_room(&mut self) -> u64 {
        let mut forgotten = 0;
        while self.queues.len() > self.max_taken
            && let Some(due) = self.queues.pop_from_largest()
        {
            forgotten += u64::from(remove(&mut self.events, due));
        }
        forgotten
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// How many events were forgotten before their time.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn sweep(&mut self, now: u32) {
        let mut looks = SWEEP;
        while let Some(due) = self.queues.expired(now, !self.has_undated, &mut looks) {
            remove(&mut self.events, due);
        }
    }
}

/// Removes the event, unless it was claimed again since then.
fn remove(events: &mut HashMap<EventDigest, Option<Remembered>, RandomState>, due: Due) -> bool {
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
    use crate::dedup::rule::Owner;

    fn event(number: u8) -> EventDigest {
        of(0, 0, number.into())
    }

    fn of(namespace: u16, webhook: u16, number: u32) -> EventDigest {
        let mut digest = [0; 12];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        EventDigest::from_parts(Owner { namespace, webhook }, digest)
    }

    fn answer(number: u128) -> Answer {
        Answer { status: StatusCode::OK, event_id: Uuid::from_u128(number) }
    }

    fn taken(number: u128, at: u32, ttl: u32) -> Taken {
        Taken { answer: answer(number), at, until: at + ttl }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<(EventDigest, Option<Remembered>)>(), 40);
    }

    #[test]
    fn a_duplicate_is_pending_until_it_gets_the_answer_of_the_first() {
        let mut table = Table::new(10);
        assert_eq!(table.claim(event(1), 100), Known::First);
        assert_eq!(table.claim(event(1), 100), Known::Pending);
        assert_eq!(table.claim(event(2), 100), Known::First);
        table.take(event(1), taken(7, 101, 10));
        assert_eq!(table.claim(event(1), 111), Known::Taken(answer(7)));
        assert_eq!(table.claim(event(1), 112), Known::First, "its time is over");
        assert_eq!(table.claim(event(2), 1_000_000), Known::Pending, "a pending event does not expire");
    }

    #[test]
    fn a_released_event_is_a_first_one_again() {
        let mut table = Table::new(10);
        table.claim(event(1), 100);
        table.release(event(1));
        assert_eq!(table.len(), 0);
        assert_eq!(table.claim(event(1), 100), Known::First);
        table.take(event(1), taken(7, 100, 10));
        table.release(event(1));
        assert_eq!(table.claim(event(1), 100), Known::Taken(answer(7)), "only a pending event is released");
    }

    #[test]
    fn a_full_table_forgets_the_oldest_event_and_no_pending_one() {
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
        assert_eq!(table.claim(event(1), 102), Known::First, "event 1 was the oldest, though not the first to expire");
        for pending in 10..20 {
            assert_eq!(table.claim(event(pending), 102), Known::Pending);
        }
    }

    #[test]
    fn a_webhook_that_floods_forgets_only_its_own_events() {
        for is_recovered in [false, true] {
            let mut table = Table::new(100);
            let mut take = |event, at| match is_recovered {
                false => table.take(event, taken(1, at, 100_000)),
                true => table.recover(event, taken(1, at, 100_000)),
            };
            let others = || (0..10).flat_map(|number| [of(1, 0, number), of(0, 1, number), of(2, 3, number)]);
            others().for_each(|event| take(event, 100));
            (0..10_000).for_each(|number| take(of(0, 0, number), 101));
            for event in others() {
                assert_eq!(table.claim(event, 101), Known::Taken(answer(1)));
            }
            assert_eq!(table.len(), 100);
            assert_eq!(table.claim(of(0, 0, 9_929), 101), Known::First);
            assert_eq!(
                table.claim(of(0, 0, 9_930), 101),
                Known::Taken(answer(1)),
                "the flood has all the room that the others leave"
            );
        }
    }

    #[test]
    fn many_webhooks_of_one_namespace_share_its_share() {
        let mut table = Table::new(100);
        (0..50).for_each(|number| table.take(of(1, 0, number), taken(1, 100, 100_000)));
        for number in 0..10_000 {
            table.take(of(2, (number % 1000) as u16, number), taken(1, 101, 100_000));
        }
        for number in 0..50 {
            assert_eq!(table.claim(of(1, 0, number), 101), Known::Taken(answer(1)));
        }
    }

    #[test]
    fn a_namespace_that_comes_later_gets_its_share() {
        let mut table = Table::new(100);
        (0..1000).for_each(|number| table.take(of(1, 0, number), taken(1, 100, 100_000)));
        (0..50).for_each(|number| table.take(of(2, 0, number), taken(1, 101, 100_000)));
        (1000..2000).for_each(|number| table.take(of(1, 0, number), taken(1, 102, 100_000)));
        for number in 0..50 {
            assert_eq!(table.claim(of(2, 0, number), 102), Known::Taken(answer(1)));
        }
    }

    #[test]
    fn events_of_an_earlier_process_do_not_expire_until_the_time_is_known() {
        const WALL: u32 = 1_795_410_874;
        let mut table = Table::new(10);
        table.recover(event(1), taken(1, WALL - 1000, 10));
        table.recover(event(2), taken(2, WALL - 1000, 1600));
        // Recorded by a clock that was a year ahead, and by one that had not been set.
        table.recover(event(3), taken(3, WALL + 365 * 86_400, 100));
        table.recover(event(4), taken(4, 5, 100));
        // Taken again after the first record had expired.
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
        assert_eq!(table.claim(event(3), 700), Known::Taken(answer(3)), "remembered for its whole ttl");
        assert_eq!(table.claim(event(3), 701), Known::First, "and no longer");
        assert_eq!(table.claim(event(2), 1200), Known::Taken(answer(2)));
        assert_eq!(table.claim(event(2), 1201), Known::First);
        assert_eq!(table.claim(event(5), 1500), Known::Taken(answer(6)));
        assert_eq!(table.claim(event(5), 1501), Known::First);
    }

    #[test]
    fn events_of_an_earlier_process_count_as_the_oldest() {
        for is_dated in [false, true] {
            let mut table = Table::new(3);
            for number in 1..=5 {
                table.recover(event(number), taken(1, 1_795_410_874, 100_000));
            }
            assert_eq!((table.len(), table.forgotten()), (3, 0), "no more than fit");
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
    fn a_second_record_of_a_recovered_event_changes_nothing() {
        let mut table = Table::new(2);
        table.recover(event(1), taken(2, 200, 1000));
        table.recover(event(2), taken(3, 210, 1000));
        // Copies come after the others. The last one is from before event 1 was taken again.
        table.recover(event(1), taken(2, 200, 1000));
        table.recover(event(1), taken(1, 100, 50));
        assert_eq!(table.claim(event(1), 0), Known::Taken(answer(2)));
        assert_eq!(table.claim(event(2), 0), Known::Taken(answer(3)));
    }

    #[test]
    fn expired_events_are_removed_as_others_arrive() {
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
    fn an_event_that_is_taken_again_outlives_its_old_entry() {
        let mut table = Table::new(1000);
        // Keeps the first entry in the queue, behind it, until the event is taken again.
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
        /// Three namespaces have three webhooks each. One webhook never has more than a ninth of the room.
        #[test]
        fn a_webhook_within_an_equal_share_forgets_nothing(
            ops in prop::collection::vec((0..3_u16, 0..3_u16), 0..400),
            recovered in 0..400_usize,
        ) {
            let mut table = Table::new(36);
            let mut modest = Vec::new();
            for (step, (namespace, webhook)) in ops.into_iter().enumerate() {
                let event = of(namespace, webhook, step as u32);
                if (namespace, webhook) == (0, 0) {
                    if modest.len() == 4 {
                        continue;
                    }
                    modest.push(event);
                }
                match step < recovered {
                    true => table.recover(event, taken(1, 100, 1000)),
                    false => {
                        prop_assert_eq!(table.claim(event, 100), Known::First);
                        table.take(event, taken(1, 100, 1000));
                    }
                }
                prop_assert!(table.len() <= 36);
                for event in &modest {
                    prop_assert_eq!(table.claim(*event, 100), Known::Taken(answer(1)));
                }
            }
        }

        #[test]
        fn the_table_behaves_like_a_plain_map(ops in ops()) {
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
