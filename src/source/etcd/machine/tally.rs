//! Compares etcd's number of keys with the number that the watch has delivered.

use std::collections::VecDeque;

use super::exchange::Time;
use super::known::Revision;

/// The number of differing comparisons in a row after which everything is read again.
pub(super) const MISSES: u32 = 4;

/// The most answers that wait for the watch. Of further answers only the last one is kept.
const MOST_AWAITED: usize = 16;

/// Compares the numbers of keys, even while keys change.
///
/// etcd's answer counts the keys at one revision. It is compared with our own count at that same revision: with a count
/// that was kept while the answer was on its way, or with the count when the watch passes the revision. So an answer
/// that is early or late never differs, and a creation or deletion that the watch lost always does.
#[derive(Debug)]
pub(super) struct Tally {
    /// The number of keys at the applied revision.
    keys: i64,
    /// The count when the open question was asked, and after each later revision that changed it.
    counts: Vec<(Revision, i64)>,
    /// Answers for revisions that the watch has not passed yet, in order.
    awaited: VecDeque<Answer>,
    /// The number of differing comparisons in a row. Only a comparison that agrees ends the row; events do not.
    misses: u32,
    /// The number of answers in a row that named a change which the watch should have delivered before.
    overdue: u32,
}

/// The number of keys at a revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// When the question was asked.
    pub(super) asked: Time,
    pub(super) revision: Revision,
    pub(super) total: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Agrees,
    Differs,
    /// The watch has yet to pass the answer's revision.
    Later,
}

impl Tally {
    pub(super) fn new(keys: i64) -> Self {
        Self { keys, counts: Vec::new(), awaited: VecDeque::new(), misses: 0, overdue: 0 }
    }

    /// Starts a question.
    pub(super) fn ask(&mut self, applied: Revision) {
        self.counts = vec![(applied, self.keys)];
    }

    /// Takes the answer to the open question.
    pub(super) fn answer(&mut self, answer: Answer, applied: Revision) -> Comparison {
        let counts = std::mem::take(&mut self.counts);
        if answer.revision > applied {
            self.awaited.truncate(MOST_AWAITED - 1);
            self.awaited.push_back(answer);
            return Comparison::Later;
        }
        let then = counts.iter().rev().find(|(revision, _)| *revision <= answer.revision);
        match then {
            Some((_, keys)) if self.agrees(*keys == answer.total) => Comparison::Agrees,
            _ => Comparison::Differs,
        }
    }

    /// The watch has delivered a revision, and there are `keys` now. If that settles answers that agree, returns when
    /// the last of their questions was asked.
    pub(super) fn pass(&mut self, revision: Revision, keys: i64) -> Option<Time> {
        let (before, after) = (std::mem::replace(&mut self.keys, keys), keys);
        let mut agreed = None;
        while let Some(answer) = self.awaited.front().copied().filter(|answer| answer.revision <= revision) {
            self.awaited.pop_front();
            let keys = if answer.revision == revision { after } else { before };
            if self.agrees(keys == answer.total) {
                agreed = Some(answer.asked);
            }
        }
        if before != after && !self.counts.is_empty() {
            self.counts.push((revision, after));
        }
        agreed
    }

    /// A proof has succeeded: earlier answers need not be compared any more.
    pub(super) fn settle(&mut self) {
        self.awaited.clear();
        self.misses = 0;
    }

    /// Records whether an answer named a change that the watch should have delivered before.
    pub(super) fn overdue(&mut self, overdue: bool) {
        self.overdue = if overdue { self.overdue + 1 } else { 0 };
    }

    /// Whether a difference has not been resolved since.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.misses > 0 || self.overdue > 0
    }

    pub(super) fn is_lost(&self) -> bool {
        self.misses >= MISSES || self.overdue >= MISSES
    }

    /// An equal count does not prove anything while a key is known to be behind.
    fn agrees(&mut self, agrees: bool) -> bool {
        self.misses = if agrees { 0 } else { self.misses + 1 };
        agrees && self.overdue == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(revision: Revision, total: i64) -> Answer {
        Answer { asked: Time::from_secs(revision.unsigned_abs()), revision, total }
    }

    #[test]
    fn an_answer_is_compared_at_its_own_revision() {
        let told = |revision, total| {
            let mut tally = Tally::new(3);
            tally.ask(10);
            for (revision, keys) in [(12, 4), (13, 4), (15, 2)] {
                assert_eq!(tally.pass(revision, keys), None);
            }
            tally.answer(answer(revision, total), 15)
        };
        for (revision, keys) in [(10, 3), (11, 3), (12, 4), (13, 4), (14, 4), (15, 2)] {
            assert_eq!(told(revision, keys), Comparison::Agrees, "{revision}");
            assert_eq!(told(revision, keys + 1), Comparison::Differs, "{revision}");
        }
        assert_eq!(told(16, 2), Comparison::Later);
    }

    #[test]
    fn an_answer_of_a_later_revision_waits_until_the_watch_has_passed_it() {
        // The watch passes the revision in one case, and reaches it exactly in the other.
        for (revision, before, after) in [(14, 3, 9), (12, 9, 3)] {
            let mut tally = Tally::new(2);
            tally.ask(10);
            assert_eq!(tally.answer(answer(12, 3), 10), Comparison::Later);
            assert_eq!(tally.pass(11, before), None);
            assert_eq!(tally.pass(revision, after), Some(Time::from_secs(12)));
            assert!(!tally.is_in_doubt());
            assert_eq!(tally.pass(15, after), None, "once");
        }
    }

    #[test]
    fn only_an_equal_count_ends_a_row_of_differences() {
        let mut tally = Tally::new(5);
        for n in 1..=i64::from(MISSES) {
            assert!(!tally.is_lost());
            tally.ask(10 * n);
            assert_eq!(tally.answer(answer(10 * n + 1, 4), 10 * n), Comparison::Later);
            assert_eq!(tally.pass(10 * n + 2, 5), None);
            assert!(tally.is_in_doubt());
        }
        assert!(tally.is_lost());
        tally.ask(99);
        assert_eq!(tally.answer(answer(99, 5), 99), Comparison::Agrees);
        assert!(!tally.is_in_doubt());
    }

    #[test]
    fn an_equal_count_does_not_clear_a_key_that_is_behind() {
        let mut tally = Tally::new(5);
        tally.overdue(true);
        tally.ask(10);
        assert_eq!(tally.answer(answer(10, 5), 10), Comparison::Differs);
        tally.ask(10);
        tally.answer(answer(12, 5), 10);
        assert_eq!(tally.pass(12, 5), None);
        for _ in 1..MISSES {
            assert!(!tally.is_lost());
            tally.overdue(true);
        }
        assert!(tally.is_lost());
        tally.overdue(false);
        assert!(!tally.is_in_doubt());
    }

    #[test]
    fn waiting_answers_are_bounded_and_the_first_ones_are_kept() {
        let mut tally = Tally::new(5);
        for revision in 100..1000 {
            tally.ask(10);
            tally.answer(answer(revision, 5), 10);
        }
        assert_eq!(tally.awaited.len(), MOST_AWAITED);
        assert_eq!(tally.pass(100, 5), Some(Time::from_secs(100)));
        assert_eq!(tally.pass(999, 5), Some(Time::from_secs(999)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// etcd changes the count by this much, at a new revision.
        Change(i64),
        /// The watch delivers the next change.
        Deliver,
        Ask,
        /// etcd answers the open question, with its current state.
        Answer,
        /// The answer arrives.
        Arrive,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (-1_i64..=1).prop_map(Step::Change),
            3 => Just(Step::Deliver),
            2 => Just(Step::Ask),
            2 => Just(Step::Answer),
            2 => Just(Step::Arrive),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        /// However late the answers and the watch are, no comparison differs as long as the watch loses nothing. Once
        /// it has lost a deletion, none agrees any more.
        #[test]
        fn late_answers_never_differ_and_a_lost_change_always_does(steps in steps(), lost in any::<bool>()) {
            let (mut history, mut applied) = (vec![7_i64], 0_usize);
            let here = |count: i64| count + i64::from(lost);
            let mut tally = Tally::new(here(7));
            let (mut open, mut told) = (false, None);
            let (mut agreed, mut differed) = (0, 0);
            for step in steps {
                let misses = tally.misses;
                match step {
                    Step::Change(by) => history.push(history[history.len() - 1] + by),
                    Step::Deliver if applied + 1 < history.len() => {
                        applied += 1;
                        agreed += u32::from(tally.pass(applied as Revision, here(history[applied])).is_some());
                    }
                    Step::Ask if !open && told.is_none() => {
                        open = true;
                        tally.ask(applied as Revision);
                    }
                    Step::Answer if open => {
                        open = false;
                        told = Some(answer(history.len() as Revision - 1, history[history.len() - 1]));
                    }
                    Step::Arrive => {
                        let Some(answer) = told.take() else { continue };
                        agreed += u32::from(tally.answer(answer, applied as Revision) == Comparison::Agrees);
                    }
                    _ => {}
                }
                differed += tally.misses.saturating_sub(misses);
            }
            prop_assert_eq!(if lost { agreed } else { differed }, 0);
        }
    }
}
