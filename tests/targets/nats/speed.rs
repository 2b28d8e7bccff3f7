//! How fast events pass through the module, and through the bare client.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::server::{Nats, USER, V215};
use crate::suite::{Access, Broker, PASSWORD};
use crate::support::alone;
use crate::support::rig::Rig;

const IN_FLIGHT: usize = 64;

const EVENTS: usize = 5_000;

/// Both wait for the acknowledgement of a stream in memory, of the same server. The rounds alternate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for an optimised build: `cargo test --profile bench --all-features --test targets nats::speed -- --ignored --nocapture`"]
async fn the_module_is_as_fast_as_the_bare_client() {
    let _alone = alone().await;
    let nats = Nats::<V215>::start(PASSWORD, None).await;
    nats.api(
        "STREAM.CREATE.SPEED",
        json!({"name": "SPEED", "subjects": ["speed.>"], "storage": "memory", "max_bytes": 50_000_000}),
    )
    .await;
    let rig = Rig::start().await;
    rig.connection("c", &nats.connection(&Access::at(nats.port))).await;
    rig.webhook(
        "a",
        &json!({"module": "nats", "connection": "c", "data_type": "blob", "module-config": {"subject": "speed.a"}}),
    )
    .await;
    let options = async_nats::ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
    let client = options.connect(format!("127.0.0.1:{}", nats.port)).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);

    for bytes in [250, 4096] {
        let body = Bytes::from(vec![b'x'; bytes]);
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            rates[0].push(
                rate(|number| {
                    let (jetstream, body) = (jetstream.clone(), body.clone());
                    async move {
                        let mut headers = HeaderMap::new();
                        headers.insert("Nats-Msg-Id", format!("{}-{number}", fastrand::u64(..)));
                        let acknowledged = jetstream.publish_with_headers("speed.b", headers, body).await.unwrap();
                        acknowledged.await.unwrap();
                    }
                })
                .await,
            );
            rates[1].push(rate(|_| async { assert_eq!(rig.post("a", body.clone()).await.status, 200) }).await);
        }
        let [bare, module] = rates.map(median);
        println!("nats, {bytes} B: {bare:.0}/s bare, {module:.0}/s through the module: {:.2}", module / bare);
    }
}

async fn rate<F: Future<Output = ()>>(publish: impl Fn(usize) -> F) -> f64 {
    let began = Instant::now();
    stream::iter(0..EVENTS).map(publish).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    EVENTS as f64 / began.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
