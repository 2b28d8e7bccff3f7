//! Waiting events, as an operator sees them.

use std::time::SystemTime;

use super::dead_letter::is_of;
use crate::config::WebhookKey;
use crate::event::EventId;

/// An event that was accepted, and waits or is being tried.
#[derive(Clone, Debug)]
pub struct WaitingEvent {
    /// The event's id.
    pub id: EventId,
    /// The webhook that received it.
    pub webhook: WebhookKey,
    /// How many attempts were made.
    pub attempts: u32,
    /// How many bytes of the storage the event takes: its head and its body.
    pub size: u32,
    /// When the next attempt is due; `None` if the event waits only for its turn, for its webhook to have a valid
    /// configuration, or for the end of the attempt that is under way.
    pub next_attempt: Option<SystemTime>,
    /// Whether the event is being tried now. Of a queue that several gateways share, a backend may know this only for
    /// the gateway that is asked.
    pub under_way: bool,
}

/// Selects the waiting events that meet every given condition, at most `limit` of them.
#[derive(Clone, Debug)]
pub struct WaitingQuery {
    /// Only events after this one, in the order of their ids.
    pub after: Option<EventId>,
    /// The largest number to return. It should be in the hundreds: all of them are in memory at a time.
    pub limit: usize,
    /// Only events of this namespace.
    pub namespace: Option<String>,
    /// Only events of one of these namespaces; `None` means any.
    pub namespaces: Option<Vec<String>>,
    /// Only events of webhooks with this id, in any namespace unless one is given.
    pub webhook: Option<String>,
}

impl WaitingQuery {
    /// The first `limit` of all.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, namespace: None, namespaces: None, webhook: None }
    }

    /// Whether the query selects the events of this webhook.
    pub fn includes(&self, webhook: &WebhookKey) -> bool {
        is_of(webhook, self.namespace.as_deref(), self.namespaces.as_deref(), self.webhook.as_deref())
    }
}

/// The waiting events that a [`WaitingQuery`] selects.
#[derive(Clone, Debug, Default)]
pub struct WaitingPage {
    /// How many there are, whatever [`after`](WaitingQuery::after) and [`limit`](WaitingQuery::limit) say.
    pub total: usize,
    /// The events after `after`, in the order of their ids.
    pub events: Vec<WaitingEvent>,
}

/// The result of [`Queue::drop_waiting`](super::Queue::drop_waiting).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many of the ids were waiting events, and are dropped now.
    pub events: usize,
    /// How many of them were being tried: that attempt may still deliver them.
    pub under_way: usize,
}
