//! A webhook whose target never answers does not slow down its neighbour in the same namespace.
//!
//! Two gateways run side by side and are asked in turns. One has such a webhook, full of events; the other has the
//! webhook without events. Other load on the machine affects both.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::alone;
use crate::support::gateway::Home;
use crate::support::target::{Reply, Target};

const SAMPLES: usize = 150;

/// The largest accepted ratio of the medians. Waiting for a timeout of the stuck webhook would be a ratio of hundreds.
const WORST: f64 = 8.0;

fn webhooks(target: &Target) -> Value {
    let webhook = |path: &str, ack: &str| json!({"module": "http_webhook", "ack": ack, "module-config": {"url": target.url(path), "timeout": 60}});
    json!({"default": {
        "stuck": webhook("/stuck", "accepted"),
        "stuck_too": webhook("/stuck", "delivered"),
        "accepted": webhook("/accepted", "accepted"),
        "delivered": webhook("/delivered", "delivered"),
    }})
}

async fn target() -> Target {
    Target::start(|arrival| match arrival.path.as_str() {
        "/stuck" => Reply::Silence,
        _ => Reply::ok(),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stuck_webhook_slows_down_no_other() {
    let _guard = alone().await;
    let targets = [target().await, target().await];
    let homes = [0, 1].map(|n: usize| {
        Home::new(&webhooks(&targets[n])).with("DELIVERY_TIMEOUT_SECONDS", 120).with("RUST_LOG", "warn,gateway=info")
    });
    let gateways = [homes[0].start().await, homes[1].start().await];

    // The neighbours in the first gateway: 500 events that wait, and 20 requests that hang.
    let mut client = gateways[0].client().await;
    for _ in 0..500 {
        client.post("/webhook/stuck", br#"{"stuck": true}"#).await.unwrap().accepted();
    }
    let mut hanging = JoinSet::new();
    for _ in 0..20 {
        let mut client = gateways[0].client().await;
        hanging.spawn(async move { client.post("/webhook/stuck_too", b"{}").await });
    }
    targets[0].count_at("/stuck", 32 + 20).await;

    let mut clients = [gateways[0].client().await, gateways[1].client().await];
    let mut sent = [HashSet::new(), HashSet::new()];
    for (kind, status) in [("delivered", 200), ("accepted", 202)] {
        let (path, arrives_at) = (format!("/webhook/{kind}"), format!("/{kind}"));
        let mut answers = [Vec::new(), Vec::new()];
        let mut arrivals = [Vec::new(), Vec::new()];
        for number in 0..SAMPLES {
            // The order alternates, because both sync to the same disk.
            for n in [number % 2, 1 - number % 2] {
                let began = Instant::now();
                let answer = clients[n].post(&path, b"{}").await.unwrap();
                answers[n].push(began.elapsed());
                assert_eq!(answer.status, status, "{answer:?}");
                sent[n].insert(answer.event_id());
                let arrived = targets[n].nth_at(&arrives_at, number).await;
                arrivals[n].push(arrived.at.saturating_duration_since(began));
            }
        }
        for (what, times) in [("answer", answers), ("arrival", arrivals)] {
            let [stuck, free] = times.map(median);
            let ratio = stuck.as_secs_f64() / free.as_secs_f64();
            println!(
                "neighbours: {kind}, until the {what}: {stuck:?} beside a stuck webhook, {free:?} without: {ratio:.2}"
            );
            assert!(ratio < WORST, "{kind}, {what}: {ratio}");
        }
    }
    for (n, target) in targets.iter().enumerate() {
        let arrived: Vec<_> = ["/delivered", "/accepted"].iter().flat_map(|path| target.at(path)).collect();
        let ids: HashSet<_> = arrived.iter().map(|arrival| arrival.event.clone()).collect();
        assert_eq!((ids, arrived.len()), (sent[n].clone(), 2 * SAMPLES), "each of them once");
    }
    assert_eq!(targets[0].at("/stuck").len(), 32 + 20, "more at a time than one webhook may have");
    assert!(hanging.try_join_next().is_none(), "the stuck ones were stuck all the time");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
