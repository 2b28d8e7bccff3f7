//! The built-in modules in the gateway.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::http_webhook::target::{OK, Target, url};
use crate::support::eventually;
use crate::support::process::{Gateway, free_address};

#[tokio::test]
async fn the_log_is_one_line_on_stdout_and_redacted() {
    let gateway = Gateway::start(&[]).await;
    let body = json!({
        "user": "ann", "password": "p4ss", "nested": [{"api_key": "k3y", "note": "two\nlines \u{1b}[31m\u{9b}"}],
    });
    let answer = gateway.post("/webhook/log", body.to_string()).await;
    answer.assert_accepted();
    // The answer came after the line was written; reading it from the pipe may take a moment.
    eventually("the line to arrive", async || gateway.out().ends_with('\n')).await;
    let out = gateway.out();
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(!out.trim_end().chars().any(char::is_control), "{out:?}");
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["event_id"], answer.header("x-event-id"));
    assert_eq!((&line["namespace"], &line["webhook"]), (&json!("default"), &json!("log")));
    assert_eq!(line["payload"]["user"], "ann");
    assert_eq!(line["payload"]["nested"][0]["note"], "two\nlines \u{1b}[31m\u{9b}");
    for secret in ["p4ss", "k3y"] {
        assert!(!out.contains(secret) && !gateway.err().contains(secret), "{out}");
    }
}

#[tokio::test]
async fn the_log_never_shows_the_credential() {
    let gateway = Gateway::start(&[("RUST_LOG", "trace")]).await;
    gateway.post_with_credential("/webhook/log", r#"{"a": "p4yload"}"#).await.assert_accepted();
    gateway.post_with_credential("/webhook/guarded", r#"{"a": "p4yload"}"#).await.assert_accepted();
    gateway.request(&["POST /webhook/guarded HTTP/1.1", "Authorization: Bearer wr0ng"], "{}").await.problem(401);
    eventually("the line to arrive", async || gateway.out().ends_with('\n')).await;
    let (out, err) = (gateway.out(), gateway.err());
    assert!(out.contains("p4yload"), "the module `log` shows the payload");
    for secret in ["s3cret", "wr0ng"] {
        assert!(!out.contains(secret), "{out}");
        assert!(!err.contains(secret), "{err}");
    }
    assert!(!err.contains("p4yload"), "{err}");
}

#[tokio::test]
async fn a_pretty_event_is_over_several_lines() {
    let gateway = Gateway::start(&[]).await;
    gateway.post("/webhook/pretty", r#"{"a": {"b": 1}}"#).await.assert_accepted();
    eventually("the lines to arrive", async || gateway.out().ends_with("}\n")).await;
    let out = gateway.out();
    assert!(out.lines().count() > 5, "{out}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["payload"], json!({"a": {"b": 1}}));
}

#[tokio::test]
async fn the_logs_of_the_gateway_are_json_if_so_configured() {
    let gateway = Gateway::start(&[("LOG_FORMAT", "json"), ("RUST_LOG", "info,tower_webhook=debug")]).await;
    gateway.post("/webhook/nothing", "{}").await.problem(404);
    eventually("the refusal to be logged", async || gateway.err().contains("unknown_webhook")).await;
    for line in gateway.err().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(gateway.out().is_empty());
}

#[tokio::test]
async fn a_name_of_25_mb_is_not_looked_into_and_holds_up_nobody() {
    let webhooks = json!({
        "open": {"module": "discard"},
        "clean": {"module": "save_to_disk", "credential_cleanup": {}},
        "log": {"module": "log"},
    });
    let gateway = with(&webhooks, &[("MAX_BODY_BYTES", "30MB"), ("SAVE_TO_DISK_ROOT", "data")]).await;
    let body = format!("{{\"pwd{}\": \"s3cret\"}}", "a_".repeat(12 << 20));
    let posts = futures_util::future::join(gateway.post("/webhook/clean", &body), gateway.post("/webhook/log", &body));
    let others = async {
        for _ in 0..20 {
            gateway.assert_serves().await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let ((cleaned, logged), ()) = futures_util::future::join(posts, others).await;
    cleaned.assert_accepted();
    logged.assert_accepted();
    let file = gateway.path(&format!("data/{}.json", cleaned.header("x-event-id")));
    assert!(std::fs::read_to_string(file).unwrap().ends_with("_\": \"***REDACTED***\"}"));
    eventually("the line", async || gateway.out().contains("not printed: too large")).await;
}

#[tokio::test]
async fn a_saved_event_is_a_private_file_named_after_the_template() {
    let gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", "data")]).await;
    let body = " {\"a\": \"\u{e9}\"}\n";
    let answer = gateway.post_with_credential("/webhook/save", body).await;
    answer.assert_accepted();
    let file = gateway.path(&format!("data/events/default_save_{}.json", answer.header("x-event-id")));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), body);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(gateway.path("data/events")).unwrap().count(), 1, "nothing else is left");
    gateway.post("/webhook/save", body).await.problem(401);
    assert_eq!(std::fs::read_dir(gateway.path("data/events")).unwrap().count(), 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_saved_is_503() {
    // A file in place of a directory: unlike permissions, it also stops root.
    let gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", "webhooks.json/data")]).await;
    let answer = gateway.post_with_credential("/webhook/save", "{}").await;
    assert_eq!(answer.problem(503), "The event cannot be taken now");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!answer.text().contains("webhooks.json"), "{}", answer.text());
    eventually("the operator to be told", async || gateway.err().contains("not delivered")).await;
    gateway.assert_serves().await;
}

#[tokio::test]
async fn a_link_out_of_the_root_is_not_followed() {
    let gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", "data")]).await;
    std::fs::create_dir_all(gateway.path("data")).unwrap();
    std::fs::create_dir_all(gateway.path("outside")).unwrap();
    std::os::unix::fs::symlink(gateway.path("outside"), gateway.path("data/events")).unwrap();
    gateway.post_with_credential("/webhook/save", "{}").await.problem(503);
    assert_eq!(std::fs::read_dir(gateway.path("outside")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_event_that_cannot_be_logged_is_503() {
    let mut gateway = Gateway::start(&[]).await;
    gateway.close_stdout().await;
    eventually("the line to be refused", async || gateway.post("/webhook/log", "{}").await.status == 503).await;
    gateway.assert_serves().await;
}

#[tokio::test]
async fn an_event_is_sent_on_and_its_sender_learns_the_outcome() {
    let mut taking = Target::answering(OK).await;
    let failing = Target::answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
    let silent = Target::serving(async |mut connection| connection.hung_up().await).await;
    let webhooks = json!({
        "taking": {"module": "http_webhook", "module-config": {"url": taking.url()}},
        "failing": {"module": "http_webhook", "module-config": {"url": failing.url()}},
        "silent": {"module": "http_webhook", "module-config": {"url": silent.url(), "timeout": 0.3}},
        "nobody": {"module": "http_webhook", "module-config": {"url": url(free_address())}},
    });
    let gateway = with(&webhooks, &[("EGRESS_ALLOW", "10.0.0.0/8, 127.0.0.0/8")]).await;
    let answer = gateway.post("/webhook/taking", "{\"a\" : 1}").await;
    answer.assert_accepted();
    let received = taking.received().await;
    assert_eq!(received.body, b"{\"a\" : 1}");
    assert_eq!(received.one("x-event-id"), answer.header("x-event-id"));
    gateway.post("/webhook/failing", "{}").await.problem(502);
    gateway.post("/webhook/silent", "{}").await.problem(504);
    gateway.post("/webhook/nobody", "{}").await.problem(502);
    eventually("all errors to be logged", async || gateway.err().matches("not delivered event_id").count() == 3).await;
    assert!(!gateway.err().contains("s3cret"), "{}", gateway.err());
}

#[tokio::test]
async fn no_event_is_sent_to_this_machine_unless_the_operator_says_so() {
    let target = Target::answering(OK).await;
    let port = target.address.port();
    let webhooks = json!({
        "address": {"module": "http_webhook", "module-config": {"url": target.url()}},
        "name": {"module": "http_webhook", "module-config": {
            "url": format!("http://localhost:{port}/"), "allowed_hosts": ["localhost"]
        }},
    });
    for variables in [&[][..], &[("EGRESS_ALLOW", "10.0.0.0/8")]] {
        let gateway = with(&webhooks, variables).await;
        gateway.post("/webhook/address", "{}").await.problem(503);
        gateway.post("/webhook/name", "{}").await.problem(502);
    }
    assert_eq!(target.connections(), 0);
}

/// A gateway with these webhooks.
async fn with(webhooks: &Value, variables: &[(&str, &str)]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let gateway = Gateway::start_in(directory, variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}
