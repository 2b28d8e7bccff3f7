//! `nats`: publishes events to NATS, core or JetStream.

mod config;
mod connection;
mod dial;
mod error;
mod news;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;

use self::config::is_of_the_server;
pub use self::config::{NatsConfig, NatsConnectionConfig};
pub use self::connection::{NatsClient, NatsConnection};
use self::session::Outgoing;
use super::broker::{NATS_SUBJECT, Properties, Template, text, uses};
use super::connection::Shared;
use super::forward::Forward;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// Publishes each event to a subject of NATS, with its body byte for byte.
///
/// With `jetstream`, the default, an event is delivered once a stream has stored it (`PubAck`). How safe it is then is a
/// matter of the stream's `num_replicas` and of the server's `sync_interval`.
///
/// With `"jetstream": false` it is core NATS: an event is delivered once the server has read it and has not refused it.
/// Nobody confirms that a subscriber got it; without a subscriber it is gone.
///
/// # The message
///
/// | header | |
/// |---|---|
/// | `X-Event-Id` | the event's id |
/// | `X-Namespace`, `X-Webhook` | the webhook |
/// | `X-Received-At` | when the event was received: RFC 3339, UTC, milliseconds |
/// | `Content-Type`, `Content-Encoding` | as received |
/// | `traceparent`, `tracestate` | as received, if the first is valid |
/// | `Nats-Msg-Id` | with JetStream: the event's id, by which a stream drops repeats; in a chain followed by `:` and the subject, because two items may publish to the same stream |
/// | `Nats-Expected-Stream` | with `expected_stream` |
///
/// Next come the received fields that `forward_headers` and `allowed_headers` send on, with names in lower case; never
/// one that begins with `nats-`, because the server would obey it.
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no connection, or it broke before the answer | [`Connect`](DeliverErrorKind::Connect) |
/// | no answer within `timeout`; a server that accepts a connection and is silent | [`Timeout`](DeliverErrorKind::Timeout) |
/// | the server refuses the login | [`Auth`](DeliverErrorKind::Auth) |
/// | no stream has the subject, or another than `expected_stream`; no JetStream; the user may not publish to the subject; the server requires TLS; the policy allows no address | [`Config`](DeliverErrorKind::Config) |
/// | the stream, the account or the server is full (`discard: new`) | [`Throttled`](DeliverErrorKind::Throttled) |
/// | the stream has no leader, or another error of the server | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | the event is larger than the server's `max_payload` or the stream's `max_msg_size`; a header in `subject` is missing or does not fit | [`Permanent`](DeliverErrorKind::Permanent) |
///
/// # Repetitions
///
/// If an attempt ends without an answer, the event may have been published, and another attempt publishes it again. A
/// stream drops the repeat within its `duplicate_window`, by `Nats-Msg-Id`; for core NATS a consumer does, by
/// `X-Event-Id`.
#[derive(Clone)]
pub struct Nats {
    connection: Shared<NatsConnection>,
    target: Arc<Target>,
}

struct Target {
    subject: Template,
    jetstream: bool,
    expected_stream: Option<String>,
    forward: Forward,
    timeout: Duration,
    is_in_chain: bool,
}

impl Nats {
    fn new(connection: Shared<NatsConnection>, config: &NatsConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        config.check()?;
        if !config.jetstream {
            cx.warn(
                "core NATS has no acknowledgement: an event counts as delivered once the server has read it, whether or \
                 not anybody gets it; remove `\"jetstream\": false` if a stream has the subject",
            );
        }
        let target = Target {
            subject: Template::compile("subject", &config.subject, NATS_SUBJECT, cx.webhook())?,
            jetstream: config.jetstream,
            expected_stream: config.expected_stream.clone(),
            forward: config.forward()?,
            timeout: config.limit()?,
            is_in_chain: cx.is_in_chain(),
        };
        Ok(Self { connection, target: Arc::new(target) })
    }
}

impl ConfigModule for Nats {
    const NAME: &'static str = "nats";
    type Config = NatsConfig;

    fn build(config: NatsConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(cx.connection()?, &config, cx)
    }
}

impl Module for Nats {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let Target { jetstream, timeout: limit, .. } = &*self.target;
        let outgoing = self.target.outgoing(&delivery)?;
        let delivering = async {
            let client = self.connection.client().await?;
            let session = client.session().await?;
            match jetstream {
                true => session.store(outgoing).await,
                false => session.send(outgoing).await,
            }
        };
        match timeout(*limit, delivering).await {
            Ok(outcome) => outcome.map(|()| Ack::Delivered),
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("no answer within {limit:?}"))),
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.target.subject.to_string())
    }

    fn uses_header(&self, name: &http::HeaderName) -> bool {
        self.target.subject.uses(name) || uses(&self.target.forward, name)
    }
}

impl Target {
    fn outgoing(&self, delivery: &Delivery) -> Result<Outgoing, DeliverError> {
        let subject = self.subject.fill(delivery)?.into_owned();
        let mut headers = HeaderMap::new();
        let mut add = |name: &str, value: &str| {
            // Both were header fields of HTTP, whose rules are stricter.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                headers.append(name, value);
            }
        };
        let properties = Properties::of(delivery, &self.forward);
        properties.each(|name, value| {
            if !is_of_the_server(name) {
                add(name, &text(value));
            }
        });
        if self.jetstream {
            let id = properties.id();
            match self.is_in_chain {
                true => add("Nats-Msg-Id", &format!("{id}:{subject}")),
                false => add("Nats-Msg-Id", id),
            }
        }
        if let Some(stream) = &self.expected_stream {
            add("Nats-Expected-Stream", stream);
        }
        Ok(Outgoing { subject, headers, body: delivery.body().clone() })
    }
}

/// Omits the headers to send on, which may name credentials.
impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("connection", &self.connection)
            .field("jetstream", &self.target.jetstream)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};
    use crate::module::broker::forward;

    fn target(subject: &str, is_in_chain: bool) -> Target {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        Target {
            subject: Template::compile("subject", subject, NATS_SUBJECT, &webhook).unwrap(),
            jetstream: true,
            expected_stream: Some("ORDERS".to_owned()),
            forward: forward(true, None).unwrap(),
            timeout: Duration::from_secs(1),
            is_in_chain,
        }
    }

    fn delivery() -> Delivery {
        let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
        let headers =
            [("x-tag", "1"), ("x-tag", "2"), ("nats-rollup", "all"), ("x-kind", "new"), ("x-name", "caf\u{e9}")];
        let headers = headers.map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        Delivery::new(info, headers.into_iter().collect(), "{}")
    }

    #[test]
    fn a_message_has_the_events_id_and_no_order_from_the_sender() {
        let delivery = delivery();
        let outgoing = target("{namespace}.{webhook}.{header:X-Kind}", false).outgoing(&delivery).unwrap();
        assert_eq!((&*outgoing.subject, &outgoing.body[..]), ("shop.orders.new", &b"{}"[..]));
        let header =
            |name: &str| outgoing.headers.get_all(name).map(|value| value.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(header("Nats-Msg-Id"), [delivery.id().to_string()]);
        assert_eq!(header("X-Event-Id"), header("Nats-Msg-Id"));
        assert_eq!(header("Nats-Expected-Stream"), ["ORDERS"]);
        assert_eq!((header("x-tag"), header("x-name")), (vec!["1".into(), "2".into()], vec!["caf\u{e9}".into()]));
        assert!(header("nats-rollup").is_empty() && header("Nats-Rollup").is_empty());
    }

    #[test]
    fn items_of_a_chain_do_not_pass_for_repeats_of_each_other() {
        let delivery = delivery();
        let id = |subject: &str| {
            let outgoing = target(subject, true).outgoing(&delivery).unwrap();
            outgoing.headers.get("Nats-Msg-Id").unwrap().to_string()
        };
        assert_eq!(id("a.b"), format!("{}:a.b", delivery.id()));
        assert_ne!(id("a.b"), id("a.c"));
    }
}
