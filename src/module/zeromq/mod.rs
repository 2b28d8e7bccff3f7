//! `zeromq`: sends events to peers over ZeroMQ.
//!
//! The protocol is spoken here, and not by a crate: a crate opens its connections itself, beside the egress, and keeps
//! messages in queues of its own, so that a sent message is not even written.

mod config;
mod connection;
mod dial;
mod frame;
mod handshake;
mod idle;
mod line;
mod one_way;
mod peer;
mod port;
mod requests;

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use serde_json::{Map, Value};
use tokio::time::timeout;

use self::config::Target;
pub use self::config::{ZeroMqConfig, ZeroMqConnectionConfig, ZeroMqFrames, ZeroMqSocketType};
pub use self::connection::{ZeroMqClient, ZeroMqConnection};
use self::frame::Role;
#[cfg(fuzzing)]
pub(crate) use self::frame::fuzz;
use super::broker::{Properties, text, uses};
use super::connection::Shared;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// Sends each event as a message of ZeroMQ, with its body byte for byte.
///
/// | socket | an event is delivered when |
/// |---|---|
/// | `REQ` | a peer has replied, whatever the reply says |
/// | `PUSH`, `DEALER` | it is written to the network connection to a peer, which confirms nothing |
/// | `PUB` | it is written to the network connection of a subscriber that wants it, which confirms nothing |
///
/// # The message
///
/// With `"frames": "body"`, the default, it is the body alone; behind the `topic`, if there is one. With `"frames": "event"`
/// there is a part before the body: an object of JSON with `X-Event-Id`, `X-Namespace`, `X-Webhook`, `X-Received-At`,
/// `Content-Type`, `Content-Encoding`, `traceparent` and `tracestate`, as far as the event has them, and the received fields that
/// `forward_headers` and `allowed_headers` send on, with names in lower case. Every value is a string; several fields of
/// a name are one with a list.
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no peer is connected; the connection broke | [`Connect`](DeliverErrorKind::Connect) |
/// | the message is not written, or not replied to, within `timeout`; a peer that accepts a connection and is silent | [`Timeout`](DeliverErrorKind::Timeout) |
/// | the peer has a socket of another type; the policy allows no address | [`Config`](DeliverErrorKind::Config) |
/// | no subscriber wants the event, or reads it; the port is in use | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | a header in `topic` is missing or does not fit | [`Permanent`](DeliverErrorKind::Permanent) |
///
/// # Repetitions
///
/// With `REQ`, an attempt that ends without a reply may have sent the event, and another attempt sends it again. Peers can
/// drop the repeat by `X-Event-Id`, with `"frames": "event"`.
#[derive(Clone)]
pub struct ZeroMq {
    connection: Shared<ZeroMqConnection>,
    target: Arc<Target>,
}

impl ConfigModule for ZeroMq {
    const NAME: &'static str = "zeromq";
    type Config = ZeroMqConfig;

    fn build(config: ZeroMqConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let connection: Shared<ZeroMqConnection> = match cx.connection() {
            // The text about the options of the service before says more.
            Err(error) if config.endpoint.is_none() && config.socket_type.is_none() => return Err(error),
            Err(_) => return Err(config.read(Role::Pub, cx.webhook()).err().unwrap_or_else(|| "`endpoint`".into())),
            Ok(connection) => connection,
        };
        let role = connection.kind().role();
        let target = config.read(role, cx.webhook())?;
        match role {
            Role::Req => {}
            Role::Pub => cx.warn(
                "PUB has no acknowledgement: an event counts as delivered once it is written to the connection of a \
                 subscriber, and is lost if nobody reads it; REQ has one",
            ),
            Role::Push | Role::Dealer => cx.warn(
                "PUSH and DEALER have no acknowledgement: an event counts as delivered once it is written to the \
                 connection of a peer, and is lost if the peer ends before it has read it; REQ has one",
            ),
        }
        Ok(Self { connection, target: Arc::new(target) })
    }
}

impl Module for ZeroMq {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let target = &*self.target;
        let limit = target.timeout;
        let topic = target.topic.as_ref().map(|topic| topic.fill(&delivery)).transpose()?;
        let description = (target.frames == ZeroMqFrames::Event).then(|| target.description(&delivery));
        let before: Vec<_> =
            [topic.as_deref(), description.as_deref()].into_iter().flatten().map(str::as_bytes).collect();
        let delivering = async {
            let client = self.connection.client().await?;
            client.send(&before, delivery.body(), target.require_receiver).await
        };
        match timeout(limit, delivering).await {
            Ok(outcome) => outcome.map(|()| Ack::Delivered),
            Err(_) => {
                let text = format!("not written, or not replied to, within {limit:?}");
                Err(DeliverError::new(DeliverErrorKind::Timeout, text))
            }
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.connection.kind().place())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.topic.as_ref().is_some_and(|topic| topic.uses(name))
            || (self.target.frames == ZeroMqFrames::Event && uses(&self.target.forward, name))
    }
}

impl Target {
    fn description(&self, delivery: &Delivery) -> String {
        let mut fields = Map::new();
        Properties::of(delivery, &self.forward).each(|name, value| {
            let value = text(value);
            let joined = match fields.get(name) {
                Some(Value::String(before)) => format!("{before}, {value}"),
                _ => value.into_owned(),
            };
            fields.insert(name.to_owned(), Value::String(joined));
        });
        Value::Object(fields).to_string()
    }
}

/// Omits the headers to send on, which may name credentials.
impl fmt::Debug for ZeroMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZeroMq").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};

    #[test]
    fn a_description_has_the_events_id_and_the_headers() {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let config: ZeroMqConfig = serde_json::from_str(r#"{"frames": "event", "forward_headers": true}"#).unwrap();
        let target = config.read(Role::Req, &webhook).unwrap();
        let headers = [("content-type", "text/plain"), ("x-tag", "1"), ("x-tag", "\"2\""), ("authorization", "s3cret")];
        let headers = headers.map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let delivery = Delivery::new(WebhookInfo::new(webhook, DataType::Json), headers.into_iter().collect(), "{}");
        let mut found: Map<String, Value> = serde_json::from_str(&target.description(&delivery)).unwrap();
        assert_eq!(found.remove("X-Event-Id"), Some(delivery.id().to_string().into()));
        assert!(found.remove("X-Received-At").is_some());
        let expected = serde_json::json!({"X-Namespace": "shop", "X-Webhook": "orders", "Content-Type": "text/plain", "x-tag": "1, \"2\""});
        assert_eq!(Value::Object(found), expected);
    }
}
