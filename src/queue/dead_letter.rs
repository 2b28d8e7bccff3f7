//! Events that are not tried any more, kept for an operator.

use std::time::SystemTime;

use crate::config::WebhookKey;
use crate::event::{DeliverErrorKind, EventId};

/// An event that was accepted and could not be delivered.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The event's id.
    pub id: EventId,
    /// The webhook that received it.
    pub webhook: WebhookKey,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub died_at: SystemTime,
    /// What went wrong at last.
    pub kind: DeliverErrorKind,
    /// What went wrong, in words.
    pub reason: Box<str>,
}

/// Which dead letters are meant.
#[derive(Clone, Debug)]
pub struct DeadLetterQuery {
    /// Those that come after this one.
    pub after: Option<EventId>,
    /// So many at most.
    pub limit: usize,
    /// Those of this namespace.
    pub namespace: Option<String>,
    /// Those of the webhooks with this id.
    pub webhook: Option<String>,
}

impl DeadLetterQuery {
    /// The first `limit` of all.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, namespace: None, webhook: None }
    }

    /// Whether the dead letters of this webhook are meant.
    pub fn includes(&self, webhook: &WebhookKey) -> bool {
        let is = |wanted: &Option<String>, name| wanted.as_deref().is_none_or(|wanted| wanted == name);
        is(&self.namespace, webhook.namespace()) && is(&self.webhook, webhook.id())
    }
}
