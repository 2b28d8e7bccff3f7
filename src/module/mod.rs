//! Modules: the destinations of events.
//!
//! A webhook names its module and gives it a configuration. The module is built once, when the webhook is compiled,
//! and takes one [`Delivery`] after another, many at a time.
//!
//! # Contract
//!
//! * [`build`](ConfigModule::build) is pure: it opens no files and sockets and starts no tasks. The first delivery opens
//!   connections.
//! * [`deliver`](Module::deliver) answers [`Ack`] only once the event has been delivered: synced and renamed, written
//!   out, or answered 2xx by a peer. Everything else is an error, and the sender is asked to try again.
//! * The future may be dropped at any await, when the sender hangs up or the deadline passes. The work must then be
//!   either done completely or not at all.
//! * A module whose target answers may report the answer, for an operator: [`Delivery::reply`] takes it.
//! * The body and the headers are as received, without the credentials that the webhook's `credential_cleanup` removes.
//!   They must not be logged unless that is the module's purpose.
//!
//! [`guide::extending`](crate::guide::extending) shows how to add a module, and [`guide::targets`](crate::guide::targets)
//! lists the modules of this crate. `examples/custom_module.rs` has two modules of its own.

#[cfg(feature = "activemq")]
mod activemq;
#[cfg(any(
    feature = "activemq",
    feature = "kafka",
    feature = "mqtt",
    feature = "nats",
    feature = "rabbitmq",
    feature = "redis",
    feature = "websocket",
    feature = "zeromq"
))]
// No module uses all of it.
#[allow(dead_code, unused_imports)]
mod broker;
pub mod connection;
mod discard;
#[cfg(feature = "_egress")]
mod forward;
#[cfg(feature = "http-webhook")]
mod http_webhook;
#[cfg(feature = "kafka")]
mod kafka;
mod log;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "save-to-disk")]
mod save_to_disk;
mod service;
#[cfg(feature = "_egress")]
mod time_limit;
#[cfg(feature = "_egress")]
mod trace;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::future::Future;

use futures_util::future::BoxFuture;
use http::HeaderName;
use serde::de::DeserializeOwned;

#[cfg(fuzzing)]
pub(crate) use self::activemq::fuzz as fuzz_stomp;
#[cfg(feature = "activemq")]
pub use self::activemq::{
    ActiveMq, ActiveMqClient, ActiveMqConfig, ActiveMqConnection, ActiveMqConnectionConfig, ActiveMqDestinationType,
};
pub use self::discard::{Discard, DiscardConfig};
#[cfg(fuzzing)]
pub(crate) use self::http_webhook::fuzz_url;
#[cfg(feature = "http-webhook")]
pub use self::http_webhook::{HttpConnection, HttpConnectionConfig, HttpMethod, HttpWebhook, HttpWebhookConfig};
#[cfg(feature = "kafka")]
pub use self::kafka::{
    Kafka, KafkaClient, KafkaCompression, KafkaConfig, KafkaConnection, KafkaConnectionConfig, KafkaSasl,
    KafkaSaslMechanism, KafkaServers,
};
pub use self::log::{Lines, Log, LogConfig};
#[cfg(fuzzing)]
pub(crate) use self::mqtt::fuzz as fuzz_mqtt;
#[cfg(feature = "mqtt")]
pub use self::mqtt::{
    Mqtt, MqttClient, MqttConfig, MqttConnection, MqttConnectionConfig, MqttFormat, MqttVersion, TasmotaType,
};
#[cfg(feature = "nats")]
pub use self::nats::{Nats, NatsClient, NatsConfig, NatsConnection, NatsConnectionConfig};
#[cfg(feature = "rabbitmq")]
pub use self::rabbitmq::{RabbitMq, RabbitMqClient, RabbitMqConfig, RabbitMqConnection, RabbitMqConnectionConfig};
#[cfg(feature = "redis")]
pub use self::redis::{
    RedisClient, RedisConnection, RedisConnectionConfig, RedisFormat, RedisPublish, RedisPublishConfig, RedisRq,
    RedisRqConfig, RedisServer, RedisStream, RedisStreamConfig, RedisWait, RqSerializer,
};
#[cfg(feature = "save-to-disk")]
pub use self::save_to_disk::{SaveToDisk, SaveToDiskConfig};
pub(crate) use self::service::ServiceModule;
#[cfg(fuzzing)]
pub(crate) use self::trace::fuzz as fuzz_trace;
#[cfg(feature = "websocket")]
pub use self::websocket::{
    WebSocket, WebSocketClient, WebSocketConfig, WebSocketConnection, WebSocketConnectionConfig, WebSocketFormat,
};
#[cfg(fuzzing)]
pub(crate) use self::zeromq::fuzz as fuzz_zmtp;
#[cfg(feature = "zeromq")]
pub use self::zeromq::{
    ZeroMq, ZeroMqClient, ZeroMqConfig, ZeroMqConnection, ZeroMqConnectionConfig, ZeroMqFrames, ZeroMqSocketType,
};
use crate::config::{BuildContext, BuildError};
#[cfg(feature = "_egress")]
pub use crate::egress::{Egress, EgressPolicy, InvalidEgress, TlsOptions};
use crate::event::{Ack, DeliverError, Delivery};

/// Takes the events of a webhook. See the [module docs](self) for the contract and an example.
///
/// A module that is made from its webhook's configuration alone is a [`ConfigModule`] too. One that needs a value of the
/// application, such as a client, is made by the function given to [`Registry::module_fn`](crate::Registry::module_fn).
pub trait Module: Send + Sync + 'static {
    /// Delivers one event.
    ///
    /// # Errors
    ///
    /// When the event has not been delivered; the sender is asked to try again.
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = Result<Ack, DeliverError>> + Send;

    /// The place that events go to, for an operator: a host, a queue, a directory. The text must not hold a secret. By
    /// default, none is shown.
    fn target(&self) -> Option<String> {
        None
    }

    /// Whether the received header field `name` changes what is delivered. By default, every field may.
    ///
    /// A history keeps no credentials and signatures. An event may be replayed from it if its module uses none of the
    /// fields that are not kept.
    fn uses_header(&self, name: &HeaderName) -> bool {
        let _ = name;
        true
    }
}

/// A [`Module`] that is made from its webhook's configuration alone.
pub trait ConfigModule: Module + Sized {
    /// The name by which configuration asks for this module.
    const NAME: &'static str;

    /// The options in `module-config`. Unknown fields of a struct are refused.
    type Config: DeserializeOwned;

    /// Makes the module. It opens no file and no socket, and starts no task.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work. The text is shown to operators and must not hold a secret.
    fn build(config: Self::Config, cx: &BuildContext<'_>) -> Result<Self, BuildError>;
}

/// The object-safe form of [`Module`].
pub(crate) trait ErasedModule: Send + Sync {
    fn deliver(&self, delivery: Delivery) -> BoxFuture<'_, Result<Ack, DeliverError>>;

    #[cfg(feature = "admin")]
    fn target(&self) -> Option<String> {
        None
    }

    #[cfg(feature = "admin")]
    fn uses_header(&self, _: &HeaderName) -> bool {
        true
    }
}

impl<M: Module> ErasedModule for M {
    fn deliver(&self, delivery: Delivery) -> BoxFuture<'_, Result<Ack, DeliverError>> {
        Box::pin(Module::deliver(self, delivery))
    }

    #[cfg(feature = "admin")]
    fn target(&self) -> Option<String> {
        Module::target(self)
    }

    #[cfg(feature = "admin")]
    fn uses_header(&self, name: &HeaderName) -> bool {
        Module::uses_header(self, name)
    }
}
