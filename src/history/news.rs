//! News of events, for readers that follow them.

use std::time::SystemTime;

use super::entry::{Attempt, Entry, Outcome};
use super::query::Row;
use crate::config::WebhookKey;
use crate::event::EventId;

/// Something new about an event: see [`History::live`](super::History::live).
#[derive(Clone, Debug)]
pub enum News {
    /// A request was answered.
    Received(Box<Row>),
    /// A module was tried. This may come before the news that the request was answered.
    Tried(Box<Progress>),
}

/// How far the delivery of an event is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The event.
    pub id: EventId,
    /// The webhook.
    pub webhook: WebhookKey,
    /// The outcome after the last attempt.
    pub outcome: Outcome,
    /// How many attempts were made.
    pub attempts: u32,
    /// The kind of the last error.
    pub kind: Option<&'static str>,
    /// The reason of the last error.
    pub reason: Option<Box<str>>,
    /// When the next attempt is due.
    pub next: Option<SystemTime>,
}

impl News {
    /// The news in an entry.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        match entry {
            Entry::Received(received) => Some(Self::Received(Box::new(Row::from(&**received)))),
            Entry::Attempt(attempt) => Some(Self::Tried(Box::new(Progress::from(&**attempt)))),
            // An action does not name its webhook, and most are followed by an attempt.
            Entry::Action(_) => None,
        }
    }

    /// The webhook of the event.
    pub fn webhook(&self) -> &WebhookKey {
        match self {
            Self::Received(row) => &row.webhook,
            Self::Tried(progress) => &progress.webhook,
        }
    }
}

impl From<&Attempt> for Progress {
    fn from(attempt: &Attempt) -> Self {
        let (kind, reason) = attempt.error.as_ref().map(|(kind, reason)| (kind.label(), reason.clone())).unzip();
        Self {
            id: attempt.event,
            webhook: attempt.webhook.clone(),
            outcome: attempt.outcome,
            attempts: attempt.number,
            kind,
            reason,
            next: attempt.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::DeliverErrorKind;

    #[test]
    fn an_attempt_shows_how_far_its_event_is() {
        let id: EventId = "019ac02b-1516-7c1e-8f4d-21b7c09e4d21".parse().unwrap();
        let next = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        let attempt = Attempt {
            event: id,
            webhook: WebhookKey::new("shop", "orders").unwrap(),
            number: 2,
            at: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            module: "http_webhook".into(),
            item: None,
            error: Some((DeliverErrorKind::Timeout, "no answer".into())),
            answer: None,
            outcome: Outcome::Waiting,
            next,
        };
        let news = News::of(&Entry::Attempt(Box::new(attempt.clone()))).unwrap();
        assert_eq!(news.webhook(), &attempt.webhook);
        let News::Tried(progress) = news else { panic!("expected an attempt") };
        assert_eq!((progress.id, progress.outcome, progress.attempts, progress.next), (id, Outcome::Waiting, 2, next));
        assert_eq!((progress.kind, progress.reason.as_deref()), (Some("timeout"), Some("no answer")));
        let delivered = Progress::from(&Attempt { error: None, outcome: Outcome::Delivered, next: None, ..attempt });
        assert_eq!((delivered.kind, delivered.reason, delivered.next), (None, None, None));
    }
}
