//! The reports about one event, and the outcome that follows from them.
//!
//! Entries come in any order, so nothing is decided when one comes: an event keeps all reports, and its outcome is computed
//! from them anew.

use serde::{Deserialize, Serialize};

use super::clean;
use super::number::{micros, span};
use crate::config::DataType;
use crate::history::{Action, Attempt, Dedup, Outcome, Received};

/// The most attempts of one event that are kept; the newest ones.
const MAX_ATTEMPTS: usize = 128;

/// The most actions of one event that are kept; the newest ones.
const MAX_ACTIONS: usize = 64;

/// The longest reason that is kept, in bytes.
const MAX_REASON: usize = 2048;

/// The reports about one event. Names are short, because each event has its own copy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Detail {
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<Request>,
    /// In the order in which they began.
    #[serde(rename = "t", skip_serializing_if = "Vec::is_empty")]
    pub(super) attempts: Vec<Try>,
    /// In the order of time.
    #[serde(rename = "a", skip_serializing_if = "Vec::is_empty")]
    pub(super) actions: Vec<Act>,
}

/// The request and its answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    #[serde(rename = "p")]
    pub(super) path: String,
    #[serde(rename = "v")]
    pub(super) revision: u64,
    #[serde(rename = "h")]
    pub(super) head: Vec<(String, String)>,
    /// Whether the head and the body are as received.
    #[serde(rename = "x")]
    pub(super) is_exact: bool,
    #[serde(rename = "y")]
    pub(super) is_form: bool,
    /// Whether the event is the first of its kind, if that was asked.
    #[serde(rename = "d")]
    pub(super) is_first: Option<bool>,
    #[serde(rename = "s")]
    pub(super) secrets: Vec<(String, u8)>,
    /// Names, and microseconds: the beginning and the length.
    #[serde(rename = "w")]
    pub(super) steps: Vec<(String, i64, i64)>,
    #[serde(rename = "o")]
    outcome: u8,
    #[serde(rename = "k")]
    kind: Option<String>,
    #[serde(rename = "m")]
    reason: Option<String>,
    /// When the answer was ready, in microseconds.
    #[serde(rename = "e")]
    end: i64,
}

/// One attempt of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Try {
    // The first three fields are the order.
    #[serde(rename = "a")]
    pub(super) at: i64,
    #[serde(rename = "n")]
    pub(super) number: u32,
    #[serde(rename = "i")]
    pub(super) item: Option<u32>,
    #[serde(rename = "d")]
    pub(super) duration: i64,
    #[serde(rename = "m")]
    pub(super) module: String,
    /// The kind and the reason of the error.
    #[serde(rename = "e")]
    pub(super) error: Option<(String, String)>,
    #[serde(rename = "r")]
    pub(super) answer: Option<(u16, String)>,
    #[serde(rename = "o")]
    pub(super) outcome: u8,
    #[serde(rename = "x")]
    pub(super) next: Option<i64>,
}

/// Something that an operator did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Act {
    #[serde(rename = "a")]
    pub(super) at: i64,
    #[serde(rename = "w")]
    pub(super) what: String,
    #[serde(rename = "b")]
    pub(super) by: String,
    #[serde(rename = "o")]
    pub(super) outcome: Option<u8>,
}

/// The state that follows from all reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Derived {
    pub(super) outcome: Outcome,
    pub(super) kind: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) attempts: u32,
    pub(super) next: Option<i64>,
}

/// The place of a report among those of the same event: its time, then its rank.
type Order = (i64, u8, u32, Option<u32>);

impl Detail {
    /// Adds the request, with its head and body as they are kept. Returns whether it is new: of two, the later answer counts.
    pub(super) fn receive(&mut self, received: &Received, head: Vec<(String, String)>, is_exact: bool) -> bool {
        let request = Request {
            path: received.path.to_string(),
            revision: received.revision,
            head,
            is_exact,
            is_form: received.data_type == DataType::Form,
            is_first: received.dedup.map(|dedup| dedup == Dedup::First),
            secrets: received.secrets.iter().map(|(guard, position)| ((*guard).to_owned(), *position)).collect(),
            steps: received
                .steps
                .iter()
                .map(|step| (step.name.to_owned(), span(step.at), span(step.duration)))
                .collect(),
            outcome: number(received.outcome),
            kind: received.kind.map(str::to_owned),
            reason: received.reason.as_deref().map(shortened),
            end: micros(received.at + received.duration),
        };
        let is_newer = self.request.as_ref().is_none_or(|old| (old.end, old.outcome) < (request.end, request.outcome));
        if is_newer {
            self.request = Some(request);
        }
        is_newer
    }

    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        insert(
            &mut self.attempts,
            MAX_ATTEMPTS,
            Try {
                at: micros(attempt.at),
                number: attempt.number,
                item: attempt.item,
                duration: span(attempt.duration),
                module: attempt.module.to_string(),
                error: attempt.error.as_ref().map(|(kind, reason)| (kind.label().to_owned(), shortened(reason))),
                answer: attempt.answer.as_ref().map(|answer| (answer.status, clean::answer(&answer.body))),
                outcome: number(attempt.outcome),
                next: attempt.next.map(micros),
            },
        );
    }

    pub(super) fn act(&mut self, action: &Action) {
        insert(
            &mut self.actions,
            MAX_ACTIONS,
            Act {
                at: micros(action.at),
                what: action.what.to_owned(),
                by: shortened(&action.by),
                outcome: action.outcome.map(number),
            },
        );
    }

    /// The state that follows from the reports. The latest one decides.
    ///
    /// A module is tried before its sender is answered, unless the event was accepted: the answer "waiting" is earlier than
    /// every attempt, and any other answer later than the attempts that began before it.
    pub(super) fn derive(&self) -> Derived {
        let request = self.request.as_ref().map(|request| {
            let is_waiting = request.outcome == number(Outcome::Waiting);
            let order: Order = if is_waiting { (i64::MIN, 0, 0, None) } else { (request.end, 1, 0, None) };
            (order, request)
        });
        let of_try = |attempt: &Try| -> Order { (attempt.at, 0, attempt.number, attempt.item) };
        let tries = self.attempts.iter().map(|attempt| (of_try(attempt), attempt.outcome, attempt.next));
        let acts = self.actions.iter().filter_map(|act| Some(((act.at, 2, 0, None), act.outcome?, None)));
        let asked = request.iter().map(|(order, request)| (*order, request.outcome, None));
        let last = tries.chain(acts).chain(asked).max();
        let outcome = last.map_or(Outcome::Waiting, |(_, outcome, _)| from_number(outcome));

        let failed = self.attempts.iter().filter_map(|attempt| Some((of_try(attempt), attempt.error.clone()?)));
        let refused = request.iter().filter_map(|(order, request)| {
            Some((*order, (request.kind.clone()?, request.reason.clone().unwrap_or_default())))
        });
        let error = failed.chain(refused).max().filter(|_| outcome != Outcome::Delivered).map(|(_, error)| error);
        Derived {
            outcome,
            attempts: self.count(),
            next: last.and_then(|(_, _, next)| next).filter(|_| outcome == Outcome::Waiting),
            kind: error.as_ref().map(|(kind, _)| kind.clone()),
            reason: error.map(|(_, reason)| reason).filter(|reason| !reason.is_empty()),
        }
    }

    /// The number of attempts: the modules of a chain that are tried with one number count as one. After a replay the
    /// numbers begin anew.
    fn count(&self) -> u32 {
        let mut before = None;
        let mut count = 0;
        for attempt in &self.attempts {
            let is_same = before.is_some_and(|(number, item)| {
                number == attempt.number && attempt.item.is_some() && item < attempt.item
            });
            count += u32::from(!is_same);
            before = Some((attempt.number, attempt.item));
        }
        count.max(self.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0))
    }
}

/// Inserts into a sorted list, which keeps its last `most` items.
fn insert<T: Ord>(list: &mut Vec<T>, most: usize, item: T) {
    let at = list.partition_point(|other| *other <= item);
    list.insert(at, item);
    if list.len() > most {
        list.remove(0);
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(MAX_REASON)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// The number by which an outcome is stored: its place in [`Outcome::ALL`].
pub(super) fn number(outcome: Outcome) -> u8 {
    outcome as u8
}

/// The outcome that is stored as this number.
pub(super) fn from_number(number: u8) -> Outcome {
    Outcome::ALL.get(usize::from(number)).copied().unwrap_or(Outcome::Failed)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::super::sample;
    use super::*;
    use crate::event::{DeliverErrorKind, Stamp};
    use crate::history::Entry;

    fn detail<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Detail {
        let mut detail = Detail::default();
        for entry in entries {
            match entry {
                Entry::Received(received) => {
                    detail.receive(received, Vec::new(), true);
                }
                Entry::Attempt(attempt) => detail.attempt(attempt),
                Entry::Action(action) => detail.act(action),
            }
        }
        detail
    }

    /// An event's entries as they happen: `events` are outcomes of attempts.
    fn story(answer: Outcome, outcomes: &[Outcome], is_replayed: bool) -> Vec<Entry> {
        let stamp = Stamp::now();
        let mut received = sample::received("ns", "hook", stamp);
        received.outcome = answer;
        received.kind = (answer == Outcome::Failed).then_some("timeout");
        let at = |second: u64| UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second);
        received.at = at(0);
        received.duration = if answer == Outcome::Waiting { Duration::from_secs(2) } else { Duration::from_secs(500) };
        let mut entries = vec![Entry::Received(Box::new(received))];
        for (nth, outcome) in (1..).zip(outcomes) {
            let mut attempt = sample::attempt("ns", "hook", stamp, nth, *outcome);
            attempt.at = at(u64::from(nth));
            attempt.next = (*outcome == Outcome::Waiting).then(|| at(u64::from(nth) + 1));
            entries.push(Entry::Attempt(Box::new(attempt)));
        }
        if is_replayed {
            let action = Action {
                event: stamp.id,
                at: at(900),
                what: "replay",
                by: "ops".into(),
                outcome: Some(Outcome::Waiting),
            };
            entries.push(Entry::Action(Box::new(action)));
        }
        entries
    }

    #[test]
    fn the_latest_report_decides() {
        use Outcome::*;
        let derived = |answer, outcomes: &[Outcome]| detail(&story(answer, outcomes, false)).derive();
        let found = derived(Waiting, &[Waiting, Delivered]);
        assert_eq!((found.outcome, found.kind, found.attempts, found.next), (Delivered, None, 2, None));
        let found = derived(Waiting, &[Waiting]);
        assert_eq!((found.outcome, found.kind.as_deref(), found.attempts), (Waiting, Some("connect"), 1));
        assert_eq!(found.next, Some(1_800_000_002_000_000));
        let found = derived(Waiting, &[Waiting, Failed]);
        assert_eq!((found.outcome, found.kind.as_deref(), found.reason.is_some()), (Failed, Some("connect"), true));
        // The answer of a request that waits for its modules is later than their attempts.
        let found = derived(Failed, &[Waiting, Waiting]);
        assert_eq!((found.outcome, found.kind.as_deref(), found.attempts), (Failed, Some("timeout"), 2));
        assert_eq!(derived(Refused, &[]).outcome, Refused);
        let replayed = detail(&story(Failed, &[Failed], true)).derive();
        assert_eq!((replayed.outcome, replayed.kind.as_deref(), replayed.next), (Waiting, Some("timeout"), None));
    }

    #[test]
    fn the_modules_of_a_chain_share_an_attempt() {
        let tries = |list: &[(u32, Option<u32>)]| {
            let mut detail = Detail::default();
            for (at, (number, item)) in (0..).zip(list) {
                detail.attempts.push(Try { at, number: *number, item: *item, ..Try::default() });
            }
            detail.count()
        };
        assert_eq!(tries(&[(1, Some(0)), (1, Some(1)), (2, Some(1)), (2, Some(2))]), 2);
        assert_eq!(tries(&[(1, None), (2, None), (1, None)]), 3, "after a replay");
        assert_eq!(tries(&[(1, Some(0)), (1, Some(0))]), 2);
        assert_eq!(tries(&[(7, None)]), 7, "earlier attempts were left out");
    }

    #[test]
    fn the_newest_attempts_and_whole_characters_are_kept() {
        let outcomes = [Outcome::Waiting; MAX_ATTEMPTS + 5];
        let found = detail(&story(Outcome::Waiting, &outcomes, false));
        assert_eq!((found.attempts.len(), found.attempts[0].number, found.derive().attempts), (MAX_ATTEMPTS, 6, 133));
        assert_eq!(shortened(&"é".repeat(MAX_REASON)).len(), MAX_REASON);
        assert_eq!(shortened(&format!("x{}", "é".repeat(MAX_REASON))).len(), MAX_REASON - 1);
    }

    #[test]
    fn outcomes_are_stored_by_their_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!((usize::from(number(outcome)), from_number(number(outcome))), (place, outcome));
        }
        assert_eq!(DeliverErrorKind::Connect.label(), "connect");
    }

    proptest! {
        #[test]
        fn the_order_of_entries_does_not_matter(
            answer in prop::sample::select(&[Outcome::Waiting, Outcome::Failed, Outcome::Delivered][..]),
            outcomes in prop::collection::vec(prop::sample::select(&Outcome::ALL[..]), 0..6),
            is_replayed in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let entries = story(answer, &outcomes, is_replayed);
            let wanted = detail(&entries);
            let mut mixed = entries;
            fastrand::Rng::with_seed(seed).shuffle(&mut mixed);
            let found = detail(&mixed);
            prop_assert_eq!(found.derive(), wanted.derive());
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn what_is_stored_is_read_back(outcomes in prop::collection::vec(prop::sample::select(&Outcome::ALL[..]), 0..4)) {
            let wanted = detail(&story(Outcome::Failed, &outcomes, true));
            let text = serde_json::to_string(&wanted).unwrap();
            prop_assert_eq!(serde_json::from_str::<Detail>(&text).unwrap(), wanted);
        }
    }
}
