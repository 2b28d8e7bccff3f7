//! The producer of a connection.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::time::timeout;

use super::config::{KafkaCompression, KafkaSasl};
use super::error::{bounded, of_message};
use super::watch::{Callbacks, Watch};
use crate::base::lock::lock;
use crate::egress::{ConnectError, Egress, TlsOptions, check_host, literal};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Properties, Server};

/// How long a delivery waits for a broker to be connected again.
const PATIENCE: Duration = Duration::from_millis(900);

/// How long a bootstrap server may take to accept a connection.
const REACH: Duration = Duration::from_secs(3);

/// How long the first login may take after a bootstrap server has been reached.
const FIRST: Duration = Duration::from_secs(6);

/// The most messages, and the most KiB of them, that wait in the producer.
const MAX_WAITING: (&str, &str) = ("20000", "65536");

/// The largest message that the producer sends; the broker has a limit of its own.
const MAX_MESSAGE: &str = "67108864";

/// The settings of a connection.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) servers: Vec<Server>,
    pub(super) tls: Option<TlsOptions>,
    pub(super) sasl: Option<KafkaSasl>,
    pub(super) compression: KafkaCompression,
    pub(super) is_idempotent: bool,
    pub(super) timeout: Duration,
    pub(super) egress: Egress,
}

/// The client of a [`KafkaConnection`](super::KafkaConnection). It connects again by itself.
pub struct KafkaClient {
    settings: Settings,
    producer: Mutex<Arc<Producer>>,
}

/// A producer of librdkafka, which has threads of its own.
struct Producer {
    /// Taken when it is dropped.
    inner: Option<FutureProducer<Callbacks>>,
    watch: Arc<Watch>,
}

impl KafkaClient {
    /// Reaches a bootstrap server, and starts a producer that is connected.
    pub(super) async fn connect(settings: Settings) -> Result<Self, DeliverError> {
        reach(&settings).await?;
        let producer = Arc::new(Producer::start(&settings).await?);
        // A broker that has accepted the connection and says nothing is not away.
        let silent = || {
            let text = format!("no broker has answered the login within {FIRST:?}");
            DeliverError::new(DeliverErrorKind::Timeout, text)
        };
        producer.connected(FIRST, silent).await?;
        producer.check_announced(&settings).await?;
        Ok(Self { settings, producer: Mutex::new(producer) })
    }

    /// Sends a message, and waits until all in-sync replicas have it.
    pub(super) async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        body: &[u8],
        properties: &Properties<'_>,
    ) -> Result<(), DeliverError> {
        let producer = self.producer().await?;
        producer.connected(PATIENCE, away).await?;
        let mut headers = OwnedHeaders::new();
        properties.each(|name, value| {
            headers = std::mem::take(&mut headers).insert(Header { key: name, value: Some(value) })
        });
        let record =
            FutureRecord { topic, partition, payload: Some(body), key, timestamp: None, headers: Some(headers) };
        let sent = producer.inner()?.send_result(record).map_err(|(error, _)| of_message(&error, topic))?;
        let outcome = tokio::select! {
            outcome = sent => outcome,
            // librdkafka keeps the message and may still send it, within the time limit of a message.
            () = producer.watch.lost(PATIENCE) => return Err(producer.watch.error().unwrap_or_else(away)),
        };
        match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(of_message(&error, topic)),
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Unavailable, "the producer has ended")),
        }
    }

    /// The producer; a new one if it has failed for good.
    async fn producer(&self) -> Result<Arc<Producer>, DeliverError> {
        let current = Arc::clone(&lock(&self.producer));
        if !current.watch.is_dead() {
            return Ok(current);
        }
        let new = Arc::new(Producer::start(&self.settings).await?);
        let mut producer = lock(&self.producer);
        // Another delivery may have replaced it meanwhile.
        if producer.watch.is_dead() {
            *producer = new;
        }
        Ok(Arc::clone(&producer))
    }
}

/// Connects to the bootstrap servers and hangs up: librdkafka opens its connections itself, so the policy must be checked
/// before, and servers that are away are known at once. One of them is enough.
async fn reach(settings: &Settings) -> Result<(), DeliverError> {
    let tried = settings.servers.iter().map(async |server| {
        let connected = timeout(REACH, settings.egress.connect(&server.host, server.port)).await;
        connected.unwrap_or(Err(ConnectError::Timeout)).map_err(|error| (server, error))
    });
    let failed: Vec<_> = join_all(tried).await.into_iter().filter_map(Result::err).collect();
    // librdkafka may choose any of them, so one that is forbidden counts although another is reached.
    let forbidden =
        failed.iter().find(|(_, error)| matches!(error, ConnectError::Forbidden(..) | ConnectError::Unknown(_)));
    if let Some((server, error)) = forbidden {
        return Err(DeliverError::new(DeliverErrorKind::Config, format!("{server}: {error}")));
    }
    match failed.first() {
        Some((server, error)) if failed.len() == settings.servers.len() => {
            Err(DeliverError::new(DeliverErrorKind::Connect, format!("{server}: {error}")))
        }
        _ => Ok(()),
    }
}

impl Producer {
    async fn start(settings: &Settings) -> Result<Self, DeliverError> {
        let watch = Arc::<Watch>::default();
        let (config, context) = (config(settings).await?, Callbacks(Arc::clone(&watch)));
        // It starts threads, and reads certificates.
        let made = tokio::task::spawn_blocking(move || config.create_with_context(context)).await;
        let wrong = |error: String| DeliverError::new(DeliverErrorKind::Config, bounded(&error));
        let inner = made.map_err(|_| wrong("the producer cannot be started".to_owned()))?;
        // The value of an option may be a secret, and some errors quote it.
        let inner = inner.map_err(|error| match error {
            rdkafka::error::KafkaError::ClientConfig(_, text, option, _) => wrong(format!("{option}: {text}")),
            error => wrong(error.to_string()),
        })?;
        Ok(Self { inner: Some(inner), watch })
    }

    fn inner(&self) -> Result<&FutureProducer<Callbacks>, DeliverError> {
        let ended = || DeliverError::new(DeliverErrorKind::Unavailable, "the producer has ended");
        self.inner.as_ref().ok_or_else(ended)
    }

    /// Waits for a connected broker. If nothing is known of the broker after `patience`, the error is `unknown`.
    async fn connected(&self, patience: Duration, unknown: impl Fn() -> DeliverError) -> Result<(), DeliverError> {
        let late = |_| Err(self.watch.error().unwrap_or_else(unknown));
        timeout(patience, self.watch.up()).await.unwrap_or_else(late)
    }

    /// Checks the addresses of the servers that the cluster announces.
    async fn check_announced(&self, settings: &Settings) -> Result<(), DeliverError> {
        let producer = self.inner()?.clone();
        let patience = settings.timeout;
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(None, patience);
            metadata
                .map(|metadata| metadata.brokers().iter().map(|broker| broker.host().to_owned()).collect::<Vec<_>>())
        });
        let announced = match asked.await {
            Ok(Ok(announced)) => announced,
            Ok(Err(error)) => return Err(of_message(&error, "(metadata)")),
            Err(_) => return Err(DeliverError::new(DeliverErrorKind::Unavailable, "the metadata cannot be read")),
        };
        for host in announced.iter().filter(|host| literal(host).is_some()) {
            check_host(host, settings.egress.policy()).map_err(|error| {
                DeliverError::new(DeliverErrorKind::Config, format!("a broker announces an address that {error}"))
            })?;
        }
        Ok(())
    }
}

/// The error while no broker is connected, if nothing else is known.
fn away() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Connect, "no broker is connected")
}

/// Ending librdkafka waits for its threads: this must hold up neither a request nor the configuration.
impl Drop for Producer {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // Without a thread it is dropped here.
        let _ = std::thread::Builder::new().name("kafka-end".to_owned()).spawn(move || drop(inner));
    }
}

async fn config(settings: &Settings) -> Result<ClientConfig, DeliverError> {
    let servers: Vec<_> = settings.servers.iter().map(Server::to_string).collect();
    let millis = settings.timeout.as_millis().to_string();
    let mut config = ClientConfig::new();
    config
        .set("client.id", "tower-webhook")
        .set("bootstrap.servers", servers.join(","))
        .set("enable.idempotence", if settings.is_idempotent { "true" } else { "false" })
        .set("acks", "all")
        .set("compression.type", settings.compression.name())
        .set("message.timeout.ms", &millis)
        .set("request.timeout.ms", &millis)
        .set("socket.timeout.ms", &millis)
        .set("linger.ms", "1")
        .set("message.max.bytes", MAX_MESSAGE)
        .set("queue.buffering.max.messages", MAX_WAITING.0)
        .set("queue.buffering.max.kbytes", MAX_WAITING.1)
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.propagation.max.ms", "2000")
        // Connections are kept to all brokers: else nothing tells that a broker is back before a message is for it.
        .set("enable.sparse.connections", "false")
        .set("statistics.interval.ms", "250")
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(sasl) = &settings.sasl {
        config
            .set("sasl.mechanisms", sasl.mechanism.name())
            .set("sasl.username", &sasl.username)
            .set("sasl.password", &sasl.password);
    }
    if let Some(tls) = &settings.tls {
        config.set("ssl.endpoint.identification.algorithm", "https").set("ssl.ca.pem", trusted(settings, tls).await?);
        if let (Some(certificate), Some(key)) = (&tls.client_cert, &tls.client_key) {
            config.set("ssl.certificate.pem", certificate).set("ssl.key.pem", key);
        }
    }
    Ok(config)
}

/// The certificates that are trusted, in PEM: the system's, those of the egress, and the connection's own.
async fn trusted(settings: &Settings, tls: &TlsOptions) -> Result<String, DeliverError> {
    let of_egress = settings.egress.certificates();
    let native = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let native = native.map(|native| native.certs).unwrap_or_default();
    let mut pem = tls.ca.clone().unwrap_or_default();
    for certificate in native.iter().chain(&of_egress) {
        let text = BASE64_STANDARD.encode(certificate);
        pem.push_str("\n-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    match pem.is_empty() {
        true => Err(DeliverError::new(DeliverErrorKind::Config, "no certificate authority is known")),
        false => Ok(pem),
    }
}

impl fmt::Debug for KafkaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaClient").field("servers", &self.settings.servers).finish_non_exhaustive()
    }
}
