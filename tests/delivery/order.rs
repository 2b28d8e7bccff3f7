//! After a start events go out in the order of their receipt, webhook by webhook.
//!
//! Several events of a webhook are in flight at a time, in no particular order. So the target first holds all answers
//! back and then releases them one by one: each event that then arrives must be the next one received.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::gateway::Home;
use crate::support::target::{Arrival, Reply, Target};
use crate::support::{beside_others, eventually};

/// The events of one webhook that are in flight at a time: `Worker::concurrency`.
const AT_A_TIME: usize = 32;

const EVENTS: usize = 3 * AT_A_TIME;

const HOOKS: [&str; 2] = ["first", "second"];

fn webhooks(target: &Target) -> Value {
    let webhook = |path: &str| {
        json!({
            "module": "http_webhook",
            "ack": "accepted",
            "module-config": {"url": target.url(path), "timeout": 300},
            "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 0.05, "max_delay": 0.2},
        })
    };
    json!({"default": {"first": webhook("/first"), "second": webhook("/second")}})
}

/// The answers that the target holds back.
type Held = Arc<Mutex<VecDeque<(String, oneshot::Sender<()>)>>>;

fn held(held: &Held) -> impl Fn(&Arrival) -> Reply + Send + Sync + 'static {
    let held = Arc::clone(held);
    move |arrival| {
        let (sender, until) = oneshot::channel();
        held.lock().unwrap().push_back((arrival.path.clone(), sender));
        Reply::Held(until)
    }
}

async fn order_after_a_kill(configured_late: bool) {
    let before = Held::default();
    let target = Target::start(held(&before)).await;
    let home = Home::new(&webhooks(&target)).with("DELIVERY_TIMEOUT_SECONDS", 300);
    let gateway = home.start().await;
    let mut received = [Vec::new(), Vec::new()];
    let mut client = gateway.client().await;
    for number in 0..EVENTS {
        for (id, received) in HOOKS.iter().zip(&mut received) {
            let body = json!({"number": number}).to_string();
            received.push(client.post(&format!("/webhook/{id}"), body.as_bytes()).await.unwrap().accepted());
        }
    }
    target.count_at("/first", AT_A_TIME).await;
    target.count_at("/second", AT_A_TIME).await;
    gateway.kill().await;

    let after = Held::default();
    target.now(held(&after));
    let earlier = [target.at("/first").len(), target.at("/second").len()];
    let gateway = if configured_late {
        std::fs::rename(home.path("webhooks.json"), home.path("later.json")).unwrap();
        let gateway = home.listening().await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        std::fs::rename(home.path("later.json"), home.path("webhooks.json")).unwrap();
        gateway.ready().await;
        // An event that arrives now must not overtake the waiting ones.
        for (id, received) in HOOKS.iter().zip(&mut received) {
            received.push(gateway.post(&format!("/webhook/{id}"), br#"{"number": "last"}"#).await.accepted());
        }
        gateway
    } else {
        home.start().await
    };
    for (nth, id) in HOOKS.iter().enumerate() {
        let path = format!("/{id}");
        let arrived = || -> Vec<String> {
            target.at(&path).into_iter().skip(earlier[nth]).map(|arrival| arrival.event).collect()
        };
        eventually("as many as are under way at a time", async || arrived().len() >= AT_A_TIME).await;
        let first: HashSet<_> = arrived().into_iter().collect();
        let expected: HashSet<_> = received[nth][..AT_A_TIME].iter().cloned().collect();
        assert_eq!(first, expected, "{id}: the first ones are the oldest");
        for number in AT_A_TIME..received[nth].len() {
            let answered = {
                let mut after = after.lock().unwrap();
                let oldest = after.iter().position(|(held, _)| *held == path).unwrap();
                after.remove(oldest).unwrap().1.send(())
            };
            assert!(answered.is_ok(), "the gateway waits for it");
            eventually("the next one", async || arrived().len() > number).await;
            assert_eq!(arrived()[number..], received[nth][number..=number], "{id}: number {number}");
        }
    }
    target.now(|_| Reply::ok());
    after.lock().unwrap().clear();
    gateway.drained().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_out_as_they_came_after_a_kill() {
    let _guard = beside_others().await;
    order_after_a_kill(false).await;
}

/// etcd may be unreachable when the gateway starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_out_as_they_came_though_the_configuration_came_late() {
    let _guard = beside_others().await;
    order_after_a_kill(true).await;
}
