//! The options of connections of type `kafka`, and of the module.

use std::fmt;

use serde::Deserialize;

use crate::config::BuildError;
use crate::egress::TlsOptions;
use crate::module::broker::{EventKey, Server, servers};

/// Kafka's usual port.
const PORT: u16 = 9092;

/// The options of [`KafkaConnection`](super::KafkaConnection).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConnectionConfig {
    /// The servers that are asked for the cluster's other servers: `host:port`, separated by commas, or a list of them.
    /// The default port is 9092.
    pub bootstrap_servers: KafkaServers,
    /// `true`, or an object with the options of TLS. `server_name` is refused: librdkafka cannot honour it. The default is
    /// `false`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
    /// How the client authenticates itself. By default it does not.
    pub sasl: Option<KafkaSasl>,
    /// How batches are compressed: `none` (the default), `gzip`, `snappy` or `lz4`.
    #[serde(default)]
    pub compression: KafkaCompression,
    /// Whether a broker keeps only one of a message that the client sends again. The default is `true`; `false` is for a
    /// cluster that does not allow it.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// The time limit for one message, in seconds, from 1 to 60. The default is 10.
    pub timeout: Option<f64>,
}

fn yes() -> bool {
    true
}

/// A text, or a list of texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum KafkaServers {
    /// Separated by commas.
    Text(String),
    /// One each.
    List(Vec<String>),
}

/// SASL, in [`KafkaConnectionConfig`].
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSasl {
    /// The mechanism. The default is `SCRAM-SHA-512`.
    #[serde(default)]
    pub mechanism: KafkaSaslMechanism,
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// A mechanism of SASL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum KafkaSaslMechanism {
    /// The password is sent as it is. Refused without TLS, except to this machine.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256 (RFC 7677).
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaSaslMechanism {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaCompression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
}

impl KafkaCompression {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
        }
    }
}

impl KafkaConnectionConfig {
    /// The servers, at least one.
    pub(super) fn servers(&self) -> Result<Vec<Server>, BuildError> {
        let text = match &self.bootstrap_servers {
            KafkaServers::Text(text) => text.clone(),
            KafkaServers::List(list) => list.join(","),
        };
        servers("bootstrap_servers", &text, PORT)
    }
}

/// The options of the module `kafka`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// The topic. It may contain `{namespace}`, `{webhook}` and `{header:X}`.
    pub topic: String,
    /// The key, by which Kafka chooses the partition: events with the same key are in order. `{"header": name}`,
    /// `{"pointer": "/key"}`, `{"form": name}`, or a literal. By default there is none.
    pub(super) key: Option<EventKey>,
    /// The partition. By default Kafka's client chooses it.
    pub partition: Option<u16>,
    /// Whether received header fields are sent on, except those of the sender's connection and credentials. The default is
    /// `false`.
    #[serde(default)]
    pub forward_headers: bool,
    /// Only these fields are sent on. A credential is sent on only if it is named here.
    pub allowed_headers: Option<Vec<String>>,
}

/// Omits everything that may hold a secret.
impl fmt::Debug for KafkaConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConnectionConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// Omits the password.
impl fmt::Debug for KafkaSasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSasl").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}
