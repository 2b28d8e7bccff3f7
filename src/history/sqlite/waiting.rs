//! An entry that waits for the writer.

use bytes::Bytes;
use http::HeaderMap;

use super::clean::MAX_BODY;
use crate::event::EventId;
use crate::history::{Action, Attempt, Body, Entry, Outcome, Received};

/// The memory that an entry takes besides its texts, in bytes. A generous estimate.
const OVERHEAD: u64 = 768;

/// The most bytes of a head that are copied.
pub(super) const MAX_HEAD: usize = 32 << 10;

/// The most bytes of a target's answer that are copied.
const MAX_ANSWER: usize = 1024;

/// An entry that waits. Its head and body are copies, which hold on to no memory of the request.
#[derive(Debug)]
pub(super) enum Waiting {
    Received(Box<Received>, Head),
    Attempt(Box<Attempt>),
    Action(Box<Action>),
}

/// The fields of a head, in one allocation: the length of each text in two bytes before it.
#[derive(Debug, Default)]
pub(super) struct Head(Vec<u8>);

/// The memory that an entry takes while it waits, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Without the head and the body.
    pub(super) bare: u64,
    /// With them.
    pub(super) whole: u64,
}

impl Size {
    /// Of a delivered event with its attempt, without the head and the body.
    pub(super) const EVENT: Self = Self { bare: 2 * OVERHEAD, whole: 2 * OVERHEAD };

    pub(super) fn of(entry: &Entry) -> Self {
        let texts = match entry {
            Entry::Received(received) => {
                received.path.len()
                    + received.reason.as_ref().map_or(0, |reason| reason.len())
                    + 64 * received.steps.len()
            }
            Entry::Attempt(attempt) => {
                let answer = attempt.answer.as_ref().map_or(0, |answer| answer.body.len().min(MAX_ANSWER));
                answer + attempt.error.as_ref().map_or(0, |(_, reason)| reason.len())
            }
            Entry::Action(action) => action.by.len(),
        };
        let content = match entry {
            Entry::Received(received) if received.outcome != Outcome::Refused => {
                let body = match &received.body {
                    Body::Left(_) => 0,
                    Body::Whole(bytes) | Body::Beginning(bytes, _) => bytes.len().min(MAX_BODY),
                };
                Head::length(&received.headers).min(MAX_HEAD) + body
            }
            _ => 0,
        };
        let bare = OVERHEAD + texts as u64;
        Self { bare, whole: bare + content as u64 }
    }
}

impl Waiting {
    /// The entry with its own copy of each text that may be a part of a larger buffer. Without `has_content`, the head and
    /// the body are left out.
    pub(super) fn of(entry: Entry, has_content: bool) -> Self {
        match entry {
            Entry::Received(mut received) => {
                let headers = std::mem::take(&mut received.headers);
                if received.outcome == Outcome::Refused {
                    received.body = Body::Left(received.body.size());
                    return Self::Received(received, Head::default());
                }
                if !has_content {
                    received.body = Body::Left(received.body.size());
                    return Self::Received(received, Head::left_out());
                }
                let copy = |bytes: &Bytes| Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_BODY)]);
                received.body = match &received.body {
                    Body::Whole(bytes) if bytes.len() <= MAX_BODY => Body::Whole(copy(bytes)),
                    Body::Whole(bytes) => Body::Beginning(copy(bytes), bytes.len() as u64),
                    Body::Beginning(bytes, size) => Body::Beginning(copy(bytes), *size),
                    Body::Left(size) => Body::Left(*size),
                };
                Self::Received(received, Head::of(&headers))
            }
            Entry::Attempt(mut attempt) => {
                if let Some(answer) = &mut attempt.answer {
                    answer.body = Bytes::copy_from_slice(&answer.body[..answer.body.len().min(MAX_ANSWER)]);
                }
                Self::Attempt(attempt)
            }
            Entry::Action(action) => Self::Action(action),
        }
    }

    pub(super) fn id(&self) -> EventId {
        match self {
            Self::Received(received, _) => received.id,
            Self::Attempt(attempt) => attempt.event,
            Self::Action(action) => action.event,
        }
    }

    /// The namespace whose share it counts for. An action is an operator's.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Received(received, _) => received.webhook.namespace(),
            Self::Attempt(attempt) => attempt.webhook.namespace(),
            Self::Action(_) => "",
        }
    }

    /// Whether it is a request that was refused.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Received(received, _) if received.outcome == Outcome::Refused)
    }
}

impl Head {
    fn of(headers: &HeaderMap) -> Self {
        let mut bytes = Vec::with_capacity(Self::length(headers).min(MAX_HEAD));
        for (name, value) in headers {
            let parts = [name.as_str().as_bytes(), value.as_bytes()];
            if bytes.len() + 4 + parts[0].len() + parts[1].len() > MAX_HEAD {
                return Self::cut(bytes);
            }
            for part in parts {
                bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Self(bytes)
    }

    fn length(headers: &HeaderMap) -> usize {
        headers.iter().map(|(name, value)| 4 + name.as_str().len() + value.len()).sum()
    }

    fn left_out() -> Self {
        Self::cut(Vec::new())
    }

    /// A mark at the end says that fields are missing: half a length.
    fn cut(mut bytes: Vec<u8>) -> Self {
        bytes.push(0);
        Self(bytes)
    }

    /// The fields, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || Some((part(&mut rest)?, part(&mut rest)?)))
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.len() != self.fields().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>()
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<2>()?;
    let (part, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_copied_field_by_field() {
        let mut headers = HeaderMap::new();
        headers.append("a", "1".parse().unwrap());
        headers.append("b", "".parse().unwrap());
        headers.append("a", "2".parse().unwrap());
        let head = Head::of(&headers);
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields.len(), 3);
        assert!(fields.contains(&(b"a", b"2")) && fields.contains(&(b"b", b"")) && !head.is_cut());
        headers.append("c", "x".repeat(MAX_HEAD).parse().unwrap());
        assert!(Head::of(&headers).is_cut() && Head::left_out().is_cut());
        assert!(!Head::default().is_cut());
    }
}
