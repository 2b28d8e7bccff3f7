//! `rabbitmq`: publishes events to RabbitMQ over AMQP 0.9.1.

mod config;
mod connection;
mod dial;
mod error;
mod outgoing;
mod pipeline;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderName;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::time::timeout;

pub use self::config::{RabbitMqConfig, RabbitMqConnectionConfig};
use self::config::{Route, is_of_the_server};
pub use self::connection::{RabbitMqClient, RabbitMqConnection};
use self::outgoing::{Address, Outgoing};
use super::broker::{Properties, text, uses};
use super::connection::Shared;
use super::forward::Forward;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The delivery mode of a message that a durable queue keeps on disk.
const PERSISTENT: u8 = 2;

/// Publishes each event to a queue or an exchange of RabbitMQ, with its body byte for byte.
///
/// An event is delivered once the server has confirmed it (publisher confirms) and at least one queue has got it: for a
/// persistent message in a durable classic queue that means it is on disk, and in a quorum queue that a majority of its
/// replicas has it on disk. Without a queue that gets it, the event is not delivered.
///
/// # The message
///
/// | property | |
/// |---|---|
/// | `message_id` | the event's id |
/// | `delivery_mode` | 2: persistent |
/// | `timestamp` | when the event was received, in seconds |
/// | `type` | the webhook: `namespace/id` |
/// | `content_type`, `content_encoding` | as received |
/// | header `X-Event-Id` | the event's id |
/// | headers `X-Namespace`, `X-Webhook` | the webhook |
/// | header `X-Received-At` | when the event was received: RFC 3339, UTC, milliseconds |
/// | headers `traceparent`, `tracestate` | as received, if the first is valid |
///
/// Next come the received fields that `forward_headers` and `allowed_headers` send on, with names in lower case; never
/// one that the server would obey, such as `bcc` and `x-delay`. Several fields of a name become one header with a list.
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no connection, or it broke before the answer | [`Connect`](DeliverErrorKind::Connect) |
/// | no answer within `timeout`; a server that accepts a connection and is silent | [`Timeout`](DeliverErrorKind::Timeout) |
/// | the server refuses the user, the password or the client's certificate | [`Auth`](DeliverErrorKind::Auth) |
/// | no queue gets the message; no such exchange or virtual host; no permission; a queue of this name with other properties; the policy allows no address | [`Config`](DeliverErrorKind::Config) |
/// | too little memory or disk (the connection is blocked); a full queue (`reject-publish`, `basic.nack`); the server stops | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | the event is larger than the server's `max_message_size`; a header in a template is missing or does not fit | [`Permanent`](DeliverErrorKind::Permanent) |
///
/// # Repetitions
///
/// If an attempt ends without an answer, the event may have been published, and another attempt publishes it again.
/// Consumers can drop the repeat by `message_id`.
#[derive(Clone)]
pub struct RabbitMq {
    connection: Shared<RabbitMqConnection>,
    target: Arc<Target>,
}

struct Target {
    route: Route,
    forward: Forward,
    timeout: Duration,
}

impl ConfigModule for RabbitMq {
    const NAME: &'static str = "rabbitmq";
    type Config = RabbitMqConfig;

    fn build(config: RabbitMqConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let connection = cx.connection()?;
        let target =
            Target { route: config.route(cx.webhook())?, forward: config.forward()?, timeout: config.limit()? };
        Ok(Self { connection, target: Arc::new(target) })
    }
}

impl Module for RabbitMq {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let message = self.target.message(&delivery)?;
        let limit = self.target.timeout;
        let delivering = async {
            let client = self.connection.client().await?;
            let session = client.session().await?;
            session.publish(message, || self.target.message(&delivery)).await
        };
        match timeout(limit, delivering).await {
            Ok(outcome) => outcome.map(|()| Ack::Delivered),
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("no answer within {limit:?}"))),
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.target.route.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.route.uses(name) || uses(&self.target.forward, name)
    }
}

impl Target {
    fn message(&self, delivery: &Delivery) -> Result<Outgoing, DeliverError> {
        let (exchange, routing_key, declare) = match &self.route {
            Route::Queue { name, declare } => ("", name.fill(delivery)?, *declare),
            Route::Exchange { name, routing_key: Some(key) } => (&**name, key.fill(delivery)?, false),
            Route::Exchange { name, routing_key: None } => (&**name, "".into(), false),
        };
        let (exchange, routing_key) = (short(exchange), short(&routing_key));
        let (Some(exchange), Some(routing_key)) = (exchange, routing_key) else {
            let text = "a name of the server has at most 255 bytes";
            return Err(DeliverError::new(DeliverErrorKind::Config, text));
        };
        Ok(Outgoing {
            address: Address { exchange, routing_key },
            declare,
            id: delivery.id(),
            properties: self.properties(delivery),
            body: delivery.body().clone(),
        })
    }

    fn properties(&self, delivery: &Delivery) -> BasicProperties {
        let event = Properties::of(delivery, &self.forward);
        let mut headers = FieldTable::default();
        event.each(|name, value| {
            if !is_of_the_server(name)
                && let Some(name) = short(name)
            {
                add(&mut headers, name, &text(value));
            }
        });
        let received_at = delivery.received_at().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(received_at.as_secs())
            .with_headers(headers);
        // Names of webhooks and ids are far shorter than 255 bytes; a content type that is not stays in the headers.
        for (value, set) in [
            (Some(event.id().into()), BasicProperties::with_message_id as fn(_, _) -> _),
            (Some(format!("{}/{}", event.namespace, event.webhook).into()), BasicProperties::with_type),
            (event.content_type.map(text), BasicProperties::with_content_type),
            (event.content_encoding.as_deref().map(text), BasicProperties::with_content_encoding),
        ] {
            if let Some(value) = value.as_deref().and_then(short) {
                properties = set(properties, value);
            }
        }
        properties
    }
}

/// Adds a header. A second one of the same name makes a list.
fn add(headers: &mut FieldTable, name: ShortString, value: &str) {
    let joined = match headers.inner().get(&name) {
        Some(AMQPValue::LongString(before)) => LongString::from([before.as_bytes(), b", ", value.as_bytes()].concat()),
        _ => value.into(),
    };
    headers.insert(name, AMQPValue::LongString(joined));
}

/// A short string of AMQP, unless the text is longer than 255 bytes.
fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

/// Omits the headers to send on, which may name credentials.
impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};

    fn message(config: &str, headers: &[(&'static str, &str)]) -> Result<Outgoing, DeliverError> {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let config: RabbitMqConfig = serde_json::from_str(config).unwrap();
        let target = Target {
            route: config.route(&webhook).unwrap(),
            forward: config.forward().unwrap(),
            timeout: config.limit().unwrap(),
        };
        let info = WebhookInfo::new(webhook, DataType::Json);
        let headers = headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        target.message(&Delivery::new(info, headers.collect(), "{}"))
    }

    fn header(message: &Outgoing, name: &str) -> Option<String> {
        let headers = message.properties.headers().as_ref().unwrap();
        let value = headers.inner().get(name)?;
        value.as_long_string().map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn a_message_is_persistent_and_has_the_events_id() {
        let message = message(
            r#"{"queue_name": "{namespace}.q"}"#,
            &[("content-type", "application/json"), ("x-tag", "1"), ("x-tag", "2"), ("x-name", "caf\u{e9}")],
        )
        .unwrap();
        assert_eq!(
            (message.address.exchange.as_str(), message.address.routing_key.as_str(), message.declare),
            ("", "shop.q", true)
        );
        let properties = &message.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(text(properties.message_id()), header(&message, "X-Event-Id"));
        assert_eq!(text(properties.kind()).as_deref(), Some("shop/orders"));
        assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
        assert!(properties.timestamp().is_some_and(|seconds| seconds > 1_700_000_000));
        assert_eq!(header(&message, "x-tag").as_deref(), Some("1, 2"));
        assert_eq!(header(&message, "x-name").as_deref(), Some("caf\u{e9}"));
        assert_eq!(header(&message, "X-Webhook").as_deref(), Some("orders"));
    }

    #[test]
    fn a_sender_gives_the_server_no_orders_and_credentials_stay() {
        let received = [
            ("bcc", "q"),
            ("x-delay", "1"),
            ("x-death", "1"),
            ("authorization", "s3cret"),
            ("x-kind", "new"),
            ("host", "a"),
        ];
        let sent = message(r#"{"exchange": "e", "routing_key": "a.{header:X-Kind}"}"#, &received).unwrap();
        assert_eq!(
            (sent.address.exchange.as_str(), sent.address.routing_key.as_str(), sent.declare),
            ("e", "a.new", false)
        );
        for name in ["bcc", "x-delay", "x-death", "authorization", "host"] {
            assert_eq!(header(&sent, name), None, "{name}");
        }
        assert_eq!(header(&sent, "x-kind").as_deref(), Some("new"));
        let named = r#"{"exchange": "e", "allowed_headers": ["Authorization"]}"#;
        assert_eq!(header(&message(named, &received).unwrap(), "authorization").as_deref(), Some("s3cret"));
        let none = r#"{"exchange": "e", "forward_headers": false}"#;
        assert_eq!(header(&message(none, &received).unwrap(), "x-kind"), None);
        let escaping = message(r#"{"exchange": "e", "routing_key": "a.{header:X-Kind}"}"#, &[("x-kind", "a.#")]);
        assert_eq!(escaping.err().unwrap().kind(), DeliverErrorKind::Permanent);
    }
}
