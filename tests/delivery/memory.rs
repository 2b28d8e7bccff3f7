//! Waiting events are on disk: memory holds their positions, and little else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{PATIENCE, alone, eventually};

const EVENTS: usize = 100_000;

const BYTES: usize = 300;

/// By how much that many events may make the process grow, in kB.
const MOST_KB: u64 = 30 << 10;

/// The time within which a gateway that finds that many events must be ready.
const READY: Duration = Duration::from_secs(30);

fn webhooks(target: &Target) -> Value {
    json!({"default": {"waits": {
        "module": "http_webhook",
        "ack": "accepted",
        "module-config": {"url": target.url("/waits"), "timeout": 300},
    }}})
}

/// Sends `events` events, each a little different, over many connections.
async fn fill(gateway: &Gateway, events: usize) {
    const CONNECTIONS: usize = 50;
    let mut senders = JoinSet::new();
    for sender in 0..CONNECTIONS {
        let mut client = gateway.client().await;
        senders.spawn(async move {
            for event in 0..events / CONNECTIONS {
                let body = format!(r#"{{"sender": {sender}, "event": {event}, "filler": ""#);
                let body = format!("{body:x<0$}\"}}", BYTES - 2);
                client.post("/webhook/waits", body.as_bytes()).await.unwrap().accepted();
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_waiting_events_take_little_memory() {
    let _guard = alone().await;
    let target = Target::start(|_| Reply::Silence).await;
    let home = Home::new(&webhooks(&target)).with("DELIVERY_TIMEOUT_SECONDS", 600);
    let gateway = home.start().await;
    // Threads, buffers and connections are not part of the measurement.
    fill(&gateway, 2000).await;
    let before = gateway.resident_kb();
    let began = Instant::now();
    fill(&gateway, EVENTS).await;
    let (after, took) = (gateway.resident_kb(), began.elapsed());
    println!("memory: {before} kB, with {EVENTS} events {after} kB: {} bytes each; {took:?}", per_event(before, after));
    assert!(after < before + MOST_KB, "{before} kB -> {after} kB");
    gateway.kill().await;

    let other = Home::new(&webhooks(&target));
    let empty = other.start().await;
    fill(&empty, 50).await;
    let before = empty.resident_kb();
    let arrived = target.at("/waits").len();
    let began = Instant::now();
    let gateway = home.start().await;
    let ready = began.elapsed();
    eventually("the first of them", async || target.at("/waits").len() > arrived).await;
    let after = gateway.resident_kb();
    println!(
        "memory: {before} kB, started with them {after} kB: {} bytes each; ready in {ready:?}",
        per_event(before, after)
    );
    assert!(after < before + MOST_KB, "{before} kB -> {after} kB");
    assert!(ready < READY.min(PATIENCE), "{ready:?}");
    eventually("all of them to be known", async || {
        gateway.metric("tower_webhook_queue_waiting").await == Some((EVENTS + 2000) as f64)
    })
    .await;
    gateway.kill().await;
    empty.kill().await;
}

fn per_event(before: u64, after: u64) -> u64 {
    after.saturating_sub(before) * 1024 / EVENTS as u64
}
