//! Metrics that are switched on, and those of accepted events.

use serde_json::json;

use crate::support::eventually;
use crate::support::process::Gateway;

pub(super) async fn start(variables: &[(&str, &str)]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let webhooks = json!({
        "a": {"module": "discard", "authorization": "Bearer t0p-secret-token"},
        "b": {"module": "discard"},
        "once": {"module": "discard", "dedup": {"digest": true}},
        "two": {"module": "discard", "authorization": ["Bearer t0p-secret-token", "Bearer an0ther-secret"]},
        "kept": {"module": "discard", "ack": "accepted"},
        "down": {"module": "http_webhook", "module-config": {"url": "http://127.0.0.1:1/"}, "ack": "accepted"},
    });
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let gateway = Gateway::start_in(directory, variables).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    gateway
}

pub(super) async fn traffic(gateway: &Gateway) {
    for (path, status) in [("a", 401), ("b", 200), ("b", 200), ("kept", 202), ("down", 202), ("stranger", 404)] {
        assert_eq!(gateway.post(&format!("/webhook/{path}"), "{}").await.status, status, "{path}");
    }
}

async fn eventually_has(gateway: &Gateway, line: &str) {
    eventually(line, async || gateway.get("/metrics").await.text().lines().any(|other| other == line)).await;
}

pub(super) const SPOOL: (&str, &str) = ("SPOOL_DIR", "spool");

pub(super) const EGRESS: (&str, &str) = ("EGRESS_ALLOW", "127.0.0.1/32");

#[tokio::test]
async fn requests_and_attempts_are_counted_by_webhook_if_asked() {
    let gateway = start(&[SPOOL, ("METRICS_LABELS", "webhook"), EGRESS]).await;
    traffic(&gateway).await;
    for (name, webhook, outcome, count) in [
        ("requests", "a", "unauthenticated", 1),
        ("requests", "b", "delivered", 2),
        ("requests", "kept", "accepted", 1),
        ("attempts", "kept", "delivered", 1),
        ("attempts", "down", "connect", 1),
    ] {
        let labels = format!(r#"namespace="default",webhook="{webhook}",outcome="{outcome}""#);
        eventually_has(&gateway, &format!("tower_webhook_webhook_{name}_total{{{labels}}} {count}")).await;
    }
    assert!(!gateway.get("/metrics").await.text().contains("stranger"));
}

#[tokio::test]
async fn series_of_webhooks_are_bounded() {
    let gateway = start(&[SPOOL, EGRESS, ("METRICS_LABELS", "webhook"), ("METRICS_MAX_SERIES", "1")]).await;
    traffic(&gateway).await;
    let line = |webhook: &str, outcome: &str, count: u32| {
        format!("tower_webhook_webhook_requests_total{{{webhook},outcome=\"{outcome}\"}} {count}")
    };
    eventually_has(&gateway, &line(r#"namespace="default",webhook="a""#, "unauthenticated", 1)).await;
    eventually_has(&gateway, &line(r#"namespace="other",webhook="other""#, "delivered", 2)).await;
    eventually_has(&gateway, &line(r#"namespace="other",webhook="other""#, "accepted", 2)).await;
}

#[tokio::test]
async fn requests_are_counted_by_namespace_if_asked_and_by_neither_by_default() {
    let gateway = start(&[SPOOL, EGRESS, ("METRICS_LABELS", "namespace")]).await;
    traffic(&gateway).await;
    let labels = r#"namespace="default",webhook="",outcome="delivered""#;
    eventually_has(&gateway, &format!("tower_webhook_webhook_requests_total{{{labels}}} 2")).await;

    let gateway = start(&[SPOOL, EGRESS]).await;
    traffic(&gateway).await;
    assert!(!gateway.get("/metrics").await.text().contains("tower_webhook_webhook_"));
}

#[tokio::test]
async fn the_times_of_attempts_and_of_waiting_events_are_measured() {
    let gateway = start(&[SPOOL, EGRESS]).await;
    traffic(&gateway).await;
    for line in [
        r#"tower_webhook_attempt_seconds_count{module="discard",outcome="delivered"} 3"#,
        r#"tower_webhook_attempt_seconds_count{module="http_webhook",outcome="connect"} 1"#,
        "tower_webhook_delivery_seconds_count 1",
        "tower_webhook_queue_waiting 1",
        "tower_webhook_queue_under_way 0",
        "tower_webhook_queue_max_bytes 1073741824",
        r#"tower_webhook_build_info{version="0.1.0"} 1"#,
    ] {
        eventually_has(&gateway, line).await;
    }
    let age = async || {
        let metrics = gateway.get("/metrics").await;
        let age = metrics.text().lines().find_map(|line| line.strip_prefix("tower_webhook_queue_oldest_seconds "));
        age.unwrap().parse::<f64>().unwrap()
    };
    let first = age().await;
    assert!(first < 60.0, "{first}");
    eventually("the event to grow older", async || age().await > first).await;
}
