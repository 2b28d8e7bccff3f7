//! What became of an event so far, as it is stored.

use std::time::SystemTime;

use super::event::{Reader, micros, time};
use crate::module::DeliverErrorKind;

/// More of a reason is not kept, in bytes.
const LONGEST_REASON: usize = 1000;

/// What became of an event so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// What the attempts have done: the bits of [`Done`](crate::delivery::Done).
    pub(crate) done: u64,
    /// When it is tried again, if not at once.
    pub(crate) again: Option<SystemTime>,
    /// Since when and why it is not tried any more.
    pub(crate) dead: Option<Box<Death>>,
}

/// Why an event is not tried any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) at: SystemTime,
    pub(crate) kind: DeliverErrorKind,
    pub(crate) reason: Box<str>,
}

pub(super) fn encode(state: &State, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&state.attempts.to_le_bytes());
    bytes.extend_from_slice(&state.done.to_le_bytes());
    bytes.extend_from_slice(&state.again.map_or(0, micros).to_le_bytes());
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
    20 + state.dead.as_deref().map_or(0, death)
}

pub(super) fn decode(payload: &[u8]) -> Option<State> {
    let mut rest = Reader(payload);
    let attempts = rest.number()?;
    let done = u64::from_le_bytes(rest.array()?);
    let again = Some(i64::from_le_bytes(rest.array()?)).filter(|micros| *micros != 0).map(time);
    let dead = match rest.array() {
        None => None,
        Some(at) => {
            let [length] = rest.array()?;
            let label = rest.take(usize::from(length))?;
            let kind = DeliverErrorKind::ALL.into_iter().find(|kind| kind.label().as_bytes() == label);
            let reason = String::from_utf8_lossy(rest.0).into();
            // Of a newer version, maybe.
            let kind = kind.unwrap_or(DeliverErrorKind::Permanent);
            Some(Box::new(Death { at: time(i64::from_le_bytes(at)), kind, reason }))
        }
    };
    Some(State { attempts, done, again, dead })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_state_is_read_as_written() {
        let at = UNIX_EPOCH + Duration::from_micros(1_795_410_874_007_001);
        let dead = Some(Box::new(Death { at, kind: DeliverErrorKind::Http429, reason: "it is too much".into() }));
        for state in [
            State::default(),
            State { attempts: 3, done: 5 | 1 << 40, again: Some(at), dead: None },
            State { attempts: 20, done: u64::MAX, again: None, dead },
        ] {
            let mut bytes = Vec::new();
            encode(&state, &mut bytes);
            assert_eq!(bytes.len(), encoded_length(&state));
            assert_eq!(decode(&bytes), Some(state));
        }
        assert_eq!(decode(b"short"), None);
    }
}
