//! Where events go: the module of a webhook.
//!
//! A webhook names its module and gives it a configuration. The module is built once, when the webhook is compiled,
//! and takes one [`Delivery`] after another, many at a time.
//!
//! # Contract
//!
//! * [`build`](Module::build) is pure: no file, no socket, no task. Connections are opened by the first delivery.
//! * [`deliver`](Module::deliver) answers [`Ack`] only once the event is where it belongs: synced and renamed,
//!   written out, or answered 2xx by a peer. Everything else is an error, and the sender is told to try again.
//! * The future may be dropped at any await, when the sender hangs up or the deadline passes: what it was doing must
//!   then be either done or not done.
//! * The body and the headers are as received, but for what the webhook's `credential_cleanup` takes out. Nothing of them may be logged unless the module exists to do so.
//!
//! # Adding a module
//!
//! One file with a type that implements [`Module`], and one line in
//! [`Registry::builtin`](crate::Registry::builtin). One of your own is registered from outside:
//!
//! ```
//! use serde::Deserialize;
//! use tower_webhook::{BuildContext, BuildError, Registry};
//! use tower_webhook::module::{Ack, DeliverError, Delivery, Module};
//!
//! struct Count { by: u64, total: std::sync::atomic::AtomicU64 }
//!
//! #[derive(Deserialize)]
//! struct CountConfig { by: u64 }
//!
//! impl Module for Count {
//!     const NAME: &'static str = "count";
//!     type Config = CountConfig;
//!
//!     fn build(config: CountConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
//!         Ok(Self { by: config.by, total: Default::default() })
//!     }
//!
//!     async fn deliver(&self, _: Delivery) -> Result<Ack, DeliverError> {
//!         self.total.fetch_add(self.by, std::sync::atomic::Ordering::Relaxed);
//!         Ok(Ack::Delivered)
//!     }
//! }
//!
//! let registry = Registry::builtin().module::<Count>();
//! ```
//!
//! A tower service will do as well: see [`Registry::service`](crate::Registry::service) and `examples/custom_module.rs`.

mod discard;
mod error;
#[cfg(feature = "http-webhook")]
mod http_webhook;
mod log;
#[cfg(feature = "save-to-disk")]
mod save_to_disk;
mod service;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use uuid::{Builder, Uuid};

pub use self::discard::{Discard, DiscardConfig};
pub(crate) use self::error::LONGEST_WAIT;
pub use self::error::{DeliverError, DeliverErrorKind};
#[cfg(feature = "http-webhook")]
pub use self::http_webhook::{Egress, EgressPolicy, HttpMethod, HttpWebhook, HttpWebhookConfig, InvalidEgress};
#[cfg(fuzzing)]
pub(crate) use self::http_webhook::{fuzz_trace, fuzz_url};
pub use self::log::{Lines, Log, LogConfig};
#[cfg(feature = "save-to-disk")]
pub use self::save_to_disk::{SaveToDisk, SaveToDiskConfig};
pub(crate) use self::service::ServiceModule;
use crate::body::Charge;
use crate::config::{BuildContext, BuildError, Webhook};

/// Takes the events of a webhook. See the [module docs](self) for the contract and an example.
pub trait Module: Send + Sync + Sized + 'static {
    /// The name by which configuration asks for this module.
    const NAME: &'static str;

    /// What `module-config` may say. Unknown fields of a struct are refused.
    type Config: DeserializeOwned;

    /// Makes the module. Pure.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work. The text is shown to operators and must not hold a secret.
    fn build(config: Self::Config, cx: &BuildContext<'_>) -> Result<Self, BuildError>;

    /// Takes one event.
    ///
    /// # Errors
    ///
    /// When the event is not where it belongs; the sender is told to try again.
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = Result<Ack, DeliverError>> + Send;
}

/// The object-safe twin of [`Module`].
pub(crate) trait ErasedModule: Send + Sync {
    fn deliver(&self, delivery: Delivery) -> BoxFuture<'_, Result<Ack, DeliverError>>;
}

impl<M: Module> ErasedModule for M {
    fn deliver(&self, delivery: Delivery) -> BoxFuture<'_, Result<Ack, DeliverError>> {
        Box::pin(Module::deliver(self, delivery))
    }
}

/// One event, on its way to a module. A clone shares what was received.
#[derive(Clone)]
pub struct Delivery {
    received: Arc<Received>,
    attempt: u32,
}

struct Received {
    id: EventId,
    at: SystemTime,
    webhook: Arc<Webhook>,
    headers: HeaderMap,
    body: Bytes,
    charge: Charge,
}

impl Delivery {
    /// A new event. Its body is charged for as long as the event is there.
    pub(crate) fn charged(webhook: Arc<Webhook>, headers: HeaderMap, body: Bytes, charge: Charge) -> Self {
        let at = SystemTime::now();
        Self::of(Received { id: EventId::new(at), at, webhook, headers, body, charge })
    }

    #[cfg(test)]
    pub(crate) fn new(webhook: Arc<Webhook>, headers: HeaderMap, body: Bytes) -> Self {
        Self::charged(webhook, headers, body, Charge::default())
    }

    /// An event that was accepted earlier.
    #[cfg(feature = "queue-disk")]
    pub(crate) fn restored(
        id: EventId,
        at: SystemTime,
        attempt: u32,
        webhook: Arc<Webhook>,
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
    pub fn webhook(&self) -> &Arc<Webhook> {
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

/// The name of an event: a UUIDv7 (RFC 9562), so that ids sort by time of receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    fn new(received_at: SystemTime) -> Self {
        let since = received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // An id is no secret, so that the system need not be asked for randomness. The twelve bits behind the milliseconds
        // are the fraction of the millisecond (RFC 9562 §6.2, method 3): ids sort within it, too.
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let fraction = (u64::from(since.subsec_nanos() % 1_000_000) << 12) / 1_000_000;
        random[..2].copy_from_slice(&(fraction as u16).to_be_bytes());
        Self(Builder::from_unix_timestamp_millis(since.as_millis() as u64, &random).into_uuid())
    }

    pub(crate) fn of(uuid: Uuid) -> Self {
        Self(uuid)
    }

    #[cfg(feature = "queue-disk")]
    pub(crate) fn uuid(&self) -> &Uuid {
        &self.0
    }

    /// The id as the value of a header.
    pub(crate) fn to_header(self) -> Option<HeaderValue> {
        let mut buffer = Uuid::encode_buffer();
        HeaderValue::from_str(self.0.hyphenated().encode_lower(&mut buffer)).ok()
    }
}

/// From its text, as it stands in `X-Event-Id`.
impl std::str::FromStr for EventId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What became of an event that a module took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// It is where it belongs.
    Delivered,
}
