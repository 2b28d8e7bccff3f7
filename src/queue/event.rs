//! An accepted event, and what became of it so far.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;

use crate::config::{WebhookInfo, WebhookKey};
use crate::event::{Delivery, EventId, Progress};

/// Stands for an event that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Tells the events of a queue apart, and grows with the time of their receipt.
    pub sequence: u64,
    /// The webhook that received the event.
    pub webhook: WebhookKey,
    /// How large the event is: what it takes of the storage.
    pub bytes: u32,
}

/// An event that is to be tried.
#[derive(Clone, Debug)]
pub struct Due {
    /// Which event.
    pub ticket: Ticket,
    /// When it is to be tried, if not at once.
    pub not_before: Option<Instant>,
}

impl From<Ticket> for Due {
    fn from(ticket: Ticket) -> Self {
        Self { ticket, not_before: None }
    }
}

/// What became of an event so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How often it was tried.
    pub attempts: u32,
    /// What the attempts have done, to be kept as it is.
    pub done: Progress,
}

impl State {
    /// That of a dead letter which is delivered again: what is done stays done, and everything else may be tried.
    #[must_use]
    pub fn replayed(&self) -> Self {
        Self { attempts: 0, done: self.done.forgiven() }
    }
}

/// An accepted event, as it was received.
#[derive(Clone)]
pub struct StoredEvent {
    /// The event's id.
    pub id: EventId,
    /// When the whole body had been received.
    pub received_at: SystemTime,
    /// The request's header fields, credentials included.
    pub headers: HeaderMap,
    /// The request's body.
    pub body: Bytes,
}

impl StoredEvent {
    /// What is to be kept of a delivery.
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id(),
            received_at: delivery.received_at(),
            headers: delivery.headers().clone(),
            body: delivery.body().clone(),
        }
    }

    /// The `attempt`th try to deliver it, by the webhook as it is configured now.
    pub(crate) fn into_delivery(self, webhook: Arc<WebhookInfo>, attempt: u32) -> Delivery {
        Delivery::restored(self.id, self.received_at, attempt, webhook, self.headers, self.body)
    }
}

/// Neither the header fields nor the body: both may hold secrets.
impl fmt::Debug for StoredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredEvent").field("id", &self.id).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}
