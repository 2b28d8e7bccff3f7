//! Parts that the modules for brokers share.
//!
//! * [`Template`]: the name of a topic, subject, stream or queue, with parts of the event filled in; [`Place`] says which
//!   texts fit.
//! * [`EventKey`]: the key by which a broker partitions and orders events.
//! * [`Properties`]: the data that an event carries beside its body.
//! * `envelope`: an event as the service before gave it to consumers.
//! * [`Server`], [`BrokerUrl`]: the addresses of a broker.
//! * [`Backoff`]: the time to wait before the next attempt to connect; [`Sessions`] keeps a session with it.

mod address;
mod backoff;
#[cfg(any(feature = "mqtt", feature = "redis", feature = "websocket"))]
pub(crate) mod envelope;
mod key;
mod limit;
mod place;
mod properties;
mod session;
mod template;

pub(crate) use self::address::{BrokerUrl, Scheme, Server, servers};
pub(crate) use self::backoff::Backoff;
pub(crate) use self::key::EventKey;
pub(crate) use self::limit::limit;
pub(crate) use self::place::{
    AMQP_ROUTING_KEY, KAFKA_TOPIC, MQTT_TOPIC, NATS_SUBJECT, Place, REDIS_NAME, STOMP_DESTINATION, ZEROMQ_TOPIC,
};
pub(crate) use self::properties::{CONTENT_TYPE, Properties, forward, text, uses};
pub(crate) use self::session::{Dial, Sessions};
pub(crate) use self::template::Template;
