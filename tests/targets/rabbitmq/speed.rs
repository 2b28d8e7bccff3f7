//! The rate of the module beside that of the bare client: the same server, message, acknowledgement and number in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use serde_json::json;

use super::QUEUE;
use super::server::{RabbitMq, USER};
use crate::suite::{Access, Broker, PASSWORD};
use crate::support::alone;
use crate::support::rig::Rig;

const IN_FLIGHT: usize = 64;

/// Calls `send` `events` times, 64 at a time. Returns the rate for a second.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    events: usize,
    send: impl Fn() -> F + Send + Sync + 'static,
) -> f64 {
    let (left, send) = (Arc::new(AtomicUsize::new(events)), Arc::new(send));
    let began = Instant::now();
    let senders: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (left, send) = (Arc::clone(&left), Arc::clone(&send));
            tokio::spawn(async move {
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    send().await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    events as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: `cargo test --release --all-features --test targets rate_beside -- --ignored --nocapture`"]
async fn the_rate_beside_the_bare_client() {
    let _alone = alone().await;
    let broker = RabbitMq::start(None).await;
    let rig = Arc::new(Rig::start().await);
    rig.connection("c", &broker.connection(&Access::at(broker.port))).await;
    let mut webhook = broker.webhook();
    webhook["data_type"] = json!("blob");
    rig.webhook("a", &webhook).await;
    rig.webhook("none", &json!({"module": "discard", "data_type": "blob"})).await;

    let uri = format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", broker.port);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await.unwrap();

    for bytes in [250, 4096] {
        let body: Arc<[u8]> = vec![b'x'; bytes].into();
        let (mut modules, mut bares) = (Vec::new(), Vec::new());
        for round in 0..4 {
            let (channel, bare) = (channel.clone(), Arc::clone(&body));
            let bare = rate(3_000, move || {
                let (channel, body) = (channel.clone(), Arc::clone(&bare));
                async move {
                    let options = BasicPublishOptions { mandatory: true, immediate: false };
                    let publish = channel.basic_publish("".into(), QUEUE.into(), options, &body, properties());
                    assert_eq!(publish.await.unwrap().await.unwrap(), Confirmation::Ack(None));
                }
            });
            let bare = bare.await;
            let (rig, own) = (Arc::clone(&rig), Arc::clone(&body));
            let module = rate(3_000, move || {
                let (rig, body) = (Arc::clone(&rig), own.to_vec());
                async move { assert_eq!(rig.post("a", body).await.status, 200) }
            });
            let module = module.await;
            broker.control(&["purge_queue", QUEUE]).await;
            // The first round warms both up.
            if round > 0 {
                modules.push(module);
                bares.push(bare);
            }
        }
        let (discarding, own) = (Arc::clone(&rig), Arc::clone(&body));
        let receiver = rate(3_000, move || {
            let (rig, body) = (Arc::clone(&discarding), own.to_vec());
            async move { assert_eq!(rig.post("none", body).await.status, 200) }
        });
        println!("the receiver alone, with `discard`: {:.0}/s", receiver.await);
        let (module, bare) = (median(modules), median(bares));
        println!(
            "{bytes} B, {IN_FLIGHT} in flight: module {module:.0}/s, bare lapin {bare:.0}/s, ratio {:.2}",
            module / bare
        );
    }
}

/// Those that the module sets.
fn properties() -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("X-Event-Id", "01a21ce6-74a7-76d4-b8df-6e0d6dcacf96"),
        ("X-Namespace", "shop"),
        ("X-Webhook", "a"),
        ("X-Received-At", "2026-11-27T12:00:00.000Z"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_timestamp(1_795_781_000)
        .with_message_id("01a21ce6-74a7-76d4-b8df-6e0d6dcacf96".into())
        .with_type("shop/a".into())
        .with_headers(headers)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
