//! An event that was taken is known after a crash.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::support::process::Gateway;
use crate::support::{Answer, eventually};

const VARIABLES: [(&str, &str); 3] = [("SPOOL_DIR", "spool"), ("SAVE_TO_DISK_ROOT", "data"), ("ADMIN_TOKEN", "adm1n")];

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let webhooks = json!({
        "save": {"module": "save_to_disk", "dedup": {"header": "X-GitHub-Delivery"}},
        "open": {"module": "discard"},
    });
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    directory
}

async fn start_in(directory: TempDir, variables: &[(&str, &str)]) -> Gateway {
    let gateway = Gateway::start_in(directory, variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}

async fn send(gateway: &Gateway, id: &str) -> Answer {
    gateway.request(&["POST /webhook/save HTTP/1.1", &format!("X-GitHub-Delivery: {id}")], "{}").await
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

#[tokio::test]
async fn an_event_that_was_taken_is_known_after_a_crash() {
    let gateway = start_in(directory(), &VARIABLES).await;
    let first = send(&gateway, "72d3162e").await;
    first.assert_accepted();
    assert!(!first.headers.contains_key("x-duplicate"));
    assert_eq!(files(&gateway.path("data")), 1);
    assert_eq!(gateway.path("spool/dedup").metadata().unwrap().permissions().mode() & 0o777, 0o700);

    // The kill follows at once, before anything is synced.
    let gateway = start_in(gateway.kill().await, &VARIABLES).await;
    let again = send(&gateway, "72d3162e").await;
    again.assert_accepted();
    assert_eq!(again.header("x-duplicate"), "true");
    assert_eq!(again.header("x-event-id"), first.header("x-event-id"));
    assert_eq!(files(&gateway.path("data")), 1, "it was not delivered again");

    let other = send(&gateway, "72d3162f").await;
    assert!(!other.headers.contains_key("x-duplicate"));
    assert_eq!(files(&gateway.path("data")), 2);
    let missing = gateway.post("/webhook/save", "{}").await;
    assert_eq!(missing.problem(400), "The event has no id: the header x-github-delivery is missing");
    let metrics = gateway.get("/metrics").await;
    for line in [
        r#"tower_webhook_dedup_total{outcome="first"} 1"#,
        r#"tower_webhook_dedup_total{outcome="duplicate"} 1"#,
        r#"tower_webhook_dedup_total{outcome="missing_id"} 1"#,
        r#"tower_webhook_requests_total{outcome="missing_event_id"} 1"#,
        r#"tower_webhook_requests_total{outcome="delivered"} 1"#,
        r#"tower_webhook_requests_total{outcome="duplicate"} 1"#,
        "tower_webhook_dedup_entries 2",
    ] {
        assert!(metrics.text().lines().any(|other| other == line), "{line} in {}", metrics.text());
    }
}

#[tokio::test]
async fn a_disk_that_fails_costs_no_event() {
    let gateway = start_in(directory(), &VARIABLES).await;
    std::fs::remove_dir_all(gateway.path("spool")).unwrap();
    for (id, duplicate) in [("1", false), ("2", false), ("1", true)] {
        let answer = send(&gateway, id).await;
        answer.assert_accepted();
        assert_eq!(answer.headers.contains_key("x-duplicate"), duplicate, "{id}");
    }
    eventually("the operator to be told", async || gateway.err().contains("remembered in memory only")).await;
    let metrics = gateway.get("/metrics").await;
    assert!(metrics.text().contains("tower_webhook_dedup_disk_errors_total 2"), "{}", metrics.text());
}

#[tokio::test]
async fn two_gateways_do_not_share_a_spool() {
    let gateway = start_in(directory(), &VARIABLES).await;
    let spool = gateway.path("spool");
    let variables = [("SPOOL_DIR", spool.as_os_str())];
    let (status, stderr) = crate::support::process::refused_start(&variables).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("SPOOL_DIR") && stderr.contains("another process"), "{stderr}");
    gateway.assert_serves().await;
}

#[tokio::test]
async fn without_a_spool_the_key_is_refused_and_says_why() {
    let gateway = start_in(directory(), &[("ADMIN_TOKEN", "adm1n")]).await;
    send(&gateway, "1").await.problem(503);
    gateway.assert_serves().await;
    let status = gateway.request(&["GET /admin/config-status HTTP/1.1", "Authorization: Bearer adm1n"], "").await;
    let reason = status.json()["refused_keys"][0]["reason"].to_string();
    assert!(reason.contains("dedup") && reason.contains("SPOOL_DIR"), "{reason}");
}
