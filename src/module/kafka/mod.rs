//! The module `kafka`: events become messages of a topic of Apache Kafka.
//!
//! A delivery has succeeded when all in-sync replicas of the partition have the message (`acks=all`). The producer is
//! idempotent: librdkafka sends a message again until it is confirmed, and the broker keeps one of them. A message may
//! arrive twice after an attempt whose confirmation did not come in time, when it is delivered once more by `retry` or
//! from the queue. Its header `X-Event-Id` is then the same.
//!
//! # Egress
//!
//! librdkafka opens its connections itself. The bootstrap servers are checked against the
//! [`EgressPolicy`](crate::module::EgressPolicy) before it is started, and the addresses that the cluster announces when
//! it has answered; but a name that a broker announces, and that leads to a private address, is not found out. Give a
//! cluster that somebody else operates no network that it should not reach.

mod client;
mod config;
mod error;
mod watch;

use std::fmt;
use std::time::Duration;

pub use self::client::KafkaClient;
use http::HeaderName;

use self::client::Settings;
pub use self::config::{
    KafkaCompression, KafkaConfig, KafkaConnectionConfig, KafkaSasl, KafkaSaslMechanism, KafkaServers,
};
use crate::config::{BuildContext, BuildError};
use crate::egress::{Egress, check_host};
use crate::event::{Ack, DeliverError, Delivery};
use crate::module::broker::{self, EventKey, KAFKA_TOPIC, Properties, Template, uses};
use crate::module::connection::{ConnectionContext, ConnectionKind, Shared};
use crate::module::forward::Forward;
use crate::module::{ConfigModule, Module};

/// The default time limit of a message.
const TIMEOUT: f64 = 10.0;

/// A cluster of Kafka, which webhooks share: the connection type `kafka`.
///
/// ```json
/// {"type": "kafka", "bootstrap_servers": "kafka-1.example.com:9093,kafka-2.example.com:9093", "tls": true,
///  "sasl": {"mechanism": "SCRAM-SHA-512", "username": "hooks", "password": "{$KAFKA_PASSWORD}"}}
/// ```
pub struct KafkaConnection {
    settings: Settings,
}

impl KafkaConnection {
    /// Connects to addresses that `egress` allows, and trusts what it trusts.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`KafkaConnectionConfig`], or a server has an address that the policy of
    /// `egress` refuses.
    pub fn new(egress: &Egress, config: KafkaConnectionConfig) -> Result<Self, BuildError> {
        let servers = config.servers()?;
        for server in &servers {
            check_host(&server.host, egress.policy()).map_err(|error| format!("`bootstrap_servers` {error}"))?;
        }
        let seconds = config.timeout.unwrap_or(TIMEOUT);
        if !(1.0..=60.0).contains(&seconds) {
            return Err("`timeout` must be from 1 to 60 seconds".into());
        }
        if let Some(tls) = &config.tls {
            if tls.server_name.is_some() {
                return Err("`server_name`: librdkafka uses the name of each server; remove the option".into());
            }
            egress.client_tls(tls)?;
        }
        if let Some(sasl) = &config.sasl {
            if config.tls.is_none() && sasl.mechanism == KafkaSaslMechanism::Plain {
                return Err(
                    "`sasl`: `PLAIN` sends the password as it is; it needs `tls`, or use `SCRAM-SHA-512`".into()
                );
            }
            if sasl.username.is_empty() || sasl.password.trim().is_empty() {
                return Err("`sasl` needs a `username` and a `password`".into());
            }
        }
        let timeout = Duration::from_secs_f64(seconds);
        Ok(Self {
            settings: Settings {
                servers,
                tls: config.tls,
                sasl: config.sasl,
                compression: config.compression,
                is_idempotent: config.idempotent,
                timeout,
                egress: egress.clone(),
            },
        })
    }
}

impl ConnectionKind for KafkaConnection {
    const TYPE: &'static str = "kafka";

    type Config = KafkaConnectionConfig;

    /// The producer.
    type Client = KafkaClient;

    /// Connects to public addresses only; [`Registry::egress`](crate::Registry::egress) allows others.
    fn build(config: KafkaConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    async fn connect(&self) -> Result<KafkaClient, DeliverError> {
        KafkaClient::connect(self.settings.clone()).await
    }
}

/// Writes each event to a topic, with the event's body as the message's value, unchanged.
///
/// ```json
/// {"module": "kafka", "connection": "orders", "module-config": {"topic": "shop.orders", "key": {"pointer": "/customer"}}}
/// ```
///
/// The message's headers are `X-Event-Id`, `X-Namespace`, `X-Webhook`, `X-Received-At`, and, if the request had them,
/// `Content-Type`, `Content-Encoding`, `traceparent` and `tracestate`.
pub struct Kafka {
    connection: Shared<KafkaConnection>,
    topic: Template,
    key: Option<EventKey>,
    partition: Option<i32>,
    forward: Forward,
}

impl Module for Kafka {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let topic = self.topic.fill(&delivery)?;
        let key = match &self.key {
            Some(key) => key.of(&delivery)?,
            None => None,
        };
        let properties = Properties::of(&delivery, &self.forward);
        let client = self.connection.client().await?;
        client.send(&topic, self.partition, key.as_deref(), delivery.body(), &properties).await?;
        Ok(Ack::Delivered)
    }

    fn target(&self) -> Option<String> {
        Some(self.topic.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.topic.uses(name) || self.key.as_ref().is_some_and(|key| key.uses(name)) || uses(&self.forward, name)
    }
}

impl ConfigModule for Kafka {
    const NAME: &'static str = "kafka";

    type Config = KafkaConfig;

    fn build(config: KafkaConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        if let Some(key) = &config.key {
            key.check(cx.data_type())?;
        }
        Ok(Self {
            topic: Template::compile("topic", &config.topic, KAFKA_TOPIC, cx.webhook())?,
            key: config.key,
            partition: config.partition.map(i32::from),
            forward: broker::forward(config.forward_headers, config.allowed_headers.as_deref())?,
            connection: cx.connection()?,
        })
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for KafkaConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConnection").field("servers", &self.settings.servers).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("connection", &self.connection)
            .field("topic", &self.topic)
            .field("key", &self.key.as_ref().map(ToString::to_string))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookKey};

    fn connection(json: &str) -> Result<KafkaConnection, String> {
        let config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        KafkaConnection::new(&Egress::default(), config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused_without_its_secrets() {
        for (json, words) in [
            (r#"{}"#, "bootstrap_servers"),
            (r#"{"bootstrap_servers": 9}"#, "expected a string or a list of strings"),
            (r#"{"bootstrap_servers": ""}"#, "`bootstrap_servers`: "),
            (r#"{"bootstrap_servers": "a:0"}"#, "`bootstrap_servers`: expected a port"),
            (r#"{"bootstrap_servers": ["a.example", "127.0.0.1"]}"#, "`bootstrap_servers` names a loopback address"),
            (r#"{"bootstrap_servers": "a.example", "timeout": 0.5}"#, "`timeout` must be from 1 to 60 seconds"),
            (r#"{"bootstrap_servers": "a.example", "tls": {"server_name": "b"}}"#, "`server_name`: "),
            (r#"{"bootstrap_servers": "a.example", "tls": {"ca": "x"}}"#, "`ca`: "),
            (r#"{"bootstrap_servers": "a.example", "tls": {"client_cert": "x"}}"#, "`client_cert` needs"),
            (r#"{"bootstrap_servers": "a.example", "compression": "zip"}"#, "unknown variant `zip`"),
            (
                r#"{"bootstrap_servers": "a.example", "sasl": {"mechanism": "PLAIN", "username": "u", "password": "s3cret"}}"#,
                "needs `tls`",
            ),
            (
                r#"{"bootstrap_servers": "a.example", "sasl": {"username": "s3cret", "password": " "}}"#,
                "`sasl` needs a `username` and a `password`",
            ),
            (r#"{"bootstrap_servers": "a.example", "sasl": {"username": "u"}}"#, "password"),
        ] {
            let error = connection(json).err().unwrap();
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
        let sasl = r#""sasl": {"mechanism": "PLAIN", "username": "u", "password": "s3cret"}"#;
        let shown = connection(&format!(r#"{{"bootstrap_servers": "a.example:9093,b.example", "tls": true, {sasl}}}"#));
        let shown = format!("{:?}", shown.unwrap());
        assert!(shown.contains("a.example") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_webhook_that_cannot_work_is_refused() {
        let key = WebhookKey::new("shop", "orders").unwrap();
        let context = BuildContext::bare(&key);
        for (json, words) in [
            (r#"{}"#, "topic"),
            (r#"{"topic": "a b"}"#, "`topic` is not a topic of Kafka"),
            (r#"{"topic": "{webhok}"}"#, "did you mean `webhook`"),
            (r#"{"topic": "a", "allowed_headers": ["x"]}"#, "`allowed_headers` requires `forward_headers`"),
            (r#"{"topic": "a", "partition": -1}"#, "invalid value"),
            (r#"{"topic": "a"}"#, "this module needs a connection of the type `kafka`"),
        ] {
            let built = serde_json::from_str(json).map_err(|error| error.to_string());
            let built = built.and_then(|config| Kafka::build(config, &context).map_err(|error| error.to_string()));
            let error = built.err().unwrap();
            assert!(error.contains(words), "{json}: {error}");
        }
        let config: KafkaConfig = serde_json::from_str(r#"{"topic": "a", "key": {"form": "x"}}"#).unwrap();
        assert_eq!(context.data_type(), DataType::Json);
        assert!(Kafka::build(config, &context).unwrap_err().to_string().contains("needs the `data_type` form"));
    }
}
