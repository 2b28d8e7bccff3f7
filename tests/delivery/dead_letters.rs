//! An event that cannot be delivered is kept: an operator reads, replays or removes it, also after a crash.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{beside_others, eventually};

const BODY: &[u8] = br#"{"order": 8}"#;

fn webhooks(target: &Target) -> Value {
    json!({"shop": {"orders": {
        "module": "http_webhook",
        "ack": "accepted",
        "module-config": {"url": target.url("/orders"), "timeout": 20},
        "retry": {"enabled": true, "max_attempts": 3, "initial_delay": 0.02, "max_delay": 0.05},
    }}})
}

async fn letters(gateway: &Gateway, expected: &[&String]) {
    let mut expected: Vec<String> = expected.iter().map(|id| (*id).clone()).collect();
    expected.sort();
    eventually("these dead letters", async || gateway.dead_letters().await == expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_read_replayed_and_removed_also_after_kills() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::status(500)).await;
    let home = Home::new(&webhooks(&target));
    let gateway = home.start().await;
    let replayed = gateway.post("/webhook/shop/orders", BODY).await.accepted();
    let removed = gateway.post("/webhook/shop/orders", BODY).await.accepted();
    let kept = gateway.post("/webhook/shop/orders", BODY).await.accepted();
    letters(&gateway, &[&replayed, &removed, &kept]).await;
    let attempts = |event: &str| -> Vec<u32> {
        let arrivals = target.at("/orders").into_iter();
        arrivals.filter(|arrival| arrival.event == event).map(|arrival| arrival.attempt).collect()
    };
    for event in [&replayed, &removed, &kept] {
        assert_eq!(attempts(event), [1, 2, 3]);
    }

    // An operator's action is written soon afterwards, at the latest by a stop.
    gateway.stop().await;
    let gateway = home.start().await;
    letters(&gateway, &[&replayed, &removed, &kept]).await;
    let letter = gateway.admin("GET", &format!("/dead-letters/{replayed}")).await.json();
    assert_eq!(letter["attempts"], 3, "{letter}");
    assert_eq!(letter["kind"], "unavailable");
    assert_eq!((&letter["namespace"], &letter["webhook"]), (&json!("shop"), &json!("orders")));
    assert_eq!(letter["body"], std::str::from_utf8(BODY).unwrap());
    gateway.kill().await;

    let gateway = home.start().await;
    letters(&gateway, &[&replayed, &removed, &kept]).await;
    target.now(|_| Reply::ok());
    let answer = gateway.admin("POST", &format!("/dead-letters/{replayed}/replay")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(gateway.admin("DELETE", &format!("/dead-letters/{removed}")).await.status, 204);
    target.count_at("/orders", 10).await;
    assert_eq!(attempts(&replayed), [1, 2, 3, 1], "it begins anew");
    letters(&gateway, &[&kept]).await;
    for (method, path) in
        [("POST", format!("/dead-letters/{replayed}/replay")), ("DELETE", format!("/dead-letters/{removed}"))]
    {
        assert_eq!(gateway.admin(method, &path).await.status, 404, "{path}: it is not there any more");
    }
    gateway.drained().await;
    gateway.kill().await;

    let gateway = home.start().await;
    letters(&gateway, &[&kept]).await;
    gateway.drained().await;
    assert_eq!(attempts(&replayed), [1, 2, 3, 1]);
    assert_eq!(attempts(&removed), [1, 2, 3]);
    assert_eq!(attempts(&kept), [1, 2, 3], "nobody asked for it");
    gateway.stop().await;
}

/// A kill between an operator's request and the target's answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_a_kill_interrupts_loses_nothing() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::status(500)).await;
    let home = Home::new(&webhooks(&target));
    let gateway = home.start().await;
    let event = gateway.post("/webhook/shop/orders", BODY).await.accepted();
    letters(&gateway, &[&event]).await;
    target.now(|_| Reply::Silence);
    assert_eq!(gateway.admin("POST", &format!("/dead-letters/{event}/replay")).await.status, 202);
    target.count_at("/orders", 4).await;
    gateway.kill().await;
    target.now(|_| Reply::ok());
    let gateway = home.start().await;
    // If the kill came before the replay was recorded, the event is still a dead letter; it is never lost.
    eventually("the event, or its letter", async || {
        target.at("/orders").len() >= 5 || gateway.dead_letters().await == [event.clone()]
    })
    .await;
    if target.at("/orders").len() < 5 {
        assert_eq!(gateway.admin("POST", &format!("/dead-letters/{event}/replay")).await.status, 202);
    }
    let arrivals = target.count_at("/orders", 5).await;
    assert_eq!((&*arrivals[4].event, &*arrivals[4].body), (&*event, BODY));
    gateway.drained().await;
    assert!(gateway.dead_letters().await.is_empty());
    gateway.stop().await;
}
