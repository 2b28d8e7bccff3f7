//! `activemq`: sends events to ActiveMQ, or another server, over STOMP 1.2.

mod config;
mod connection;
mod dial;
mod error;
mod frame;
mod link;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::timeout;

use self::config::Route;
pub use self::config::{ActiveMqConfig, ActiveMqConnectionConfig, ActiveMqDestinationType};
pub use self::connection::{ActiveMqClient, ActiveMqConnection};
use self::frame::Headers;
#[cfg(fuzzing)]
pub(crate) use self::frame::fuzz;
use self::link::Outgoing;
use super::broker::{Properties, text, uses};
use super::connection::Shared;
use super::forward::Forward;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// Before the name of a received header field that is sent on. Servers obey many headers, such as `expires`, `priority`
/// and `selector`, and none that begins so.
const FORWARDED: &str = "http-";

/// Sends each event to a queue or topic of ActiveMQ over STOMP 1.2, with its body byte for byte.
///
/// An event is delivered once the server has sent the receipt for its message. ActiveMQ does that when a persistent message
/// in a queue is synced to its journal; RabbitMQ when it has confirmed the message to its plugin. A server also
/// confirms messages to a topic that nobody subscribes to, and to a missing queue of RabbitMQ (`/amq/queue/`,
/// `/exchange/`): such a webhook has a warning.
///
/// # The message
///
/// | header | |
/// |---|---|
/// | `destination` | the destination |
/// | `persistent` | `true`, without `"persistent": false` |
/// | `content-length` | the length of the body; by it ActiveMQ makes a `BytesMessage` |
/// | `content-type` | as received |
/// | `content-encoding` | as received |
/// | `X-Event-Id` | the event's id |
/// | `X-Namespace`, `X-Webhook` | the webhook |
/// | `X-Received-At` | when the event was received: RFC 3339, UTC, milliseconds |
/// | `traceparent`, `tracestate` | as received, if the first is valid |
///
/// Next come the received fields that `forward_headers` and `allowed_headers` send on, as `http-` and their name in lower
/// case, because a server would obey some of them. Several fields of a name become one header with a list.
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no connection, or it broke before the receipt | [`Connect`](DeliverErrorKind::Connect) |
/// | no receipt within `timeout`; a server that accepts a connection and is silent; RabbitMQ without memory or disk | [`Timeout`](DeliverErrorKind::Timeout) |
/// | the server refuses the user, the password or the client's certificate | [`Auth`](DeliverErrorKind::Auth) |
/// | the user may not send there; no such exchange or virtual host; the policy allows no address | [`Config`](DeliverErrorKind::Config) |
/// | ActiveMQ without memory or disk (with `sendFailIfNoSpace`), and every other error of the server | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | the event is larger than the server allows; a header is longer than 8 KiB, or all are longer than 64 KiB; a header in `destination` is missing or does not fit | [`Permanent`](DeliverErrorKind::Permanent) |
///
/// STOMP has no codes for errors: the kind follows from the server's words, which were collected from ActiveMQ 5.17 and
/// RabbitMQ 3.10.
///
/// # Repetitions
///
/// If an attempt ends without a receipt, the event may have been sent, and another attempt sends it again. Consumers can
/// drop the repeat by `X-Event-Id`.
#[derive(Clone)]
pub struct ActiveMq {
    connection: Shared<ActiveMqConnection>,
    target: Arc<Target>,
}

struct Target {
    route: Route,
    persistent: bool,
    forward: Forward,
    timeout: Duration,
}

impl Target {
    fn new(config: &ActiveMqConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            route: config.route(cx.webhook())?,
            persistent: config.persistent,
            forward: config.forward()?,
            timeout: config.limit()?,
        })
    }

    fn message(&self, delivery: &Delivery) -> Result<Outgoing, DeliverError> {
        let destination = self.route.destination.fill(delivery)?.into_owned();
        let body = delivery.body().clone();
        let properties = Properties::of(delivery, &self.forward);
        let mut fields = vec![
            ("destination".to_owned(), destination.clone()),
            ("content-length".to_owned(), body.len().to_string()),
        ];
        if self.persistent {
            fields.push(("persistent".to_owned(), "true".to_owned()));
        }
        properties.each_own(|name, value| {
            // The names of STOMP's own headers are in lower case.
            let name = if name.starts_with("Content-") { name.to_ascii_lowercase() } else { name.to_owned() };
            fields.push((name, text(value).into_owned()));
        });
        // The values of a name follow each other.
        for values in properties.forwarded.chunk_by(|(name, _), (other, _)| name == other) {
            let texts: Vec<_> = values.iter().map(|(_, value)| text(value.as_bytes())).collect();
            fields.extend(values.first().map(|(name, _)| (format!("{FORWARDED}{name}"), texts.join(", "))));
        }
        let mut headers = Headers::default();
        for (name, value) in &fields {
            headers.add(name, value).map_err(|wrong| error::unwritable(name, wrong))?;
        }
        Ok(Outgoing { destination, headers, body })
    }
}

impl ConfigModule for ActiveMq {
    const NAME: &'static str = "activemq";
    type Config = ActiveMqConfig;

    fn build(config: ActiveMqConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let connection = cx.connection()?;
        let target = Target::new(&config, cx)?;
        if target.route.may_lose {
            cx.warn(
                "the server confirms an event that nobody gets: a topic keeps nothing without a durable subscriber, and \
                 RabbitMQ drops what no queue of `/amq/queue/` or `/exchange/` gets; `/queue/` has no such gap",
            );
        }
        if !target.persistent {
            cx.warn("with `\"persistent\": false` the server confirms an event that it loses when it restarts");
        }
        Ok(Self { connection, target: Arc::new(target) })
    }
}

impl Module for ActiveMq {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let message = self.target.message(&delivery)?;
        let limit = self.target.timeout;
        let delivering = async { self.connection.client().await?.send(&message).await };
        match timeout(limit, delivering).await {
            Ok(outcome) => outcome.map(|()| Ack::Delivered),
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("no receipt within {limit:?}"))),
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.target.route.destination.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.route.destination.uses(name) || uses(&self.target.forward, name)
    }
}

/// Omits the headers to send on, which may name credentials.
impl fmt::Debug for ActiveMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveMq").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};

    fn message(config: &str, headers: &[(&'static str, &str)]) -> Result<Outgoing, DeliverError> {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let config: ActiveMqConfig = serde_json::from_str(config).unwrap();
        let target = Target::new(&config, &BuildContext::bare(&webhook)).unwrap();
        let info = WebhookInfo::new(webhook, DataType::Json);
        let headers = headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        target.message(&Delivery::new(info, headers.collect(), "{}"))
    }

    /// The lines of the head, without the command.
    fn lines(message: &Outgoing) -> BTreeMap<String, String> {
        let head = String::from_utf8(frame::head("SEND", None, &message.headers)).unwrap();
        let lines = head.strip_prefix("SEND\n").unwrap().strip_suffix("\n\n").unwrap().lines();
        let lines = lines.map(|line| line.split_once(':').unwrap()).map(|(name, value)| (name.into(), value.into()));
        let (number, found) = (head.lines().count() - 2, lines.collect::<BTreeMap<_, _>>());
        assert_eq!(found.len(), number, "a name occurs twice");
        found
    }

    #[test]
    fn a_message_is_persistent_and_has_the_events_id() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let received = [("content-type", "application/json"), ("traceparent", parent), ("x-tag", "1")];
        let message = message(r#"{"destination": "{namespace}.q"}"#, &received).unwrap();
        assert_eq!((&*message.destination, &message.body[..]), ("/queue/shop.q", &b"{}"[..]));
        let mut lines = lines(&message);
        assert!(lines.remove("X-Event-Id").is_some_and(|id| id.len() == 36) && lines.remove("X-Received-At").is_some());
        let lines: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("X-Namespace", "shop"),
            ("X-Webhook", "orders"),
            ("content-length", "2"),
            ("content-type", "application/json"),
            ("destination", "/queue/shop.q"),
            ("persistent", "true"),
            ("traceparent", parent),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_sender_gives_the_server_no_orders_and_no_further_lines() {
        let received = [
            ("persistent", "false"),
            ("destination", "/queue/theirs"),
            ("receipt", "1"),
            ("expires", "1"),
            ("authorization", "s3cret"),
            ("x-tag", "1"),
            ("x-tag", "a:b\\c"),
        ];
        let config = r#"{"destination": "q", "persistent": false, "forward_headers": true}"#;
        let sent = lines(&message(config, &received).unwrap());
        assert_eq!((&*sent["destination"], &*sent["http-destination"]), ("/queue/q", "/queue/theirs"));
        assert_eq!((&*sent["http-persistent"], &*sent["http-x-tag"]), ("false", "1, a\\cb\\\\c"));
        for name in ["persistent", "receipt", "expires", "authorization", "http-authorization"] {
            assert!(!sent.contains_key(name), "{name}");
        }
        let own = message(r#"{"destination": "q"}"#, &[("content-type", "a:b")]).unwrap();
        assert_eq!(lines(&own)["content-type"], "a\\cb");
        for value in ["a/b", "a.b", "a>b", "*", "a,b", "a?b", "a%2Fb", "a b"] {
            let escaping = message(r#"{"destination": "x.{header:X-Kind}"}"#, &[("x-kind", value)]);
            assert_eq!(escaping.err().unwrap().kind(), DeliverErrorKind::Permanent, "{value}");
        }
    }

    #[test]
    fn a_header_that_a_server_would_refuse_is_an_error_of_this_event_alone() {
        let long = "x".repeat(9000);
        let error = message(r#"{"destination": "q"}"#, &[("content-type", &long)]).unwrap_err();
        assert_eq!(error.kind(), DeliverErrorKind::Permanent);
        assert!(error.to_string().contains("`content-type`") && !error.to_string().contains("xxx"), "{error}");
        assert!(message(r#"{"destination": "q"}"#, &[("x-other", &long)]).is_ok());
    }
}
