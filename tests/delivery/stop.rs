//! SIGTERM under load: an accepted event is delivered, or is in the spool for the next start.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::beside_others;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};

const GRACE: Duration = Duration::from_secs(20);

fn webhooks(target: &Target) -> Value {
    json!({"default": {
        "accepted": {
            "module": "http_webhook",
            "ack": "accepted",
            "module-config": {"url": target.url("/accepted"), "timeout": 60},
        },
        "delivered": {
            "module": "http_webhook",
            "module-config": {"url": target.url("/delivered"), "timeout": 60},
        },
    }})
}

fn home(target: &Target) -> Home {
    Home::new(&webhooks(target)).with("SHUTDOWN_GRACE_SECONDS", GRACE.as_secs())
}

/// Bodies by the ids of their events, each with the status of its answer.
type Answered = Arc<Mutex<HashMap<String, (u16, Vec<u8>)>>>;

/// Sends as much as it can until the gateway is gone.
fn load(gateway: &Gateway) -> (Answered, JoinSet<()>) {
    let (answered, address) = (Answered::default(), gateway.address);
    let mut senders = JoinSet::new();
    for sender in 0..6 {
        let answered = Arc::clone(&answered);
        senders.spawn(async move {
            let Ok(mut client) = Client::connect(address).await else { return };
            for event in 0.. {
                let path = if sender < 4 { "/webhook/accepted" } else { "/webhook/delivered" };
                let body = json!({"sender": sender, "event": event}).to_string().into_bytes();
                match client.post(path, &body).await {
                    Ok(answer) => {
                        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
                        answered.lock().unwrap().insert(answer.event_id(), (answer.status, body));
                    }
                    // The stop closes an idle connection and then accepts no new one.
                    Err(_) => match Client::connect(address).await {
                        Ok(connected) => client = connected,
                        Err(_) => return,
                    },
                }
            }
        });
    }
    (answered, senders)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_under_load_loses_nothing_and_delivers_nothing_twice() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_millis(30))).await;
    let home = home(&target);
    let (mut all, mut left) = (HashMap::new(), 0);
    for round in 0..3 {
        let mut gateway = home.start().await;
        let (answered, mut senders) = load(&gateway);
        eventually("load", async || answered.lock().unwrap().len() > 100).await;
        gateway.signal("TERM").await;
        let began = Instant::now();
        let status = gateway.ended().await;
        assert_eq!(status.code(), Some(0), "round {round}: {}", gateway.log());
        assert!(began.elapsed() < GRACE, "it waited for what nobody sent: {:?}", began.elapsed());
        while senders.join_next().await.transpose().unwrap().is_some() {}
        all.extend(std::mem::take(&mut *answered.lock().unwrap()));
        left += all.len().saturating_sub(target.arrivals().len());
    }
    let gateway = home.start().await;
    gateway.drained().await;
    gateway.stop().await;
    let mut arrived = HashMap::<_, Vec<_>>::new();
    for arrival in target.arrivals() {
        arrived.entry(arrival.event).or_default().push(arrival.body);
    }
    for (id, (status, body)) in &all {
        assert_eq!(arrived.get(id), Some(&vec![body.clone()]), "{id} was answered {status}");
    }
    let twice = arrived.values().filter(|bodies| bodies.len() > 1).count();
    assert_eq!(twice, 0, "a stop that has its time forgets nothing");
    println!("stop: {} answered in 3 lives, {left} left to the next one, none lost, none twice", all.len());
}

/// The worker may be done long before the last request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_the_request_that_runs_though_the_spool_is_empty() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_secs(3))).await;
    let home = home(&target);
    for _ in 0..2 {
        let mut gateway = home.start().await;
        let mut client = gateway.client().await;
        let before = target.arrivals().len();
        let running = tokio::spawn(async move { client.post("/webhook/delivered", b"{}").await });
        target.count_at("/delivered", before + 1).await;
        gateway.signal("TERM").await;
        assert_eq!(running.await.unwrap().unwrap().status, 200);
        assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log());
    }
}

/// A delivery to a target that never answers delays the stop for the grace time, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_time_is_the_longest_that_a_silent_target_holds_the_stop() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Silence).await;
    let home = Home::new(&webhooks(&target)).with("SHUTDOWN_GRACE_SECONDS", 2).with("DELIVERY_TIMEOUT_SECONDS", 60);
    let mut gateway = home.start().await;
    let event = gateway.post("/webhook/accepted", b"{}").await.accepted();
    target.count_at("/accepted", 1).await;
    let began = Instant::now();
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log());
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "it may still have been answered: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    arrives(&home, &target, &event).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_sigterm_stops_at_once_and_loses_nothing() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Silence).await;
    let home = home(&target).with("DELIVERY_TIMEOUT_SECONDS", 60).with("SHUTDOWN_GRACE_SECONDS", 80);
    let mut gateway = home.start().await;
    let mut events = HashSet::new();
    for _ in 0..50 {
        events.insert(gateway.post("/webhook/accepted", b"{}").await.accepted());
    }
    target.count_at("/accepted", 32).await;
    gateway.signal("TERM").await;
    eventually("the stop to begin", async || gateway.log().contains("stopping")).await;
    assert!(!gateway.has_ended(), "events are under way: {}", gateway.log());
    let began = Instant::now();
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let before = target.arrivals().len();
    target.now(|_| Reply::ok());
    let gateway = home.start().await;
    target.count_at("/accepted", before + 50).await;
    let after: HashSet<_> = target.at("/accepted").into_iter().skip(before).map(|arrival| arrival.event).collect();
    assert_eq!(after, events);
    gateway.stop().await;
}

/// Waits until the event arrives after another start.
async fn arrives(home: &Home, target: &Target, event: &str) {
    let before = target.arrivals().len();
    target.now(|_| Reply::ok());
    let gateway = home.start().await;
    assert_eq!(target.count_at("/accepted", before + 1).await[before].event, event);
    gateway.drained().await;
    gateway.stop().await;
}
