//! `ADMIN_TOKENS_FILE`: tokens of operators that change while the gateway runs.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::process::{Gateway, refused_start};
use crate::support::{Answer, eventually};

const FILE: &str = "tokens.json";

fn token(name: &str, token: &str, more: Value) -> Value {
    let digest: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut line = json!({"name": name, "sha256": digest});
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    line
}

fn write(directory: &Path, tokens: &[Value]) {
    std::fs::write(directory.join(FILE), json!({"tokens": tokens}).to_string()).unwrap();
}

async fn start(tokens: &[Value]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let webhook = json!({"module": "discard"});
    let config = json!({"namespaces": {"a": {"hook": webhook}, "b": {"hook": webhook}}});
    std::fs::write(directory.path().join("webhooks.json"), config.to_string()).unwrap();
    write(directory.path(), tokens);
    let gateway = Gateway::start_in(
        directory,
        &[("ADMIN_TOKENS_FILE", FILE), ("ADMIN_TOKEN", "token-of-the-variable"), ("HISTORY_DIR", "history")],
    )
    .await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    gateway
}

async fn ask(gateway: &Gateway, method: &str, path: &str, token: &str) -> Answer {
    let line = format!("{method} /admin/{path} HTTP/1.1");
    gateway.request(&[&line, &format!("Authorization: Bearer {token}")], "").await
}

/// Whether the token lets in.
async fn lets_in(gateway: &Gateway, token: &str) -> bool {
    match ask(gateway, "GET", "session", token).await.status.as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

fn refused_files(metrics: &Answer) -> Option<&str> {
    metrics.text().lines().find(|line| line.starts_with("tower_webhook_files_refused{"))
}

#[tokio::test]
async fn a_token_has_the_rights_and_namespaces_of_its_line() {
    let gateway = start(&[
        token("reader", "reads-everything", json!({})),
        token("team-a", "writes-in-a", json!({"namespaces": ["a"], "rights": ["read", "write"]})),
        token("writer", "only-writes", json!({"rights": ["write"]})),
    ])
    .await;
    let session = ask(&gateway, "GET", "session", "writes-in-a").await.json();
    assert_eq!(
        (&session["name"], &session["rights"], &session["namespaces"]),
        (&json!("team-a"), &json!(["read", "write"]), &json!(["a"]))
    );
    for (token, method, path, status) in [
        ("reads-everything", "GET", "webhooks/a/hook", 200),
        ("reads-everything", "GET", "webhooks/b/hook", 200),
        ("reads-everything", "POST", "webhooks/a/hook/test", 403),
        ("writes-in-a", "GET", "webhooks/a/hook", 200),
        ("writes-in-a", "POST", "webhooks/a/hook/test", 200),
        ("writes-in-a", "GET", "webhooks/b/hook", 404),
        ("writes-in-a", "POST", "webhooks/b/hook/test", 404),
        ("only-writes", "GET", "webhooks/a/hook", 403),
        ("only-writes", "POST", "webhooks/b/hook/test", 200),
        ("token-of-the-variable", "POST", "webhooks/b/hook/test", 200),
        ("unknown", "GET", "webhooks/a/hook", 401),
    ] {
        assert_eq!(ask(&gateway, method, path, token).await.status, status, "{token} {method} {path}");
    }
    let done = gateway.err();
    let line = done.lines().find(|line| line.contains("an operator has acted") && line.contains("team-a")).unwrap();
    assert!(line.contains("test") && line.contains("a/hook"), "{line}");
    assert!(!done.contains("writes-in-a"), "no token is in the log");
}

#[tokio::test]
async fn a_change_of_the_file_and_a_hangup_are_followed() {
    let (old, new) = (token("ops", "the-old-token", json!({})), token("ops", "the-new-token", json!({})));
    let gateway = start(&[old]).await;
    assert!(lets_in(&gateway, "the-old-token").await && !lets_in(&gateway, "the-new-token").await);
    write(gateway.path("").as_path(), std::slice::from_ref(&new));
    eventually("the new token", async || lets_in(&gateway, "the-new-token").await).await;
    assert!(!lets_in(&gateway, "the-old-token").await, "both change at once");

    // A hangup reads the file at once, and says that it did.
    gateway.signal("HUP").await;
    eventually("a line", async || gateway.err().contains("SIGHUP: nothing has changed")).await;
    let more = token("more", "one-more-token", json!({}));
    write(gateway.path("").as_path(), &[new, more]);
    gateway.signal("HUP").await;
    eventually("the added token", async || lets_in(&gateway, "one-more-token").await).await;
    assert!(lets_in(&gateway, "the-new-token").await && lets_in(&gateway, "token-of-the-variable").await);
}

#[tokio::test]
async fn a_broken_file_leaves_the_tokens_of_before_in_use_and_says_so() {
    let gateway = start(&[token("ops", "the-first-token", json!({}))]).await;
    let file = gateway.path(FILE);
    eventually("the metric", async || {
        refused_files(&gateway.get("/metrics").await).is_some_and(|line| line.ends_with(" 0"))
    })
    .await;
    for (times, broken) in
        [r#"{"tokens": ["#, r#"{"tokens": [{"name": "ops", "sha256": "hunter2"}]}"#].iter().enumerate()
    {
        std::fs::write(&file, broken).unwrap();
        let told = format!("ADMIN_TOKENS_FILE: {FILE}");
        eventually("a line", async || gateway.err().matches(&told).count() > times).await;
        assert!(gateway.err().contains("the previous contents stay in use") && !gateway.err().contains("hunter2"));
        assert!(lets_in(&gateway, "the-first-token").await);
        let metrics = gateway.get("/metrics").await;
        assert_eq!(refused_files(&metrics), Some(r#"tower_webhook_files_refused{files="ADMIN_TOKENS_FILE"} 1"#));
    }
    // A file that is gone is no order to let nobody in either.
    std::fs::remove_file(&file).unwrap();
    eventually("a line", async || gateway.err().contains("No such file")).await;
    assert!(lets_in(&gateway, "the-first-token").await);

    write(gateway.path("").as_path(), &[token("ops", "the-second-token", json!({}))]);
    eventually("the mended file", async || lets_in(&gateway, "the-second-token").await).await;
    assert!(!lets_in(&gateway, "the-first-token").await, "it is revoked");
    eventually("the metric", async || {
        refused_files(&gateway.get("/metrics").await).is_some_and(|line| line.ends_with(" 0"))
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_stops_the_start_with_one_line_that_names_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    let twice = token("ops", "x-long-token", json!({}));
    for (contents, hint) in [
        (None, "No such file"),
        (Some("{".to_owned()), "found no list of tokens"),
        (Some(json!({"tokens": [{"name": "ops", "sha256": "hunter2"}]}).to_string()), "expected 64 hexadecimal digits"),
        (Some(json!({"tokens": [twice, twice]}).to_string()), "two tokens have the name `ops`"),
    ] {
        if let Some(contents) = &contents {
            std::fs::write(&file, contents).unwrap();
        }
        let (status, err) =
            refused_start(&[("ADMIN_TOKENS_FILE", file.as_os_str()), ("RUST_LOG", OsStr::new("error"))]).await;
        assert!(!status.success());
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.contains("ADMIN_TOKENS_FILE") && err.contains(hint) && !err.contains("hunter2"), "{err}");
    }
}
