//! An event that was taken is known after a crash.

use serde_json::json;

use crate::support::beside_others;
use crate::support::gateway::Home;
use crate::support::target::{Reply, Target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_taken_before_a_kill_is_a_duplicate_after_it() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::ok()).await;
    let webhook = |path: &str, ack: &str| {
        json!({
            "module": "http_webhook",
            "ack": ack,
            "module-config": {"url": target.url(path)},
            "dedup": {"header": "x-id"},
        })
    };
    let home = Home::new(&json!({"default": {
        "delivered": webhook("/delivered", "delivered"),
        "accepted": webhook("/accepted", "accepted"),
    }}));
    let gateway = home.start().await;
    let cases = [("/webhook/delivered", 200), ("/webhook/accepted", 202)];
    let mut ids = Vec::new();
    for (path, status) in cases {
        let answer = gateway.client().await.request("POST", path, "X-Id: 1\r\n", b"{}").await.unwrap();
        assert_eq!((answer.status, answer.header("x-duplicate")), (status, None), "{answer:?}");
        ids.push(answer.event_id());
    }
    target.count_at("/accepted", 1).await;
    gateway.drained().await;
    gateway.kill().await;

    let gateway = home.start().await;
    for ((path, status), id) in cases.iter().zip(&ids) {
        let answer = gateway.client().await.request("POST", path, "X-Id: 1\r\n", b"{}").await.unwrap();
        assert_eq!((answer.status, answer.header("x-duplicate")), (*status, Some("true")), "{answer:?}");
        assert_eq!(answer.event_id(), *id);
        let answer = gateway.client().await.request("POST", path, "X-Id: 2\r\n", b"{}").await.unwrap();
        assert_eq!((answer.status, answer.header("x-duplicate")), (*status, None), "another one: {answer:?}");
    }
    target.count_at("/accepted", 2).await;
    gateway.drained().await;
    assert_eq!((target.at("/delivered").len(), target.at("/accepted").len()), (2, 2), "no second delivery");
    gateway.stop().await;
}
