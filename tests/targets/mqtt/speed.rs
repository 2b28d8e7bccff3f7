//! The rate of the module beside that of the client rumqttc, with the same packet: MQTT 5, QoS 1.

use rumqttc::mqttbytes::v5::PublishProperties;
use rumqttc::{AsyncClient, MqttOptions, PublishOptions, PublishResult};
use serde_json::json;
use tokio::task::JoinSet;
use tower_webhook::event::Delivery;
use tower_webhook::module;

use super::server::{Mosquitto, TOPIC, USER};
use super::{connection, webhook};
use crate::suite::PASSWORD;
use crate::support::alone;
use crate::support::speed::{RECEIVED_AT, Subject, WEBHOOK};

/// How many messages the client may take at a time. It does not batch by itself.
const IN_FLIGHT: u16 = 64;

/// Nobody is subscribed, so that the server does the least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn mqtt_beside_the_bare_client() {
    let _alone = alone().await;
    let broker = Mosquitto::without_reader().await;
    let config = json!({"topic": TOPIC, "require_receiver": false});
    let module = Subject::<module::Mqtt>::new(&connection(&broker, "5"), &webhook(&config)).await;
    let mut options = MqttOptions::new("bare", ("127.0.0.1", broker.port));
    options.set_credentials(USER, PASSWORD).set_max_request_batch(IN_FLIGHT.into());
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (bare, mut events) = AsyncClient::builder(options).capacity(IN_FLIGHT.into()).build();
    // Ends with the test.
    let mut driver = JoinSet::new();
    driver.spawn(async move { while events.poll().await.is_ok() {} });
    let publish = move |event: Delivery| {
        let bare = bare.clone();
        async move {
            let id = event.id().to_string();
            let properties =
                [("X-Event-Id", &*id), ("X-Namespace", "shop"), ("X-Webhook", WEBHOOK), ("X-Received-At", RECEIVED_AT)];
            let properties = PublishProperties {
                user_properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
                content_type: Some("application/json".to_owned()),
                ..PublishProperties::default()
            };
            let options = PublishOptions::at_least_once().properties(properties);
            let sent = bare.publish_tracked(TOPIC, event.body().clone(), options).await.unwrap();
            assert!(matches!(sent.wait_async().await.unwrap(), PublishResult::Qos1(_)));
        }
    };
    module.beside("mqtt", publish, async || {}).await;
}
