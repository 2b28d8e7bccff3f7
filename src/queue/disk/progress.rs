//! What became of an event so far, as it is stored.

use std::time::{Duration, Instant, SystemTime};

use super::event::{Reader, micros, time};
use crate::event::{DeliverErrorKind, Progress};
use crate::queue;

/// More of a reason is not kept, in bytes.
const LONGEST_REASON: usize = 1000;

/// What became of an event so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// How often it was tried.
    pub(super) attempts: u32,
    /// What the attempts have done.
    pub(super) done: Progress,
    /// When it is tried again, if not at once.
    pub(super) again: Option<Again>,
    /// Since when and why it is not tried any more.
    pub(super) dead: Option<Box<Death>>,
}

/// When an event is tried again. The wait tells a later process how far it may believe the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) at: SystemTime,
    /// How long was to be waited when this was noted.
    pub(super) wait: Duration,
}

impl Again {
    /// How long is still to be waited, seen from a process that has just begun.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.at.duration_since(now).unwrap_or_default().min(self.wait)
    }
}

/// Why an event is not tried any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) at: SystemTime,
    /// When that was by the monotonic clock, if it was in this process.
    pub(super) here: Option<Instant>,
    pub(super) kind: DeliverErrorKind,
    pub(super) reason: Box<str>,
}

/// That of an event which is tried at once.
impl From<queue::State> for State {
    fn from(queue::State { attempts, done }: queue::State) -> Self {
        Self { attempts, done, again: None, dead: None }
    }
}

impl From<State> for queue::State {
    fn from(State { attempts, done, .. }: State) -> Self {
        Self { attempts, done }
    }
}

pub(super) fn encode(state: &State, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&state.attempts.to_le_bytes());
    let Progress { done, given_up, owner } = state.done;
    bytes.extend_from_slice(&done.to_le_bytes());
    bytes.extend_from_slice(&given_up.to_le_bytes());
    bytes.extend_from_slice(&owner);
    // Nil says that there is none, so the first moment of 1970 is the second.
    bytes.extend_from_slice(&state.again.map_or(0, |again| micros(again.at).max(1)).to_le_bytes());
    if let Some(again) = state.again {
        bytes.extend_from_slice(&u64::try_from(again.wait.as_micros()).unwrap_or(u64::MAX).to_le_bytes());
        // There is one or the other.
        return;
    }
    if let Some(death) = &state.dead {
        bytes.extend_from_slice(&micros(death.at).to_le_bytes());
        let label = death.kind.label();
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
        bytes.extend(death.reason.bytes().take(LONGEST_REASON));
    }
}

/// How many bytes [`encode`] makes of it.
pub(super) fn encoded_length(state: &State) -> usize {
    let death = |death: &Death| 9 + death.kind.label().len() + death.reason.len().min(LONGEST_REASON);
    28 + if state.again.is_some() { 8 } else { state.dead.as_deref().map_or(0, death) }
}

pub(super) fn decode(payload: &[u8]) -> Option<State> {
    let mut rest = Reader(payload);
    let attempts = rest.number()?;
    let done = Progress { done: rest.number()?, given_up: rest.number()?, owner: rest.array()? };
    let again = Some(i64::from_le_bytes(rest.array()?)).filter(|micros| *micros != 0).map(time);
    if let Some(at) = again {
        let wait = Duration::from_micros(u64::from_le_bytes(rest.array()?));
        return Some(State { attempts, done, again: Some(Again { at, wait }), dead: None });
    }
    let dead = match rest.array() {
        None => None,
        Some(at) => {
            let [length] = rest.array()?;
            let label = rest.take(usize::from(length))?;
            let kind = DeliverErrorKind::ALL.into_iter().find(|kind| kind.label().as_bytes() == label);
            let reason = String::from_utf8_lossy(rest.0).into();
            // Of a newer version, maybe.
            let kind = kind.unwrap_or(DeliverErrorKind::Permanent);
            Some(Box::new(Death { at: time(i64::from_le_bytes(at)), here: None, kind, reason }))
        }
    };
    Some(State { attempts, done, again: None, dead })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_state_is_read_as_written() {
        let at = UNIX_EPOCH + Duration::from_micros(1_795_410_874_007_001);
        let dead = Some(Box::new(Death {
            at,
            here: None,
            kind: DeliverErrorKind::Throttled,
            reason: "it is too much".into(),
        }));
        for state in [
            State::default(),
            State {
                attempts: 3,
                done: Progress { done: 5, given_up: 1 << 19, owner: *b"identity" },
                again: Some(Again { at, wait: Duration::from_micros(7) }),
                dead: None,
            },
            State {
                attempts: 20,
                done: Progress { done: u32::MAX, given_up: u32::MAX, owner: [u8::MAX; 8] },
                again: None,
                dead,
            },
        ] {
            let mut bytes = Vec::new();
            encode(&state, &mut bytes);
            assert_eq!(bytes.len(), encoded_length(&state));
            assert_eq!(decode(&bytes), Some(state));
        }
        assert_eq!(decode(b"short"), None);
    }

    #[test]
    fn no_clock_makes_an_event_wait_longer_than_was_noted() {
        let (at, wait) = (UNIX_EPOCH + Duration::from_secs(1_795_410_874), Duration::from_secs(30));
        let again = Again { at, wait };
        for (now, left) in [
            (UNIX_EPOCH, 30),
            (at - Duration::from_secs(600), 30),
            (at - Duration::from_secs(12), 12),
            (at, 0),
            (at + Duration::from_secs(365 * 24 * 3600), 0),
        ] {
            assert_eq!(again.left(now), Duration::from_secs(left));
        }
        // A clock before 1970.
        let mut bytes = Vec::new();
        let again = Again { at: UNIX_EPOCH - Duration::from_secs(9), wait };
        encode(&State { again: Some(again), ..State::default() }, &mut bytes);
        assert_eq!(decode(&bytes).unwrap().again.unwrap().left(UNIX_EPOCH), Duration::from_micros(1));
    }
}
