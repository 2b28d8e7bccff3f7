//! Targets that are down, slow, silent or wrong: only a 2xx is a success, and an accepted event arrives once the target
//! works again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Arrival, Reply, Target};
use crate::support::{beside_others, eventually};

const BODY: &[u8] = br#"{"order": 7, "text": "as it was sent, \u00e9"}"#;

fn webhooks(target: &Target, ids: &[&str]) -> Value {
    let webhook = |id: &&str| {
        let webhook = json!({
            "module": "http_webhook",
            "ack": "accepted",
            "module-config": {"url": target.url(&format!("/{id}")), "timeout": 3},
            "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 0.05, "max_delay": 0.2},
        });
        ((*id).to_owned(), webhook)
    };
    json!({"default": ids.iter().map(webhook).collect::<serde_json::Map<_, _>>()})
}

async fn start(target: &Target, ids: &[&str]) -> (Home, Gateway) {
    let home = Home::new(&webhooks(target, ids));
    let gateway = home.start().await;
    (home, gateway)
}

/// Checks the attempts at one event: each has the next number, the same id and the same body.
#[track_caller]
fn attempts(arrivals: &[Arrival], event: &str) -> u32 {
    for (number, arrival) in (1..).zip(arrivals) {
        assert_eq!(arrival.attempt, number, "{arrivals:?}");
        assert_eq!(arrival.event, event);
        assert_eq!(arrival.body, BODY);
    }
    arrivals.len() as u32
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_fails_twice_arrives_the_third_time() {
    let _guard = beside_others().await;
    let target = Target::start(|arrival| match (arrival.path.as_str(), arrival.attempt) {
        (_, 3..) => Reply::ok(),
        ("/silent", _) => Reply::Silence,
        ("/slow", _) => Reply::Late(Duration::from_secs(6)),
        ("/reset", _) => Reply::Reset,
        ("/failing", _) => Reply::status(500),
        ("/unavailable", _) => Reply::status(503),
        ("/too_much", _) => Reply::Status(429, "Retry-After: 1\r\n".to_owned()),
        (path, _) => panic!("{path}"),
    })
    .await;
    let ids = ["silent", "slow", "reset", "failing", "unavailable", "too_much"];
    let (_home, gateway) = start(&target, &ids).await;
    let mut events = Vec::new();
    for id in ids {
        events.push(gateway.post(&format!("/webhook/{id}"), BODY).await.accepted());
    }
    for id in ids {
        eventually("the third attempt", async || target.at(&format!("/{id}")).iter().any(|arrival| arrival.taken))
            .await;
    }
    gateway.drained().await;
    for (id, event) in ids.iter().zip(&events) {
        let mut arrivals = target.at(&format!("/{id}"));
        // If a reused connection is reset before an answer begins, the attempt is repeated once on another one.
        arrivals.dedup_by_key(|arrival| (*id == "reset").then_some(arrival.attempt).ok_or(arrival.at));
        assert_eq!(attempts(&arrivals, event), 3, "{id}: once it was taken it was sent again");
    }
    assert!(gateway.dead_letters().await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_left_alone_as_long_as_it_asked() {
    let _guard = beside_others().await;
    let began = Instant::now();
    let asked = Duration::from_secs(2);
    // The time is measured at the target: the previous answer is always older.
    let target = Target::start(move |arrival| match arrival.attempt {
        1 => Reply::Status(429, "Retry-After: 2\r\n".to_owned()),
        _ => Reply::ok(),
    })
    .await;
    let (_home, gateway) = start(&target, &["asks"]).await;
    let event = gateway.post("/webhook/asks", BODY).await.accepted();
    assert_eq!(attempts(&target.count_at("/asks", 2).await, &event), 2);
    let arrivals = target.at("/asks");
    assert!(arrivals[1].at - arrivals[0].at >= asked, "after {:?}", arrivals[1].at - arrivals[0].at);
    assert!(began.elapsed() >= asked);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_down_gets_its_events_when_it_is_up() {
    let _guard = beside_others().await;
    let mut target = Target::start(|_| Reply::ok()).await;
    target.down().await;
    let (_home, gateway) = start(&target, &["down"]).await;
    let event = gateway.post("/webhook/down", BODY).await.accepted();
    crate::support::eventually("an attempt that fails", async || gateway.log().contains("it is tried again")).await;
    target.up().await;
    let arrivals = target.count_at("/down", 1).await;
    assert_eq!((&*arrivals[0].event, &*arrivals[0].body), (&*event, BODY));
    assert!(arrivals[0].attempt > 1, "the attempts that found nobody count, too");
    gateway.drained().await;
    assert_eq!(target.at("/down").len(), 1);
    gateway.stop().await;
}

/// The head of the answer decides: the body can neither delay the next event nor undo the success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_answer_is_a_success_once() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Endless).await;
    let (_home, gateway) = start(&target, &["endless"]).await;
    let mut events = Vec::new();
    for _ in 0..40 {
        events.push(gateway.post("/webhook/endless", BODY).await.accepted());
    }
    target.count_at("/endless", 40).await;
    gateway.drained().await;
    let mut arrived: Vec<_> = target.at("/endless").into_iter().map(|arrival| arrival.event).collect();
    arrived.sort();
    events.sort();
    assert_eq!(arrived, events, "each of them once");
    gateway.stop().await;
}

/// No redirect is followed: it could lead to a forbidden address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_failure_becomes_a_dead_letter_at_once() {
    let _guard = beside_others().await;
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/moved" => Reply::Status(302, "Location: /elsewhere\r\n".to_owned()),
        "/gone" => Reply::status(410),
        "/forbidden" => Reply::status(403),
        path => panic!("{path}"),
    })
    .await;
    let ids = ["moved", "gone", "forbidden"];
    let (_home, gateway) = start(&target, &ids).await;
    let mut events = Vec::new();
    for id in ids {
        events.push(gateway.post(&format!("/webhook/{id}"), BODY).await.accepted());
    }
    events.sort();
    crate::support::eventually("three dead letters", async || gateway.dead_letters().await.len() == 3).await;
    assert_eq!(gateway.dead_letters().await, events, "in the order of their receipt");
    for id in ids {
        assert_eq!(target.at(&format!("/{id}")).len(), 1, "{id}");
    }
    assert!(target.at("/elsewhere").is_empty());
    gateway.stop().await;
}
