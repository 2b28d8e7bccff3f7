//! Bodies in memory have a budget, which tenants share.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{alone, eventually, within};

const MIB: usize = 1 << 20;

/// For bodies, in MiB.
const BUDGET: usize = 64;

/// The rest of the process under this load: connections without TLS, the windows of HTTP/2, memory that the allocator
/// keeps.
const OVERHEAD_KB: u64 = 150 << 10;

fn webhook(target: &Target, path: &str) -> Value {
    json!({"module": "http_webhook", "data_type": "blob", "module-config": {"url": target.url(path), "timeout": 300}})
}

async fn start(target: &Target) -> (Home, Gateway) {
    let home = Home::new(&json!({
        "one": {"hangs": webhook(target, "/hangs"), "works": webhook(target, "/works")},
        "two": {"works": webhook(target, "/works")},
    }));
    let home = home.with("BODY_MEMORY_BYTES", BUDGET * MIB).with("DELIVERY_TIMEOUT_SECONDS", 600);
    let gateway = home.start().await;
    (home, gateway)
}

async fn target() -> Target {
    Target::start(|arrival| match arrival.path.as_str() {
        "/hangs" => Reply::Silence,
        _ => Reply::ok(),
    })
    .await
}

async fn held(gateway: &Gateway) -> usize {
    gateway.metric("tower_webhook_body_memory_bytes").await.unwrap() as usize
}

/// A body that announces nothing and never ends.
struct Endless {
    left: usize,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Pending;
        }
        self.left = self.left.saturating_sub(64 << 10);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 64 << 10])))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_on_one_connection_take_no_more_than_the_budget() {
    let _guard = alone().await;
    let target = target().await;
    let (_home, gateway) = start(&target).await;
    let before = gateway.resident_kb();

    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut answers = JoinSet::new();
    for _ in 0..40 {
        let mut sender = sender.clone();
        answers.spawn(async move {
            let request = Request::post("http://gateway/webhook/two/works").body(Endless { left: 20 * MIB }).unwrap();
            sender.send_request(request).await.map(|answer| (answer.status(), answer.headers().clone()))
        });
    }
    let (status, headers) = within("a refusal", answers.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "5"));

    eventually("the budget to be used", async || held(&gateway).await > BUDGET / 3 * MIB).await;
    // Small events are still served, also those of others.
    for path in ["/webhook/one/works", "/webhook/two/works"] {
        assert_eq!(gateway.post(path, &[b'y'; 60 << 10]).await.status, 200, "{path}");
    }
    let (held, after) = (held(&gateway).await, gateway.resident_kb());
    println!("bodies: {before} kB -> {after} kB with {held} bytes of bodies");
    assert!(held <= BUDGET * MIB, "{held}");
    assert!(after < before + (BUDGET << 10) as u64 + OVERHEAD_KB, "{before} kB -> {after} kB");
    drop((answers, sender));
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_for_a_target_that_hangs_leave_memory_to_others() {
    let _guard = alone().await;
    let target = target().await;
    let (_home, gateway) = start(&target).await;
    let body = vec![b'x'; 8 * MIB];
    let mut senders = JoinSet::new();
    for _ in 0..20 {
        let (mut client, body) = (gateway.client().await, body.clone());
        senders.spawn(async move { client.post("/webhook/one/hangs", &body).await.map(|answer| answer.status) });
    }
    let mut refused = 0;
    // Large bodies of one webhook may take half of the 56 MiB.
    while refused < 20 - 56 / 2 / 8 {
        let status = within("a refusal", senders.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(status, 503);
        refused += 1;
    }
    assert!(held(&gateway).await >= 2 * body.len(), "some of them are being delivered");
    // The namespace's other webhook has less room than the next namespace's, but both have some.
    for path in ["/webhook/one/works", "/webhook/two/works"] {
        assert_eq!(gateway.post(path, &body).await.status, 200, "{path}");
    }
    drop(senders);
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_given_back_when_a_sender_goes_or_its_event_is_done() {
    let _guard = alone().await;
    let target = target().await;
    let (_home, gateway) = start(&target).await;
    for _ in 0..3 {
        assert_eq!(gateway.post("/webhook/one/works", &vec![b'x'; 20 * MIB]).await.status, 200);
        let mut client = gateway.client().await;
        let body = vec![b'x'; 10 * MIB];
        // The sender breaks off in the middle.
        let half = async { client.send_part("/webhook/one/works", &body, 5 * MIB).await };
        within("half a body", half).await.unwrap();
        eventually("half a body to be held", async || held(&gateway).await >= 4 * MIB).await;
        drop(client);
        eventually("nothing to be held", async || held(&gateway).await == 0).await;
    }
    gateway.stop().await;
}
