//! The state of an event's delivery, as it is stored.

use std::time::{Duration, Instant, SystemTime};

use super::event::{Reader, micros, time};
use crate::event::{DeliverErrorKind, Progress};
use crate::queue;

/// Bytes of a reason that are kept.
const LONGEST_REASON: usize = 1000;

/// The state of an event's delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredState {
    /// How many attempts were made.
    pub(super) attempts: u32,
    /// Which steps have succeeded or were given up.
    pub(super) done: Progress,
    /// The next attempt; `None` means at once.
    pub(super) retry: Option<Retry>,
    /// The end of a dead letter.
    pub(super) dead: Option<Box<Death>>,
}

/// The time of the next attempt. A later process waits no longer than `wait`, whatever its wall clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) at: SystemTime,
    /// The wait when this was recorded.
    pub(super) wait: Duration,
}

impl Retry {
    /// The rest of the wait, for a process that has just started.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.at.duration_since(now).unwrap_or_default().min(self.wait)
    }
}

/// When and why an event was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) at: SystemTime,
    /// The same moment by the monotonic clock, if it was in this process.
    pub(super) instant: Option<Instant>,
    pub(super) kind: DeliverErrorKind,
    pub(super) reason: Box<str>,
}

/// The state of an event that is due at once.
impl From<queue::State> for StoredState {
    fn from(queue::State { attempts, done }: queue::State) -> Self {
        Self { attempts, done, retry: None, dead: None }
    }
}

impl From<StoredState> for queue::State {
    fn from(StoredState { attempts, done, .. }: StoredState) -> Self {
        Self { attempts, done }
    }
}

pub(super) fn encode(state: &StoredState, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&state.attempts.to_le_bytes());
    let Progress { done, given_up, owner } = state.done;
    bytes.extend_from_slice(&done.to_le_bytes());
    bytes.extend_from_slice(&given_up.to_le_bytes());
    bytes.extend_from_slice(&owner);
    // Zero means that there is no next attempt, so the first microsecond of 1970 is stored as the second.
    bytes.extend_from_slice(&state.retry.map_or(0, |retry| micros(retry.at).max(1)).to_le_bytes());
    if let Some(retry) = state.retry {
        bytes.extend_from_slice(&u64::try_from(retry.wait.as_micros()).unwrap_or(u64::MAX).to_le_bytes());
        // An event that is tried again is no dead letter.
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

/// How many bytes [`encode`] writes.
pub(super) fn encoded_length(state: &StoredState) -> usize {
    let death = |death: &Death| 9 + death.kind.label().len() + death.reason.len().min(LONGEST_REASON);
    28 + if state.retry.is_some() { 8 } else { state.dead.as_deref().map_or(0, death) }
}

pub(super) fn decode(payload: &[u8]) -> Option<StoredState> {
    let mut rest = Reader(payload);
    let attempts = rest.number()?;
    let done = Progress { done: rest.number()?, given_up: rest.number()?, owner: rest.array()? };
    let retry = Some(i64::from_le_bytes(rest.array()?)).filter(|micros| *micros != 0).map(time);
    if let Some(at) = retry {
        let wait = Duration::from_micros(u64::from_le_bytes(rest.array()?));
        return Some(StoredState { attempts, done, retry: Some(Retry { at, wait }), dead: None });
    }
    let dead = match rest.array() {
        None => None,
        Some(at) => {
            let [length] = rest.array()?;
            let label = rest.take(usize::from(length))?;
            let kind = DeliverErrorKind::ALL.into_iter().find(|kind| kind.label().as_bytes() == label);
            let reason = String::from_utf8_lossy(rest.0).into();
            // An unknown kind may be from a newer version.
            let kind = kind.unwrap_or(DeliverErrorKind::Permanent);
            Some(Box::new(Death { at: time(i64::from_le_bytes(at)), instant: None, kind, reason }))
        }
    };
    Some(StoredState { attempts, done, retry: None, dead })
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
            instant: None,
            kind: DeliverErrorKind::Throttled,
            reason: "it is too much".into(),
        }));
        for state in [
            StoredState::default(),
            StoredState {
                attempts: 3,
                done: Progress { done: 5, given_up: 1 << 19, owner: *b"identity" },
                retry: Some(Retry { at, wait: Duration::from_micros(7) }),
                dead: None,
            },
            StoredState {
                attempts: 20,
                done: Progress { done: u32::MAX, given_up: u32::MAX, owner: [u8::MAX; 8] },
                retry: None,
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
        let retry = Retry { at, wait };
        for (now, left) in [
            (UNIX_EPOCH, 30),
            (at - Duration::from_secs(600), 30),
            (at - Duration::from_secs(12), 12),
            (at, 0),
            (at + Duration::from_secs(365 * 24 * 3600), 0),
        ] {
            assert_eq!(retry.left(now), Duration::from_secs(left));
        }
        // A clock before 1970.
        let mut bytes = Vec::new();
        let retry = Retry { at: UNIX_EPOCH - Duration::from_secs(9), wait };
        encode(&StoredState { retry: Some(retry), ..StoredState::default() }, &mut bytes);
        assert_eq!(decode(&bytes).unwrap().retry.unwrap().left(UNIX_EPOCH), Duration::from_micros(1));
    }
}
