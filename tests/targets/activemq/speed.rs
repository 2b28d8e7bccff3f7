//! How fast events pass through the module, and through a bare socket that keeps as many frames in flight.

use std::time::Instant;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{RABBITMQ_USER, Stomp};
use crate::suite::{Access, Broker, PASSWORD};
use crate::support::alone;
use crate::support::rig::Rig;

const IN_FLIGHT: usize = 64;

const EVENTS: usize = 5_000;

/// Both wait for the receipt of each message in a durable queue. The rounds alternate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for an optimised build: `cargo test --profile bench --all-features --test targets activemq::speed -- --ignored --nocapture`"]
async fn the_rate_beside_a_bare_socket() {
    let _alone = alone().await;
    let broker = Stomp::start(None).await;
    let rig = Rig::start().await;
    rig.connection("c", &broker.connection(&Access::at(broker.port))).await;
    let mut webhook = broker.webhook();
    webhook["data_type"] = json!("blob");
    rig.webhook("a", &webhook).await;
    for bytes in [250, 4096] {
        let body = vec![b'x'; bytes];
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            rates[0].push(bare(broker.port, &body).await);
            let began = Instant::now();
            let posts = stream::iter(0..EVENTS).map(|_| async {
                assert_eq!(rig.post("a", body.clone()).await.status, 200);
            });
            posts.buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
            rates[1].push(EVENTS as f64 / began.elapsed().as_secs_f64());
        }
        let [bare, module] = rates.map(median);
        println!("activemq, {bytes} B: {bare:.0}/s bare, {module:.0}/s through the module: {:.2}", module / bare);
    }
}

async fn bare(port: u16, body: &[u8]) -> f64 {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let login = format!("CONNECT\naccept-version:1.2\nhost:/\nlogin:{RABBITMQ_USER}\npasscode:{PASSWORD}\n\n\0");
    socket.write_all(login.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 64 << 10];
    assert!(socket.read(&mut buffer).await.unwrap() > 0 && buffer.starts_with(b"CONNECTED"));
    let frame = |number: usize| {
        let head = format!(
            "SEND\nreceipt:{number}\ndestination:/queue/events\ncontent-length:{}\npersistent:true\nX-Namespace:shop\n\
             X-Event-Id:01a21ce6-74a7-76d4-b8df-6e0d6dcacf96\nX-Webhook:a\nX-Received-At:2026-11-27T12\\c00\\c00.000Z\n\n",
            body.len()
        );
        [head.as_bytes(), body, b"\0"].concat()
    };
    let began = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < EVENTS {
        let more: Vec<u8> = (sent..EVENTS.min(received + IN_FLIGHT)).flat_map(frame).collect();
        sent = EVENTS.min(received + IN_FLIGHT);
        socket.write_all(&more).await.unwrap();
        let read = socket.read(&mut buffer).await.unwrap();
        assert!(read > 0 && !buffer.starts_with(b"ERROR"));
        received += buffer[..read].iter().filter(|byte| **byte == 0).count();
    }
    EVENTS as f64 / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
