//! The rate of the module beside that of the bare client: persistent messages in a durable queue, with confirms and
//! mandatory routing.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use tower_webhook::event::Delivery;
use tower_webhook::module;

use super::QUEUE;
use super::server::{RabbitMq, USER};
use crate::suite::{Access, Broker, PASSWORD};
use crate::support::alone;
use crate::support::speed::{RECEIVED_AT, SENT_ON, Subject, WEBHOOK};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn rabbitmq_beside_the_bare_client() {
    let _alone = alone().await;
    let broker = RabbitMq::start(None).await;
    let uri = format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", broker.port);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await.unwrap();
    let module =
        Subject::<module::RabbitMq>::new(&broker.connection(&Access::at(broker.port)), &broker.webhook()).await;
    let clean = channel.clone();
    let publish = move |event: Delivery| {
        let channel = channel.clone();
        async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let published =
                channel.basic_publish("".into(), QUEUE.into(), options, event.body(), properties(&event)).await;
            assert_eq!(published.unwrap().await.unwrap(), Confirmation::Ack(None));
        }
    };
    let purge = async || {
        clean.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.unwrap();
    };
    module.beside("rabbitmq", publish, purge).await;
}

/// Those that the module sets.
fn properties(event: &Delivery) -> BasicProperties {
    let id = event.id().to_string();
    let mut headers = FieldTable::default();
    let own = [("X-Event-Id", &*id), ("X-Namespace", "shop"), ("X-Webhook", WEBHOOK), ("X-Received-At", RECEIVED_AT)];
    for (name, value) in own.into_iter().chain([("Content-Type", "application/json")]).chain(SENT_ON) {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_timestamp(1_795_781_000)
        .with_message_id(id.into())
        .with_type("shop/orders".into())
        .with_content_type("application/json".into())
        .with_headers(headers)
}
