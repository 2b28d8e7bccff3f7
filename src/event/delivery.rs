//! An event on its way to a module.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;

use super::answer::{Answered, Reply};
use super::id::{EventId, Stamp};
use crate::config::WebhookInfo;
use crate::request::Charge;

/// An event on its way to a module. Cloning is cheap: clones share the content.
#[derive(Clone)]
pub struct Delivery {
    received: Arc<Received>,
    attempt: u32,
    /// The attempt, if the target's answer to it is wanted.
    answered: Option<Arc<dyn Answered>>,
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
    /// An event that a webhook has just received, in its first attempt. Use this to test a module of your own.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use tower_webhook::event::{Ack, Delivery};
    /// use tower_webhook::module::{Discard, Module};
    /// use tower_webhook::config::{DataType, WebhookInfo, WebhookKey};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let webhook = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
    /// let delivery = Delivery::new(webhook, HeaderMap::new(), r#"{"order": 7}"#);
    /// assert_eq!(Discard.deliver(delivery).await.unwrap(), Ack::Delivered);
    /// # }
    /// ```
    pub fn new(webhook: impl Into<Arc<WebhookInfo>>, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self::received(Stamp::now(), webhook.into(), headers, body.into(), Charge::default())
    }

    /// The same event in attempt number `attempt`, counted from 1.
    #[must_use]
    pub fn attempted(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// A new event. Its body counts towards the memory limit until the last clone is dropped.
    pub(crate) fn received(
        Stamp { id, at }: Stamp,
        webhook: Arc<WebhookInfo>,
        headers: HeaderMap,
        body: Bytes,
        charge: Charge,
    ) -> Self {
        Self::first_attempt(Received { id, at, webhook, headers, body, charge })
    }

    /// An event from the queue.
    pub(crate) fn restored(
        id: EventId,
        at: SystemTime,
        attempt: u32,
        webhook: Arc<WebhookInfo>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Self {
        Self::first_attempt(Received { id, at, webhook, headers, body, charge: Charge::default() }).attempted(attempt)
    }

    fn first_attempt(received: Received) -> Self {
        Self { received: Arc::new(received), attempt: 1, answered: None }
    }

    /// The same event in an attempt that wants to know the target's answer.
    #[must_use]
    pub(crate) fn answering(self, attempt: Arc<dyn Answered>) -> Self {
        Self { answered: Some(attempt), ..self }
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

    /// The time at which the whole body had been received.
    pub fn received_at(&self) -> SystemTime {
        self.received.at
    }

    /// The number of this attempt, counted from 1. An attempt that a crash interrupted is repeated with the same number.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Takes what the target answers, for an operator who wants to see it; `None` if nobody wants to know. A module calls
    /// this once.
    pub fn reply(&self) -> Option<Reply> {
        self.answered.clone().map(Reply::to)
    }

    /// The webhook that received the event.
    pub fn webhook(&self) -> &Arc<WebhookInfo> {
        &self.received.webhook
    }

    /// The request's header fields, including credentials unless the webhook's `credential_cleanup` removes them.
    pub fn headers(&self) -> &HeaderMap {
        &self.received.headers
    }

    /// The request's body, byte for byte, except the fields that the webhook's `credential_cleanup` removes.
    pub fn body(&self) -> &Bytes {
        &self.received.body
    }
}

/// Omits the header fields and the body: both may hold secrets.
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

/// The successful outcome of a delivery to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// The target has the event.
    Delivered,
}
