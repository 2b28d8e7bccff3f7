//! Dead letters: events that were given up, kept for an operator.

use std::time::SystemTime;

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
}

/// Selects the dead letters that meet every given condition, at most `limit` of them.
#[derive(Clone, Debug)]
pub struct DeadLetterQuery {
    /// Only dead letters after this one, in the order of their ids.
    pub after: Option<EventId>,
    /// The largest number to return.
    pub limit: usize,
    /// Only dead letters of this namespace.
    pub namespace: Option<String>,
    /// Only dead letters of webhooks with this id, in any namespace unless one is given.
    pub webhook: Option<String>,
}

impl DeadLetterQuery {
    /// The first `limit` of all.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, namespace: None, webhook: None }
    }

    /// Whether the query selects the dead letters of this webhook.
    pub fn includes(&self, webhook: &WebhookKey) -> bool {
        let is = |wanted: &Option<String>, name| wanted.as_deref().is_none_or(|wanted| wanted == name);
        is(&self.namespace, webhook.namespace()) && is(&self.webhook, webhook.id())
    }
}
