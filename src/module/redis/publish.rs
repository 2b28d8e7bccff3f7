//! `redis_publish`: publishes events to a channel.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use redis::Cmd;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::client::RedisClient;
use super::connection::{RedisConnection, RedisConnectionConfig};
use crate::config::{BuildContext, BuildError};
use crate::egress::Egress;
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use crate::module::broker::{REDIS_NAME, Template, envelope, forward, uses};
use crate::module::connection::Shared;
use crate::module::forward::Forward;
use crate::module::{ConfigModule, Module};

/// The `channel` of `redis`, if it has none.
const CHANNEL: &str = "webhook_events";

/// Publishes each event to a channel of Redis (`PUBLISH`).
///
/// The server keeps no message and no subscriber confirms one. An event is delivered once the server has passed it to the
/// network connections of at least one subscriber; one that breaks at that moment loses it. Without a subscriber the
/// event is gone, so that is an error of the kind [`Unavailable`](DeliverErrorKind::Unavailable), unless
/// `require_receiver` is `false`. The server counts the subscribers that it has itself, not those of other nodes of a
/// cluster.
///
/// # The message
///
/// An object of JSON: `{"payload": …, "headers": {…}}`. `payload` is the body of a `json` webhook byte for byte, the text
/// of a `form`, and for a `blob` its Base64, beside `"encoding": "base64"`. `headers` has the received header fields that
/// are sent on, with names in lower case, and `x-event-id`, `x-namespace`, `x-webhook` and `x-received-at`. With
/// `"format": "body"` the message is the body alone, without the event's id.
///
/// [Errors](super::RedisStream#errors) are those of `redis_stream`.
#[derive(Clone)]
pub struct RedisPublish {
    way: Way,
    target: Arc<Target>,
}

/// The options of [`RedisPublish`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisPublishConfig {
    /// The channel: a text with `{namespace}`, `{webhook}` and `{header:X}`. Required, unless `redis` has one.
    pub channel: Option<String>,
    /// The server, if the webhook names no connection.
    pub redis: Option<RedisServer>,
    /// The message: `envelope` by default, or `body`.
    #[serde(default)]
    pub format: RedisFormat,
    /// Whether an event that no subscriber got is an error: `true` by default.
    #[serde(default = "yes")]
    pub require_receiver: bool,
    /// Whether the envelope has the received header fields: `true` by default.
    #[serde(default = "yes")]
    pub forward_headers: bool,
    /// With `forward_headers`: only these fields. By default all except credentials.
    pub allowed_headers: Option<Vec<String>>,
}

/// A server without a password, with the keys of the Python service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisServer {
    /// The server's name or address: `localhost` by default.
    pub host: Option<String>,
    /// The server's port: 6379 by default.
    pub port: Option<u16>,
    /// The channel: `webhook_events` by default.
    pub channel: Option<String>,
    /// If there is a list, `host` must be in it.
    pub allowed_hosts: Option<Vec<String>>,
}

/// The content of a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RedisFormat {
    /// `{"payload": …, "headers": {…}}`.
    #[default]
    Envelope,
    /// The body, byte for byte.
    Body,
}

fn yes() -> bool {
    true
}

struct Target {
    channel: Template,
    format: RedisFormat,
    require_receiver: bool,
    forward: Forward,
}

/// The client that is used.
#[derive(Clone)]
enum Way {
    Connection(Shared<RedisConnection>),
    /// Of this webhook alone. The first delivery opens it.
    Own(Arc<(RedisConnection, OnceCell<RedisClient>)>),
}

impl RedisPublish {
    /// Publishes through the connection that the webhook names, or to the server in `redis` through `egress`.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`RedisPublishConfig`], or the host is an address that the policy of `egress`
    /// refuses.
    pub fn new(egress: &Egress, config: RedisPublishConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let forwards_nothing = config.format == RedisFormat::Body && config.allowed_headers.is_some();
        if forwards_nothing {
            return Err("`allowed_headers` has no effect with `\"format\": \"body\"`".into());
        }
        let (way, channel) = match (cx.optional_connection()?, config.redis) {
            (Some(_), Some(_)) => return Err("the webhook names a connection, so `redis` must be left out".into()),
            (None, None) => {
                return Err(
                    "the module needs a server: name a `connection` of the type `redis`, or give `redis`".into()
                );
            }
            (Some(connection), None) => (Way::Connection(connection), config.channel),
            (None, Some(server)) => {
                if config.channel.is_some() && server.channel.is_some() {
                    return Err("`channel` is in `redis` too; expected it once".into());
                }
                let channel = server.channel.clone().or(config.channel).unwrap_or_else(|| CHANNEL.to_owned());
                let connection = server.connection(egress).map_err(|error| format!("`redis`: {error}"))?;
                (Way::Own(Arc::new((connection, OnceCell::new()))), Some(channel))
            }
        };
        let channel = channel.ok_or("the key `channel` is missing")?;
        cx.warn(
            "PUBLISH has no acknowledgement: an event counts as delivered once the server has sent it to a subscriber, \
             and is kept nowhere; `redis_stream` keeps events until consumers have read them",
        );
        let target = Target {
            channel: Template::compile("channel", &channel, REDIS_NAME, cx.webhook())?,
            format: config.format,
            require_receiver: config.require_receiver,
            forward: forward(config.forward_headers, config.allowed_headers.as_deref())?,
        };
        Ok(Self { way, target: Arc::new(target) })
    }

    async fn publish(&self, client: &RedisClient, delivery: &Delivery) -> Result<Ack, DeliverError> {
        let channel = self.target.channel.fill(delivery)?;
        let message: Cow<'_, [u8]> = match self.target.format {
            RedisFormat::Body => Cow::Borrowed(delivery.body()),
            RedisFormat::Envelope => Cow::Owned(envelope::json(delivery, &self.target.forward)),
        };
        let bytes = message.len();
        let mut publish = Cmd::with_capacity(3, "PUBLISH".len() + channel.len() + bytes);
        publish.arg("PUBLISH").arg(&*channel).arg(&*message);
        let send = |mut connection| async move { publish.query_async::<u64>(&mut connection).await };
        let session = client.session().await?;
        let receivers = session.query(bytes, send).await?;
        match receivers == 0 && self.target.require_receiver {
            false => Ok(Ack::Delivered),
            true => {
                let reason =
                    format!("{}: no client is subscribed to the channel, so the event is gone", session.server());
                Err(DeliverError::new(DeliverErrorKind::Unavailable, reason))
            }
        }
    }
}

impl RedisServer {
    fn connection(&self, egress: &Egress) -> Result<RedisConnection, BuildError> {
        let host = self.host.clone().unwrap_or_else(|| "localhost".to_owned());
        if let Some(hosts) = &self.allowed_hosts
            && !hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host))
        {
            return Err("`host` is not one of `allowed_hosts`".into());
        }
        let config = RedisConnectionConfig {
            url: None,
            host: Some(host),
            port: self.port,
            user: None,
            password: None,
            db: None,
            tls: None,
            timeout: None,
        };
        RedisConnection::new(egress, config)
    }
}

impl Module for RedisPublish {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        match &self.way {
            Way::Connection(connection) => self.publish(&*connection.client().await?, &delivery).await,
            Way::Own(own) => {
                let client = own.1.get_or_init(async || own.0.open()).await;
                self.publish(client, &delivery).await
            }
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.target.channel.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.channel.uses(name)
            || (self.target.format == RedisFormat::Envelope && uses(&self.target.forward, name))
    }
}

impl ConfigModule for RedisPublish {
    const NAME: &'static str = "redis_publish";
    type Config = RedisPublishConfig;

    /// Connects to public addresses only, if the webhook names no connection.
    fn build(config: RedisPublishConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config, cx)
    }
}

impl fmt::Debug for RedisPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPublish").field("format", &self.target.format).finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisPublishConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPublishConfig")
            .field("channel", &self.channel)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookKey;

    fn build(json: &str) -> Result<RedisPublish, String> {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let egress = Egress::new("127.0.0.0/8".parse().unwrap());
        let config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        RedisPublish::new(&egress, config, &BuildContext::bare(&webhook)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_old_key_works_with_its_defaults() {
        let module = build(r#"{"redis": {}}"#).unwrap();
        assert_eq!(module.target.channel.constant(), Some(CHANNEL));
        let module =
            build(r#"{"redis": {"host": "localhost", "port": 7, "channel": "c", "allowed_hosts": ["localhost"]}}"#);
        assert_eq!(module.unwrap().target.channel.constant(), Some("c"));
    }

    #[test]
    fn unusable_options_are_refused() {
        for (json, words) in [
            ("{}", "needs a server"),
            (r#"{"channel": "c"}"#, "needs a server"),
            (r#"{"redis": {"channel": "c"}, "channel": "d"}"#, "`channel` is in `redis` too"),
            (r#"{"redis": {"host": "10.0.0.1"}}"#, "`redis`: the host names a private address"),
            (r#"{"redis": {"host": "a.example", "allowed_hosts": ["b.example"]}}"#, "not one of `allowed_hosts`"),
            (r#"{"redis": {"password": "s3cret"}}"#, "unknown field `password`"),
            (r#"{"redis": {}, "channel": "{x}"}"#, "`channel`"),
            (r#"{"redis": {}, "format": "xml"}"#, "unknown variant"),
            (r#"{"redis": {}, "format": "body", "allowed_headers": ["a"]}"#, "no effect"),
            (r#"{"redis": {}, "forward_headers": false, "allowed_headers": ["a"]}"#, "requires `forward_headers`"),
        ] {
            let error = build(json).unwrap_err();
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
    }
}
