//! Dead letters: events that were given up, kept for an operator.

use std::time::{Duration, SystemTime};

use crate::config::WebhookKey;
use crate::event::{DeliverErrorKind, EventId};

/// An event that was accepted, could not be delivered, and was given up.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The event's id.
    pub id: EventId,
    /// The webhook that received it.
    pub webhook: WebhookKey,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it was given up.
    pub died_at: SystemTime,
    /// The kind of the last error.
    pub kind: DeliverErrorKind,
    /// The text of the last error.
    pub reason: Box<str>,
    /// How many bytes of the storage the event takes: its head and its body.
    pub size: u32,
}

/// Selects the dead letters that meet every given condition, at most `limit` of them.
#[derive(Clone, Debug)]
pub struct DeadLetterQuery {
    /// Only dead letters after this one, in the order of their ids.
    pub after: Option<EventId>,
    /// The largest number to select.
    pub limit: usize,
    /// Only dead letters of this namespace.
    pub namespace: Option<String>,
    /// Only dead letters of one of these namespaces; `None` means any.
    pub namespaces: Option<Vec<String>>,
    /// Only dead letters of webhooks with this id, in any namespace unless one is given.
    pub webhook: Option<String>,
    /// Only dead letters whose last error is of this kind.
    pub kind: Option<DeliverErrorKind>,
    /// Only dead letters that were given up longer ago than this, as far as the clock can be trusted.
    pub older_than: Option<Duration>,
    /// Only dead letters whose reason has this text in it, in upper or lower case.
    pub reason: Option<String>,
}

impl DeadLetterQuery {
    /// The first `limit` of all.
    pub fn first(limit: usize) -> Self {
        Self {
            after: None,
            limit,
            namespace: None,
            namespaces: None,
            webhook: None,
            kind: None,
            older_than: None,
            reason: None,
        }
    }

    /// Whether the query selects the dead letters of this webhook.
    pub fn includes(&self, webhook: &WebhookKey) -> bool {
        is_of(webhook, self.namespace.as_deref(), self.namespaces.as_deref(), self.webhook.as_deref())
    }

    /// Whether the query selects a dead letter of this webhook, with this error, that was given up `age` ago.
    pub fn selects(&self, webhook: &WebhookKey, kind: DeliverErrorKind, reason: &str, age: Duration) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.older_than.is_none_or(|wanted| age > wanted)
            && self.includes(webhook)
            && self.reason.as_deref().is_none_or(|wanted| reason.to_lowercase().contains(&wanted.to_lowercase()))
    }
}

/// Whether a webhook is in this namespace, in one of these namespaces, and has this id; `None` means any.
pub(super) fn is_of(
    webhook: &WebhookKey,
    namespace: Option<&str>,
    namespaces: Option<&[String]>,
    id: Option<&str>,
) -> bool {
    namespace.is_none_or(|wanted| wanted == webhook.namespace())
        && id.is_none_or(|wanted| wanted == webhook.id())
        && namespaces.is_none_or(|wanted| wanted.iter().any(|wanted| wanted == webhook.namespace()))
}

/// The dead letters of one webhook with the same error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// The webhook that received them.
    pub webhook: WebhookKey,
    /// The kind of their last error.
    pub kind: DeliverErrorKind,
    /// The text of their last error.
    pub reason: Box<str>,
    /// How many there are.
    pub count: u64,
    /// When the first of them was given up.
    pub oldest: SystemTime,
    /// When the last of them was given up.
    pub newest: SystemTime,
}

/// Dead letters, grouped by webhook, kind and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterGroups {
    /// The largest group first; at most 1,000 groups.
    pub groups: Vec<DeadLetterGroup>,
    /// How many dead letters are in none of the groups, because there are more than 1,000 different reasons.
    pub others: u64,
}
