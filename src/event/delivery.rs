//! One event, on its way to a module.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;

use super::id::EventId;
use crate::config::WebhookInfo;
use crate::request::Charge;

/// One event, on its way to a module. A clone shares what was received.
#[derive(Clone)]
pub struct Delivery {
    received: Arc<Received>,
    attempt: u32,
}

struct Received {
    id: EventId,
    at: SystemTime,
    webhook: Arc<WebhookInfo>,
    headers: HeaderMap,
    body: Bytes,
    charge: Charge,
}

impl Delivery {
    /// A new event. Its body is charged for as long as the event is there.
    pub(crate) fn charged(webhook: Arc<WebhookInfo>, headers: HeaderMap, body: Bytes, charge: Charge) -> Self {
        let at = SystemTime::now();
        Self::of(Received { id: EventId::new(at), at, webhook, headers, body, charge })
    }

    #[cfg(test)]
    pub(crate) fn new(webhook: Arc<WebhookInfo>, headers: HeaderMap, body: Bytes) -> Self {
        Self::charged(webhook, headers, body, Charge::default())
    }

    /// An event that was accepted earlier.
    pub(crate) fn restored(
        id: EventId,
        at: SystemTime,
        attempt: u32,
        webhook: Arc<WebhookInfo>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Self {
        Self::of(Received { id, at, webhook, headers, body, charge: Charge::default() }).attempted(attempt)
    }

    fn of(received: Received) -> Self {
        Self { received: Arc::new(received), attempt: 1 }
    }

    /// The same event, tried for the `attempt`th time.
    #[must_use]
    pub(crate) fn attempted(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// The same event with other contents.
    #[must_use]
    pub(crate) fn with(self, headers: HeaderMap, body: Bytes) -> Self {
        let Received { id, at, ref webhook, ref charge, .. } = *self.received;
        let (webhook, charge) = (Arc::clone(webhook), charge.clone());
        let received = Received { id, at, webhook, headers, body, charge };
        Self { received: Arc::new(received), ..self }
    }

    /// The id given to the event when it was received.
    pub fn id(&self) -> EventId {
        self.received.id
    }

    /// When the whole body had been received.
    pub fn received_at(&self) -> SystemTime {
        self.received.at
    }

    /// Which try this is, from 1. One that a crash cut short counts again.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The webhook that received it.
    pub fn webhook(&self) -> &Arc<WebhookInfo> {
        &self.received.webhook
    }

    /// The request's header fields, credentials included unless the webhook's `credential_cleanup` takes them out.
    pub fn headers(&self) -> &HeaderMap {
        &self.received.headers
    }

    /// The request's body, byte for byte but for what the webhook's `credential_cleanup` takes out.
    pub fn body(&self) -> &Bytes {
        &self.received.body
    }
}

/// Neither the header fields nor the body: both may hold secrets.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id())
            .field("attempt", &self.attempt)
            .field("webhook", self.webhook().key())
            .field("bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// What became of an event that a module took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// It is where it belongs.
    Delivered,
}
