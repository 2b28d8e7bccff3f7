//! The rate of the module beside that of the bare client: `acks=all`, idempotent, with the same `linger.ms`.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use tower_webhook::event::Delivery;
use tower_webhook::module::Kafka;

use super::TOPIC;
use super::server::{Options, Tansu};
use crate::support::alone;
use crate::support::speed::{RECEIVED_AT, Subject, WEBHOOK};

/// The server keeps the messages in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn kafka_beside_the_bare_client() {
    let _alone = alone().await;
    let tansu = Tansu::start(Options::default()).await;
    let servers = format!("127.0.0.1:{}", tansu.port);
    let connection = json!({"type": "kafka", "bootstrap_servers": servers});
    let webhook = json!({"module": "kafka", "connection": "c", "module-config": {"topic": TOPIC}});
    let module = Subject::<Kafka>::new(&connection, &webhook).await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "1");
    let bare: FutureProducer = config.create().unwrap();
    let send = move |event: Delivery| {
        let bare = bare.clone();
        async move {
            let (id, mut headers) = (event.id().to_string(), OwnedHeaders::new());
            for (key, value) in [
                ("X-Event-Id", &*id),
                ("X-Namespace", "shop"),
                ("X-Webhook", WEBHOOK),
                ("X-Received-At", RECEIVED_AT),
                ("Content-Type", "application/json"),
            ] {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let record = FutureRecord::<(), _>::to(TOPIC).payload(&event.body()[..]).headers(headers);
            bare.send(record, Duration::from_secs(10)).await.unwrap();
        }
    };
    module.beside("kafka", send, async || {}).await;
}
