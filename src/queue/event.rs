//! An accepted event, its ticket, and the state of its delivery.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;

use crate::config::{WebhookInfo, WebhookKey};
use crate::event::{Delivery, EventId, Progress};

/// Identifies a waiting event, and carries the facts that the worker schedules it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Unique within the queue, and larger for an event received later.
    pub sequence: u64,
    /// The webhook that received the event.
    pub webhook: WebhookKey,
    /// How many bytes of the storage the event takes.
    pub bytes: u32,
}

/// An event to be tried now, or at a later time.
#[derive(Clone, Debug)]
pub struct Due {
    /// Which event.
    pub ticket: Ticket,
    /// The earliest time of the next attempt; `None` means at once.
    pub not_before: Option<Instant>,
}

impl From<Ticket> for Due {
    fn from(ticket: Ticket) -> Self {
        Self { ticket, not_before: None }
    }
}

/// The state of an event's delivery: the attempts made, and the steps that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How many attempts were made.
    pub attempts: u32,
    /// Which steps have succeeded or were given up. A backend stores it unchanged.
    pub done: Progress,
}

impl State {
    /// The state with which a dead letter is delivered again: a step that succeeded is not repeated, every other step may
    /// be tried.
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
    /// The delivery for attempt number `attempt`, by the webhook as it is configured now.
    pub(crate) fn into_delivery(self, webhook: Arc<WebhookInfo>, attempt: u32) -> Delivery {
        Delivery::restored(self.id, self.received_at, attempt, webhook, self.headers, self.body)
    }
}

/// The parts of a delivery that are stored.
impl From<&Delivery> for StoredEvent {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id(),
            received_at: delivery.received_at(),
            headers: delivery.headers().clone(),
            body: delivery.body().clone(),
        }
    }
}

/// Omits the header fields and the body: both may hold secrets.
impl fmt::Debug for StoredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredEvent").field("id", &self.id).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}
