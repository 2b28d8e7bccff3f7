//! Webhooks that send to each other.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::process::Gateway;

/// The first receipt, and one for each webhook that an event may pass.
const ROUNDS: usize = 9;

/// A gateway whose webhooks `ping` and `pong` print each event and send it to each other. `more` is added to both.
async fn ring(more: Value) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), "{}").unwrap();
    let variables = [("EGRESS_ALLOW", "127.0.0.0/8"), ("SPOOL_DIR", "spool"), ("ADMIN_TOKEN", "t0ken")];
    let gateway = Gateway::start_in(directory, &variables).await;
    let webhook = |next: &str| {
        let mut webhook = json!({
            "chain": [
                "log",
                {"module": "http_webhook", "module-config": {"url": format!("http://{}/webhook/{next}", gateway.address)}},
            ],
            // As many attempts as can be configured, for every kind of error.
            "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 0, "retryable_errors": ["any"]},
        });
        let more = more.as_object().unwrap().clone();
        webhook.as_object_mut().unwrap().extend(more);
        webhook
    };
    let webhooks = json!({"ping": webhook("pong"), "pong": webhook("ping"), "alone": webhook("alone"), "last": {"module": "discard"}});
    std::fs::write(gateway.path("new.json"), webhooks.to_string()).unwrap();
    std::fs::rename(gateway.path("new.json"), gateway.path("webhooks.json")).unwrap();
    eventually("the webhooks to be there", async || gateway.post("/webhook/last", "{}").await.status == 200).await;
    gateway
}

fn lines(gateway: &Gateway) -> usize {
    gateway.out().lines().count()
}

#[tokio::test]
async fn an_event_that_goes_round_between_webhooks_is_refused() {
    let gateway = ring(json!({})).await;
    for (webhook, before) in [("ping", 0), ("alone", ROUNDS)] {
        let answer = gateway.post(&format!("/webhook/{webhook}"), "{}").await;
        assert_eq!(answer.problem(508), "The event has passed too many webhooks");
        eventually("every line to be there", async || lines(&gateway) >= before + ROUNDS).await;
        assert_eq!(lines(&gateway), before + ROUNDS, "{}", gateway.out());
    }
    assert!(gateway.err().contains("x-webhook-hops"), "{}", gateway.err());
}

#[tokio::test]
async fn an_accepted_event_that_goes_round_becomes_a_dead_letter() {
    let gateway = ring(json!({"ack": "accepted"})).await;
    assert_eq!(gateway.post("/webhook/ping", "{}").await.status, 202);
    let head = ["GET /admin/dead-letters HTTP/1.1", "Authorization: Bearer t0ken"];
    let dead = async || serde_json::from_str::<Value>(gateway.request(&head, "").await.text()).unwrap();
    eventually("the event to be given up", async || dead().await["total"] == 1).await;
    let letter = &dead().await["dead_letters"][0];
    assert_eq!(letter["kind"], "loop", "{letter}");
    // No further events go round.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(dead().await["total"], 1);
    assert_eq!(lines(&gateway), ROUNDS, "{}", gateway.out());
}

#[tokio::test]
async fn a_forged_field_affects_no_other_event() {
    let gateway = ring(json!({})).await;
    let post = async |hops: &str| {
        gateway.request(&["POST /webhook/ping HTTP/1.1", &format!("X-Webhook-Hops: {hops}")], "{}").await
    };
    for (hops, rounds) in [("garbage", 1), ("99", 1), ("7, 8", 1), ("6", 3)] {
        let before = lines(&gateway);
        post(hops).await.problem(508);
        eventually("every line to be there", async || lines(&gateway) >= before + rounds).await;
        assert_eq!(lines(&gateway), before + rounds, "{hops}");
    }
}
