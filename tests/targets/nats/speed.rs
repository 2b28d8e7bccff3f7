//! The rates of the module, with JetStream and without, beside those of the bare client.

use async_nats::{HeaderMap, Request, RequestErrorKind};
use serde_json::json;
use tower_webhook::event::Delivery;
use tower_webhook::module;

use super::server::{Nats, USER, V215};
use super::webhook;
use crate::suite::{Access, Broker, PASSWORD};
use crate::support::alone;
use crate::support::speed::{RECEIVED_AT, Subject, WEBHOOK};

/// A server with a stream in memory, because one on disk measures the disk.
async fn server() -> (Nats<V215>, async_nats::Client) {
    let nats = Nats::<V215>::start(PASSWORD, None).await;
    nats.api(
        "STREAM.CREATE.SPEED",
        json!({"name": "SPEED", "subjects": ["speed.>"], "storage": "memory", "max_bytes": 50_000_000}),
    )
    .await;
    let options = async_nats::ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
    let client = options.connect(format!("127.0.0.1:{}", nats.port)).await.unwrap();
    (nats, client)
}

/// Those that the module sets.
fn headers(event: &Delivery) -> HeaderMap {
    let (id, mut headers) = (event.id().to_string(), HeaderMap::new());
    for (name, value) in [
        ("X-Event-Id", &*id),
        ("X-Namespace", "shop"),
        ("X-Webhook", WEBHOOK),
        ("X-Received-At", RECEIVED_AT),
        ("Content-Type", "application/json"),
    ] {
        headers.insert(name, value);
    }
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn jetstream_beside_the_bare_client() {
    let _alone = alone().await;
    let (nats, client) = server().await;
    let connection = nats.connection(&Access::at(nats.port));
    let module = Subject::<module::Nats>::new(&connection, &webhook(json!({"subject": "speed.a"}))).await;
    let jetstream = async_nats::jetstream::new(client);
    let publish = move |event: Delivery| {
        let jetstream = jetstream.clone();
        async move {
            let mut headers = headers(&event);
            headers.insert("Nats-Msg-Id", event.id().to_string());
            let acknowledged = jetstream.publish_with_headers("speed.b", headers, event.body().clone()).await.unwrap();
            acknowledged.await.unwrap();
        }
    };
    module.beside("nats, JetStream", publish, async || drop(nats.api("STREAM.PURGE.SPEED", json!({})).await)).await;
}

/// The bare client has the same acknowledgement: the server has answered a later request, so it has read the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn core_nats_beside_the_bare_client() {
    let _alone = alone().await;
    let (nats, client) = server().await;
    let connection = nats.connection(&Access::at(nats.port));
    let options = json!({"subject": "core.a", "jetstream": false});
    let module = Subject::<module::Nats>::new(&connection, &webhook(options)).await;
    let publish = move |event: Delivery| {
        let client = client.clone();
        async move {
            client.publish_with_headers("core.b", headers(&event), event.body().clone()).await.unwrap();
            let answer = client.send_request(client.new_inbox(), Request::new()).await;
            assert_eq!(answer.unwrap_err().kind(), RequestErrorKind::NoResponders);
        }
    };
    module.beside("nats, core", publish, async || {}).await;
}
