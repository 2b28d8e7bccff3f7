//! Decides what became of a request. Pure.

use crate::event::{DeliverError, EventId};
use crate::history::Outcome;
use crate::request::{Rejection, RejectionKind};

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Its body has not arrived.
    Coming,
    /// Its body has arrived.
    Arrived,
    /// A module is being tried.
    Delivering,
    /// It was offered to the queue, and may be there.
    Queueing,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answered<'a> {
    /// 2xx.
    Taken,
    /// 2xx: the event had been taken before, maybe under this id.
    Duplicate(Option<EventId>),
    /// A challenge was answered.
    Handshake,
    Refused(&'a Rejection),
    /// Any other answer, of an application's handler.
    Other,
    /// The service failed.
    Broken,
    /// Not at all, for this reason.
    Aborted(&'static str),
}

impl Answered<'_> {
    pub(super) fn outcome(&self, way: Way) -> Outcome {
        match (self, way) {
            (Self::Taken, Way::Queueing) => Outcome::Waiting,
            (Self::Taken, _) => Outcome::Delivered,
            (Self::Duplicate(_) | Self::Handshake, _) => Outcome::Skipped,
            (Self::Refused(rejection), Way::Delivering) if rejection.kind() != RejectionKind::Crowded => {
                Outcome::Failed
            }
            (Self::Refused(_), _) => Outcome::Refused,
            (Self::Other | Self::Broken, _) => Outcome::Failed,
            // The queue has the event, unless its storage failed: the worker reports how it ends.
            (Self::Aborted(_), Way::Queueing) => Outcome::Waiting,
            (Self::Aborted(_), Way::Delivering) => Outcome::Failed,
            (Self::Aborted(_), _) => Outcome::Refused,
        }
    }

    /// The kind and the reason. A failed delivery has those of its last `error`, of which the sender learns only the
    /// status.
    pub(super) fn reason(&self, error: Option<&DeliverError>) -> (Option<&'static str>, Option<Box<str>>) {
        match self {
            Self::Taken | Self::Other => (None, None),
            Self::Duplicate(first) => {
                let reason = first.map(|first| format!("the event was taken before, as {first}").into());
                (Some("duplicate"), reason)
            }
            Self::Handshake => (Some("handshake"), None),
            Self::Refused(rejection) => match error {
                Some(error) => (Some(error.kind().label()), Some(error.to_string().into())),
                None => (Some(rejection.kind().label()), Some(refusal(rejection))),
            },
            Self::Broken => (Some("other"), Some("the service behind the layers failed".into())),
            Self::Aborted(reason) => (Some("aborted"), Some((*reason).into())),
        }
    }

    /// The name of the step that the answer has ended.
    pub(super) fn step(&self, way: Way) -> &'static str {
        use RejectionKind as Kind;
        let reached = match way {
            Way::Coming => "guards",
            Way::Arrived => "handler",
            Way::Delivering => "module",
            Way::Queueing => "queue",
        };
        match self {
            Self::Duplicate(_) => "answer",
            Self::Handshake => "handshake",
            Self::Refused(rejection) => match rejection.kind() {
                Kind::MethodNotAllowed | Kind::MalformedChallenge => "handshake",
                Kind::Unauthenticated | Kind::Forbidden if way == Way::Arrived => "signature",
                Kind::AuthUnavailable => "calls",
                Kind::BodyTooLarge if way == Way::Queueing => "queue",
                Kind::BodyTooLarge | Kind::BodyTimeout | Kind::BodyIncomplete | Kind::MemoryFull => "body",
                Kind::UnsupportedEncoding | Kind::UnexpectedContentType | Kind::MalformedPayload => "payload",
                Kind::MissingEventId | Kind::InProgress => "dedup",
                _ => reached,
            },
            Self::Taken | Self::Other | Self::Broken | Self::Aborted(_) => reached,
        }
    }

    /// Whether the head and the body may be kept of an authenticated sender: not of a request that a guard has refused,
    /// and not of a challenge, which is no event.
    pub(super) fn keeps_contents(&self) -> bool {
        use RejectionKind as Kind;
        match self {
            Self::Handshake => false,
            Self::Refused(rejection) => {
                rejection.guard().is_none()
                    && !matches!(rejection.kind(), Kind::Unauthenticated | Kind::Forbidden | Kind::AuthUnavailable)
            }
            _ => true,
        }
    }
}

/// The reason of a refusal. A webhook may have several guards, so the one that refused is named.
fn refusal(rejection: &Rejection) -> Box<str> {
    match rejection.guard() {
        Some(guard) => format!("`{guard}`: {}", rejection.reason().replace('_', " ")).into(),
        None => rejection.reason().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DeliverErrorKind;

    fn refused(kind: RejectionKind, way: Way) -> (Outcome, &'static str) {
        let rejection = Rejection::new(kind);
        let answered = Answered::Refused(&rejection);
        (answered.outcome(way), answered.step(way))
    }

    #[test]
    fn an_event_has_failed_only_if_a_module_was_tried() {
        use RejectionKind as Kind;
        assert_eq!(refused(Kind::DeliveryFailed, Way::Delivering), (Outcome::Failed, "module"));
        assert_eq!(refused(Kind::LoopDetected, Way::Delivering), (Outcome::Failed, "module"));
        assert_eq!(refused(Kind::Crowded, Way::Delivering), (Outcome::Refused, "module"));
        assert_eq!(refused(Kind::QueueFull, Way::Queueing), (Outcome::Refused, "queue"));
        assert_eq!(refused(Kind::BodyTooLarge, Way::Queueing), (Outcome::Refused, "queue"));
        assert_eq!(refused(Kind::BodyTooLarge, Way::Coming), (Outcome::Refused, "body"));
        assert_eq!(refused(Kind::Unauthenticated, Way::Coming), (Outcome::Refused, "guards"));
        assert_eq!(refused(Kind::Unauthenticated, Way::Arrived), (Outcome::Refused, "signature"));
        assert_eq!(refused(Kind::InProgress, Way::Arrived), (Outcome::Refused, "dedup"));
    }

    #[test]
    fn an_event_that_the_queue_may_have_waits() {
        assert_eq!(Answered::Taken.outcome(Way::Queueing), Outcome::Waiting);
        assert_eq!(Answered::Aborted("").outcome(Way::Queueing), Outcome::Waiting);
        assert_eq!(Answered::Aborted("").outcome(Way::Delivering), Outcome::Failed);
        assert_eq!(Answered::Aborted("").outcome(Way::Coming), Outcome::Refused);
        // A handler's own 202 promises nothing that the worker will report.
        assert_eq!(Answered::Taken.outcome(Way::Arrived), Outcome::Delivered);
    }

    #[test]
    fn a_failed_delivery_has_the_reason_that_its_sender_does_not_get() {
        let rejection = Rejection::new(RejectionKind::DeliveryFailed);
        let error = DeliverError::new(DeliverErrorKind::Connect, "nobody listens");
        let refused = Answered::Refused(&rejection);
        assert_eq!(refused.reason(Some(&error)), (Some("connect"), Some("nobody listens".into())));
        assert_eq!(refused.reason(None).0, Some("delivery_failed"));
    }
}
