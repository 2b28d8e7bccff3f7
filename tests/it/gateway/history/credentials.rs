//! Credentials that a guard reads from a field with a harmless name are not kept either.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Recorded, contains, hmac};

const BODY: &str = r#"{"order": 7}"#;

/// The name of a webhook, its guard, the header lines that it lets in, and what must not be kept of them.
fn cases() -> Vec<(&'static str, Value, Vec<String>, String)> {
    let signature = |secret: &str| hmac(secret, BODY);
    let basic = BASE64_STANDARD.encode("alice:p4ssw0rd-of-alice");
    vec![
        (
            "header",
            json!({"header_auth": {"header_name": "X-Foo", "api_key": "value-of-header-auth"}}),
            vec!["X-Foo: value-of-header-auth".to_owned()],
            "value-of-header-auth".to_owned(),
        ),
        (
            "query",
            json!({"query_auth": {"parameter_name": "page", "api_key": "value-of-query-auth"}}),
            vec![],
            "value-of-query-auth".to_owned(),
        ),
        (
            "basic",
            json!({"basic_auth": {"username": "alice", "password": "p4ssw0rd-of-alice"}}),
            vec![format!("Authorization: Basic {basic}")],
            basic,
        ),
        (
            "hmac",
            json!({"hmac": {"header": "X-Check", "secret": "secret-of-hmac"}}),
            vec![format!("X-Check: {}", signature("secret-of-hmac"))],
            signature("secret-of-hmac"),
        ),
        (
            "spelled",
            json!({"signature": {"algorithm": "hmac-sha256", "encoding": "hex", "header": "X-Sum", "content": "{body}", "secrets": ["secret-of-spelled"]}}),
            vec![format!("X-Sum: {}", signature("secret-of-spelled"))],
            signature("secret-of-spelled"),
        ),
        (
            "github",
            json!({"signature": {"preset": "github", "secrets": ["secret-of-github"]}}),
            vec![format!("X-Hub-Signature-256: sha256={}", signature("secret-of-github"))],
            signature("secret-of-github"),
        ),
        (
            "either",
            json!({"any_of": [
                {"header_auth": {"header_name": "X-Bar", "api_key": "value-of-any-of"}},
                {"ip_allow": ["10.1.1.1"]},
            ]}),
            vec!["X-Bar: value-of-any-of".to_owned()],
            "value-of-any-of".to_owned(),
        ),
    ]
}

#[tokio::test]
async fn what_a_guard_reads_is_never_kept_whatever_its_field_is_called() {
    let webhooks: serde_json::Map<_, _> = cases()
        .into_iter()
        .map(|(name, mut webhook, ..)| {
            webhook["module"] = json!("discard");
            (name.to_owned(), webhook)
        })
        .collect();
    let recorded = Recorded::start(webhooks.into(), json!({})).await;
    for (name, _, headers, _) in cases() {
        let path = if name == "query" { "query?page=value-of-query-auth" } else { name };
        let mut lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        lines.push("X-Kept: kept-header");
        assert_eq!(recorded.send(path, &lines, BODY).await.status, 200, "{name}");
        let event = recorded.newest(name).await;
        let head = event["head"].as_array().unwrap();
        assert!(head.contains(&json!(["x-kept", "kept-header"])), "{event}");
        // The field's name is kept: an operator sees that it was there.
        for line in &headers {
            let field = line.split(':').next().unwrap().to_lowercase();
            assert!(head.contains(&json!([field, "***REDACTED***"])), "{event}");
        }
        assert_eq!(event["body"]["text"], BODY);
    }
    let kept = recorded.kept().await;
    assert!(contains(&kept, "kept-header"));
    for (name, _, _, secret) in cases() {
        assert!(!contains(&kept, &secret), "{name}");
    }
}

#[tokio::test]
async fn what_a_guard_reads_is_not_shown_of_a_waiting_event_either() {
    let retry = json!({"enabled": true, "max_attempts": 3, "initial_delay": 60, "max_delay": 60});
    // Nothing listens on this port.
    let webhooks = json!({"orders": {
        "module": "http_webhook", "module-config": {"url": "http://127.0.0.1:9/"}, "ack": "accepted", "retry": retry,
        "header_auth": {"header_name": "X-Foo", "api_key": "value-of-header-auth"},
    }});
    let recorded = Recorded::start(webhooks, json!({})).await;
    let sent = recorded.send("orders", &["X-Foo: value-of-header-auth", "X-Api-Key: hunter2"], BODY).await;
    assert_eq!(sent.status, 202);
    let waiting = recorded.ask("GET", &format!("waiting/{}", sent.header("x-event-id"))).await;
    assert_eq!(waiting.status, 200);
    assert!(waiting.text().contains(r#"["x-foo","***REDACTED***"]"#), "{}", waiting.text());
    assert!(!waiting.text().contains("value-of-header-auth") && !waiting.text().contains("hunter2"));
}
