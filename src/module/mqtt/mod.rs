//! `mqtt`: publishes events to a server of MQTT 3.1.1 or 5.

mod config;
mod connection;
mod dial;
mod error;
mod incoming;
mod message;
mod outgoing;
mod packet;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::timeout;

pub use self::config::{MqttConfig, MqttConnectionConfig, MqttFormat, MqttVersion, TasmotaType};
pub use self::connection::{MqttClient, MqttConnection};
#[cfg(fuzzing)]
pub(crate) use self::incoming::fuzz;
use self::message::Form;
use self::outgoing::{Properties, Publish};
use self::packet::Version;
use super::broker::{self, Template, text};
use super::connection::Shared;
use super::forward::Forward;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The reason code of a message that no client gets: "No matching subscribers".
const NO_RECEIVER: u8 = 0x10;

/// Publishes each event to a topic of MQTT.
///
/// With `qos` 1, the default, an event is delivered once the server has acknowledged this very message (PUBACK), with 2
/// once it has completed the four packets (PUBCOMP), and with 0 once the message is written to the network connection:
/// nobody confirms it then. How safe a message is after the acknowledgement is a matter of the server: Mosquitto keeps it in
/// memory, and writes it to disk every half hour unless `autosave_interval` says otherwise.
///
/// A server of MQTT 5 says when no client gets a message (reason 0x10; Mosquitto with `qos` 1 only). The event is gone then, so that is an error, unless
/// `require_receiver` is `false` or the message is `retained`. A server of MQTT 3.1.1 cannot say that, nor that it refuses
/// a message: it acknowledges what it throws away.
///
/// # The message
///
/// The body, byte for byte. With MQTT 5 it has properties:
///
/// | property | |
/// |---|---|
/// | content type | as received |
/// | user property `X-Event-Id` | the event's id |
/// | `X-Namespace`, `X-Webhook` | the webhook |
/// | `X-Received-At` | when the event was received: RFC 3339, UTC, milliseconds |
/// | `Content-Encoding` | as received |
/// | `traceparent`, `tracestate` | as received, if the first is valid |
///
/// Next come the received fields that `forward_headers` and `allowed_headers` send on, with names in lower case; a value
/// with a tab or another control character is left out, because servers close the connection for it. A message of MQTT
/// 3.1.1 has no properties: only with `"format": "envelope"` it has the event's id.
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no connection, or it broke before the answer | [`Connect`](DeliverErrorKind::Connect) |
/// | no answer within `timeout`; a server that accepts a connection and is silent | [`Timeout`](DeliverErrorKind::Timeout) |
/// | the server refuses the login or the client's certificate | [`Auth`](DeliverErrorKind::Auth) |
/// | the user may not publish to the topic; the server has another version, or does not support `qos` or `retained`; the policy allows no address | [`Config`](DeliverErrorKind::Config) |
/// | the server's quota is used up | [`Throttled`](DeliverErrorKind::Throttled) |
/// | no client gets the event; the server stops, or another error of it | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | the event is larger than the server allows; a header in `topic` is missing or does not fit | [`Permanent`](DeliverErrorKind::Permanent) |
///
/// # Repetitions
///
/// If an attempt ends without an answer, the event may have been published, and another attempt publishes it again, also
/// with `qos` 2: "exactly once" is a promise within one connection. Consumers can drop the repeat by `X-Event-Id`.
#[derive(Clone)]
pub struct Mqtt {
    connection: Shared<MqttConnection>,
    target: Arc<Target>,
}

struct Target {
    topic: Template,
    qos: u8,
    retain: bool,
    form: Form,
    version: Version,
    require_receiver: bool,
    forward: Forward,
    timeout: Duration,
}

impl Mqtt {
    fn new(connection: Shared<MqttConnection>, config: &MqttConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let version = connection.kind().version();
        config.check(version)?;
        if config.tasmota_format && config.topic.is_some() {
            cx.warn("`topic` has no effect, because `tasmota_format` makes a topic of its own");
        }
        match (config.qos(), version) {
            (0, _) => cx.warn(
                "QoS 0 has no acknowledgement: an event counts as delivered once it is written to the network connection, \
                 whether or not the server gets it; a `qos` of 1 has one",
            ),
            (_, Version::V4) => cx.warn(
                "a server of MQTT 3.1.1 acknowledges messages that it refuses or that no client gets: an event may count \
                 as delivered and be gone; with `\"mqtt_version\": \"5\"` in the connection the server tells",
            ),
            (_, Version::V5) => {}
        }
        let target = Target::new(config, version, cx)?;
        Ok(Self { connection, target: Arc::new(target) })
    }
}

impl ConfigModule for Mqtt {
    const NAME: &'static str = "mqtt";
    type Config = MqttConfig;

    fn build(config: MqttConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(cx.connection()?, &config, cx)
    }
}

impl Module for Mqtt {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let Target { timeout: limit, require_receiver, .. } = &*self.target;
        let message = self.target.message(&delivery)?;
        let delivering = async {
            let client = self.connection.client().await?;
            let session = client.session().await?;
            let reason = session.publish(&message).await?;
            match reason.code {
                NO_RECEIVER if *require_receiver => Err(error::no_receiver(session.server())),
                code if code >= 0x80 => Err(error::not_taken(session.server(), &reason)),
                _ => Ok(Ack::Delivered),
            }
        };
        match timeout(*limit, delivering).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("no answer within {limit:?}"))),
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.target.topic.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.topic.uses(name) || broker::uses(&self.target.forward, name)
    }
}

impl Target {
    fn new(config: &MqttConfig, version: Version, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            topic: config.topic(cx.webhook())?,
            qos: config.qos(),
            retain: config.retained,
            form: Form::of(config),
            version,
            require_receiver: config.require_receiver.unwrap_or(!config.retained),
            forward: config.forward()?,
            timeout: config.limit()?,
        })
    }

    fn message(&self, delivery: &Delivery) -> Result<Publish, DeliverError> {
        let topic = self.topic.fill(delivery)?.into_owned();
        let properties = (self.version == Version::V5).then(|| self.properties(delivery));
        let body = self.form.body(delivery, &self.forward);
        Ok(Publish { topic, qos: self.qos, retain: self.retain, properties, body })
    }

    fn properties(&self, delivery: &Delivery) -> Properties {
        let event = broker::Properties::of(delivery, &self.forward);
        let mut properties = Properties::default();
        match (event.content_type, self.form.content_type()) {
            (_, Some(own)) => properties.content_type(own),
            (Some(received), None) => properties.content_type(&text(received)),
            (None, None) => {}
        }
        event.each(|name, value| {
            if name != broker::CONTENT_TYPE {
                properties.user(name, &text(value));
            }
        });
        properties
    }
}

/// Omits the headers to send on, which may name credentials.
impl fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mqtt")
            .field("connection", &self.connection)
            .field("qos", &self.target.qos)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};

    fn message(
        json: &str,
        version: Version,
        headers: &[(&'static str, &str)],
    ) -> Result<(Publish, Delivery), DeliverError> {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let config: MqttConfig = serde_json::from_str(json).unwrap();
        let target = Target::new(&config, version, &BuildContext::bare(&webhook)).unwrap();
        let info = WebhookInfo::new(webhook, DataType::Json);
        let headers = headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let delivery = Delivery::new(info, headers.collect(), r#"{"a": 1}"#);
        Ok((target.message(&delivery)?, delivery))
    }

    /// The bytes of the properties, as text.
    fn shown(message: &Publish) -> String {
        format!("{:?}", message.properties.as_ref().unwrap())
    }

    #[test]
    fn a_message_of_version_5_has_the_events_id_and_one_of_3_1_1_has_the_body_alone() {
        let headers =
            [("content-type", "application/json"), ("x-tag", "1"), ("x-tab", "a\tb"), ("authorization", "s3cret")];
        let json = r#"{"topic": "{namespace}/{header:X-Tag}", "forward_headers": true, "format": "envelope"}"#;
        let (sent, delivery) = message(json, Version::V5, &headers).unwrap();
        assert_eq!((&*sent.topic, sent.qos, sent.retain), ("shop/1", 1, false));
        let properties = shown(&sent);
        for part in [&*delivery.id().to_string(), "X-Event-Id", "X-Webhook", "orders", "application/json", "x-tag"] {
            assert!(properties.contains(part), "{part}: {properties}");
        }
        for part in ["s3cret", "Content-Type", "x-tab"] {
            assert!(!properties.contains(part), "{part}: {properties}");
        }
        let (sent, _) = message(r#"{"topic": "a", "qos": 2, "retained": true}"#, Version::V4, &headers).unwrap();
        assert!(sent.properties.is_none() && sent.retain && sent.qos == 2);
        assert_eq!(&sent.body[..], br#"{"a": 1}"#);
    }

    #[test]
    fn a_senders_value_stays_in_its_level_of_the_topic() {
        for value in ["a/b", "+", "#", "$SYS", "a b", ""] {
            let sent = message(r#"{"topic": "{header:X-Kind}/x"}"#, Version::V5, &[("x-kind", value)]);
            assert_eq!(sent.err().map(|error| error.kind()), Some(DeliverErrorKind::Permanent), "{value}");
        }
        let (sent, _) = message(r#"{"topic": "{header:X-Kind}/x"}"#, Version::V5, &[("x-kind", "new")]).unwrap();
        assert_eq!(sent.topic, "new/x");
    }
}
