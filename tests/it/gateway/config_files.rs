//! Configuration files that change while the gateway runs.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::{eventually, raw};

fn only(id: &str) -> String {
    json!({id: {"module": "discard"}}).to_string()
}

async fn serves(gateway: &Gateway, id: &str) -> bool {
    gateway.post(&format!("/webhook/{id}"), "{}").await.status == 200
}

async fn comes_to_serve(gateway: &Gateway, id: &str) {
    eventually(&format!("{id} to be served"), || serves(gateway, id)).await;
}

#[tokio::test]
async fn a_change_in_place_is_served() {
    let gateway = Gateway::start(&[]).await;
    std::fs::write(gateway.path("webhooks.json"), only("first")).unwrap();
    comes_to_serve(&gateway, "first").await;
    assert!(!serves(&gateway, "open").await, "a webhook that was removed from the file is gone");
    // The new file has the same size and is written at once, so its times may be the same.
    std::fs::write(gateway.path("webhooks.json"), only("other")).unwrap();
    comes_to_serve(&gateway, "other").await;
    assert!(!serves(&gateway, "first").await);
}

#[tokio::test]
async fn a_file_renamed_over_it_is_served() {
    let gateway = Gateway::start(&[]).await;
    for id in ["first", "other", "third"] {
        std::fs::write(gateway.path("new.json"), only(id)).unwrap();
        std::fs::rename(gateway.path("new.json"), gateway.path("webhooks.json")).unwrap();
        comes_to_serve(&gateway, id).await;
    }
}

/// Changes a mounted ConfigMap as Kubernetes does: with `webhooks.json -> ..data/webhooks.json` and `..data ->
/// ..2026_1`, a new link is renamed over `..data`.
#[tokio::test]
async fn a_swap_of_kubernetes_symbolic_link_is_served() {
    fn publish(directory: &Path, version: &str, id: &str) {
        let data = directory.join(version);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("webhooks.json"), only(id)).unwrap();
        std::os::unix::fs::symlink(version, directory.join("..data_tmp")).unwrap();
        std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    publish(directory.path(), "..2026_1", "first");
    std::os::unix::fs::symlink("..data/webhooks.json", directory.path().join("webhooks.json")).unwrap();
    let gateway = Gateway::start_in(directory, &[]).await;
    comes_to_serve(&gateway, "first").await;
    publish(&gateway.path("."), "..2026_2", "other");
    comes_to_serve(&gateway, "other").await;
    std::fs::remove_dir_all(gateway.path("..2026_1")).unwrap();
    assert!(serves(&gateway, "other").await);
}

#[tokio::test]
async fn a_half_written_file_changes_nothing() {
    let gateway = Gateway::start(&[("ADMIN_TOKEN", "s3cret-token")]).await;
    let state =
        async || -> Value { gateway.request(&["GET /admin/config-status HTTP/1.1", AUTHORIZATION], "").await.json() };
    let whole = only("new");
    for bad in [&whole[..whole.len() / 2], "", "[]", "null", r#"{"a": {}, "a": {}}"#, r#"{"namespaces": {}, "a": {}}"#]
    {
        std::fs::write(gateway.path("webhooks.json"), bad).unwrap();
        eventually("the file to be found bad", async || state().await["state"] == "disconnected").await;
        assert_eq!(state().await["revision"], 1, "{bad}");
        gateway.assert_serves().await;
        assert_eq!(gateway.get("/health").await.status, 200);
        std::fs::write(gateway.path("webhooks.json"), crate::support::process::webhooks().to_string()).unwrap();
        eventually("the file to be good", async || state().await["state"] == "healthy").await;
    }
    std::fs::write(gateway.path("webhooks.json"), whole).unwrap();
    comes_to_serve(&gateway, "new").await;
}

#[tokio::test]
async fn a_deleted_file_changes_nothing() {
    let gateway = Gateway::start(&[]).await;
    std::fs::remove_file(gateway.path("webhooks.json")).unwrap();
    eventually("the loss to be logged", async || gateway.err().contains("does not exist")).await;
    gateway.assert_serves().await;
    std::fs::write(gateway.path("webhooks.json"), only("new")).unwrap();
    comes_to_serve(&gateway, "new").await;
}

#[tokio::test]
async fn a_deleted_file_of_connections_takes_none_away() {
    let directory = TempDir::new().unwrap();
    let webhook = json!({"a": {"module": "discard", "connection": "c"}});
    std::fs::write(directory.path().join("webhooks.json"), webhook.to_string()).unwrap();
    let connections = r#"{"c": {"type": "http", "url": "http://example.com/"}}"#;
    std::fs::write(directory.path().join("connections.json"), connections).unwrap();
    let gateway = Gateway::start_in(directory, &[]).await;
    comes_to_serve(&gateway, "a").await;
    std::fs::remove_file(gateway.path("connections.json")).unwrap();
    eventually("the loss to be logged", async || gateway.err().contains("does not exist any more")).await;
    assert!(serves(&gateway, "a").await);
    std::fs::write(gateway.path("connections.json"), "{}").unwrap();
    eventually("the connection to be gone", async || !serves(&gateway, "a").await).await;
}

#[tokio::test]
async fn a_webhook_that_does_not_compile_touches_only_itself() {
    let gateway = Gateway::start(&[]).await;
    let mixed = json!({"open": {"module": "discart"}, "new": {"module": "discard"}, "bad": {"module": 1}});
    std::fs::write(gateway.path("webhooks.json"), mixed.to_string()).unwrap();
    comes_to_serve(&gateway, "new").await;
    assert!(serves(&gateway, "open").await, "the last good one");
    gateway.post("/webhook/bad", "{}").await.problem(503);
}

#[tokio::test]
async fn fenced_a_webhook_that_does_not_compile_is_503() {
    let gateway = Gateway::start(&[("CONFIG_ON_INVALID", "fence")]).await;
    let mixed = json!({"open": {"module": "discart"}, "new": {"module": "discard"}});
    std::fs::write(gateway.path("webhooks.json"), mixed.to_string()).unwrap();
    comes_to_serve(&gateway, "new").await;
    gateway.post("/webhook/open", "{}").await.problem(503);
}

#[tokio::test]
async fn the_files_are_where_the_variables_say_and_connections_are_read() {
    let directory = TempDir::new().unwrap();
    let webhook = json!({"a": {"module": "discard", "connection": "c"}});
    std::fs::write(directory.path().join("w.json"), webhook.to_string()).unwrap();
    let variables = [("WEBHOOKS_CONFIG_FILE", "w.json"), ("CONNECTIONS_CONFIG_FILE", "c.json")];
    let gateway = Gateway::start_in(directory, &variables).await;
    eventually("the webhook to lack its connection", async || {
        raw::request(gateway.address, &["POST /webhook/a HTTP/1.1"], "{}").await.status == 503
            && gateway.get("/ready").await.status == 200
    })
    .await;
    std::fs::write(gateway.path("c.json"), r#"{"c": {"type": "http", "url": "http://example.com/"}}"#).unwrap();
    comes_to_serve(&gateway, "a").await;
}
