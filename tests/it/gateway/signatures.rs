//! Senders that sign what they send.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::process::Gateway;

/// As GitHub's documentation has them.
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "Hello, World!";
const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

async fn serving(webhooks: &Value, variables: &[(&str, &str)]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let gateway = Gateway::start_in(directory, variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}

fn github(secrets: Value) -> Value {
    json!({"github": {"module": "discard", "data_type": "blob", "signature": {"preset": "github", "secrets": secrets}}})
}

async fn send(gateway: &Gateway, signature: &str, body: &str) -> u16 {
    let signature = format!("X-Hub-Signature-256: {signature}");
    gateway.request(&["POST /webhook/github HTTP/1.1", &signature], body).await.status.as_u16()
}

async fn assert_metric(gateway: &Gateway, line: &str) {
    let text = gateway.get("/metrics").await.text().to_owned();
    assert!(text.lines().any(|other| other == line), "{line} is missing in\n{text}");
}

#[tokio::test]
async fn what_github_signs_is_let_in_and_nothing_else() {
    let gateway = serving(&github(json!(["a secret that is newer", SECRET])), &[("LOG_FORMAT", "json")]).await;
    assert_eq!(send(&gateway, SIGNATURE, BODY).await, 200);
    assert_eq!(send(&gateway, SIGNATURE, "Hello, Mallory!").await, 401);
    assert_eq!(send(&gateway, "sha256=757107", BODY).await, 401);
    assert_eq!(gateway.post("/webhook/github", BODY).await.status, 401);
    let both = format!("X-Hub-Signature-256: {SIGNATURE}");
    assert_eq!(gateway.request(&["POST /webhook/github HTTP/1.1", &both, &both], BODY).await.status, 401);
    assert_metric(&gateway, r#"tower_webhook_secret_matches_total{guard="signature",position="1"} 1"#).await;
    for (reason, count) in [("bad_signature", 1), ("malformed", 2), ("missing", 1)] {
        let line = format!(r#"tower_webhook_auth_refusals_total{{guard="signature",reason="{reason}"}} {count}"#);
        assert_metric(&gateway, &line).await;
    }
    eventually("the reason to be logged", async || gateway.err().contains(r#""reason":"bad_signature""#)).await;
    assert!(!gateway.err().contains("Secret to Everybody") && !gateway.err().contains("757107"), "{}", gateway.err());
}

#[tokio::test]
async fn an_answer_tells_a_stranger_nothing_of_what_was_wrong() {
    let gateway = serving(&github(json!(SECRET)), &[]).await;
    let mut answers = Vec::new();
    for signature in [SIGNATURE, "sha256=00", "", "sha1=757107"] {
        let head = format!("X-Hub-Signature-256: {signature}");
        let answer = gateway.request(&["POST /webhook/github HTTP/1.1", &head], "another body").await;
        answers.push((answer.status, answer.header("www-authenticate").to_owned(), answer.text().to_owned()));
    }
    assert_eq!(answers[0].0, 401);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn a_secret_expires_without_a_new_value_and_a_new_one_takes_over() {
    let end = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(4)).unwrap().to_string();
    let old = json!({"value": SECRET, "not_after": end});
    let gateway = serving(&github(json!([old])), &[]).await;
    assert_eq!(send(&gateway, SIGNATURE, BODY).await, 200);
    eventually("the secret to expire", async || send(&gateway, SIGNATURE, BODY).await == 401).await;
    assert!(SystemTime::now() >= SystemTime::from(end.parse::<jiff::Timestamp>().unwrap()));
    assert_metric(&gateway, r#"tower_webhook_auth_refusals_total{guard="signature",reason="expired_secret"} 1"#).await;
    std::fs::write(gateway.path("webhooks.json"), github(json!([old, SECRET])).to_string()).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=2").await.status, 200);
    assert_eq!(send(&gateway, SIGNATURE, BODY).await, 200);
    assert_metric(&gateway, r#"tower_webhook_secret_matches_total{guard="signature",position="1"} 1"#).await;
}

#[tokio::test]
async fn the_address_that_is_signed_is_the_public_one() {
    let square = |more: Value| {
        let mut webhook = json!({"module": "discard", "signature": {"preset": "square", "secrets": SECRET}});
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        webhook
    };
    let own = json!({"public_url": "https://example.net/square"});
    let webhooks = json!({"square": square(json!({})), "own": square(own)});
    let gateway = serving(&webhooks, &[("PUBLIC_URL", "https://hooks.example.com")]).await;
    let send = async |path: &str, url: &str| {
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), format!("{url}{{}}").as_bytes());
        let signature = format!("x-square-hmacsha256-signature: {}", BASE64_STANDARD.encode(mac));
        gateway.request(&[&format!("POST {path} HTTP/1.1"), &signature], "{}").await.status.as_u16()
    };
    for (path, url, status) in [
        ("/webhook/square", "https://hooks.example.com/webhook/square", 200),
        ("/webhook/square?a=%20b", "https://hooks.example.com/webhook/square?a=%20b", 200),
        ("/webhook/default/square", "https://hooks.example.com/webhook/default/square", 200),
        ("/webhook/square", "https://hooks.example.com/webhook/other", 401),
        ("/webhook/square", "http://hooks.example.com/webhook/square", 401),
        ("/webhook/own", "https://example.net/square", 200),
        ("/webhook/own?x", "https://example.net/square?x", 200),
        ("/webhook/own", "https://hooks.example.com/webhook/own", 401),
    ] {
        assert_eq!(send(path, url).await, status, "{path} {url}");
    }
}
