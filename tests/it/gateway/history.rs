//! The history of a gateway with `HISTORY_DIR`, read through its admin routes.

mod broker;
mod credentials;
mod replay;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::http_webhook::target::Target;
use crate::hyper::http1;
use crate::support::process::Gateway;
use crate::support::{Answer, eventually};

const ADMIN: &str = "token-of-the-operator";

/// A gateway with a queue and a history.
struct Recorded {
    gateway: Gateway,
}

impl Recorded {
    async fn start(webhooks: Value, connections: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({"namespaces": {"shop": webhooks}});
        std::fs::write(directory.path().join("webhooks.json"), config.to_string()).unwrap();
        std::fs::write(directory.path().join("connections.json"), connections.to_string()).unwrap();
        let variables = [
            ("ADMIN_TOKEN", ADMIN),
            ("HISTORY_DIR", "history"),
            ("SPOOL_DIR", "spool"),
            ("EGRESS_ALLOW", "127.0.0.0/8"),
        ];
        let gateway = Gateway::start_in(directory, &variables).await;
        eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
        let recorded = Self { gateway };
        let status = recorded.ask("GET", "config-status").await.json();
        assert_eq!(status["refused_keys"], json!([]), "{status}");
        recorded
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(format!("/admin/{path}")).header("host", "gateway");
        let request = request.header("authorization", format!("Bearer {ADMIN}"));
        http1(self.gateway.address, request.body(Full::<Bytes>::default()).unwrap()).await
    }

    /// Sends an event with these header lines. Returns the answer.
    async fn send(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        let line = format!("POST /webhook/shop/{path} HTTP/1.1");
        let head: Vec<&str> = [line.as_str()].into_iter().chain(headers.iter().copied()).collect();
        self.gateway.request(&head, body).await
    }

    /// The event of this id, once it has the outcome.
    async fn event(&self, id: &str, outcome: &str) -> Value {
        let path = format!("events/{id}");
        let found = async || {
            let answer = self.ask("GET", &path).await;
            answer.status == 200 && answer.json()["outcome"] == outcome
        };
        eventually(&format!("the event to be {outcome}"), found).await;
        self.ask("GET", &path).await.json()
    }

    /// The newest event of the webhook.
    async fn newest(&self, webhook: &str) -> Value {
        let page = self.ask("GET", &format!("events?webhook={webhook}&limit=1")).await.json();
        let id = page["events"][0]["id"].as_str().unwrap_or_else(|| panic!("{page}")).to_owned();
        self.ask("GET", &format!("events/{id}")).await.json()
    }

    /// Every byte of the history's files, after the gateway has ended.
    async fn kept(mut self) -> Vec<u8> {
        self.gateway.signal("TERM").await;
        assert!(self.gateway.ended().await.success(), "{}", self.gateway.err());
        let mut bytes = Vec::new();
        for file in std::fs::read_dir(self.gateway.path("history")).unwrap() {
            bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
        assert!(bytes.len() > 10_000);
        bytes
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|at| at == text.as_bytes())
}

fn hmac(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn each_fact_of_a_delivered_event_is_kept() {
    let target = Target::answering(answer("201 Created", "taken as 7")).await;
    let webhooks = json!({"orders": {
        "module": "http_webhook", "module-config": {"url": target.url()},
        "authorization": ["Bearer the-new-token", "Bearer the-old-token"],
        "dedup": {"header": "X-Delivery"},
    }});
    let recorded = Recorded::start(webhooks, json!({})).await;
    let body = r#"{"order": 7}"#;
    let headers = ["Authorization: Bearer the-old-token", "Content-Type: application/json", "X-Delivery: d-1"];
    let sent = recorded.send("orders?key=hunter2&page=hunter3", &headers, body).await;
    assert_eq!(sent.status, 200);
    let id = sent.header("x-event-id").to_owned();
    let event = recorded.event(&id, "delivered").await;
    for (field, value) in [
        ("id", json!(id)),
        ("namespace", json!("shop")),
        ("webhook", json!("orders")),
        ("key", json!("shop/orders")),
        ("module", json!("http_webhook")),
        ("peer", json!("127.0.0.1")),
        ("method", json!("POST")),
        ("path", json!("/webhook/shop/orders")),
        ("size", json!(body.len())),
        ("status", json!(200)),
        ("kind", Value::Null),
        ("dedup", json!("first")),
        ("secrets", json!([{"guard": "authorization", "position": 2}])),
        ("attempts", json!(1)),
        ("is_exact", json!(true)),
    ] {
        assert_eq!(event[field], value, "{field} of {event}");
    }
    let head = event["head"].as_array().unwrap();
    for field in [["content-type", "application/json"], ["x-delivery", "d-1"], ["authorization", "***REDACTED***"]] {
        assert!(head.contains(&json!(field)), "{field:?} in {head:?}");
    }
    assert_eq!((&event["body"]["text"], &event["body"]["is_cut"]), (&json!(body), &json!(false)));
    assert!(event["at"].as_str().unwrap().ends_with('Z') && event["revision"].as_u64().unwrap() > 0, "{event}");
    let seconds = |value: &Value| value.as_f64().unwrap();
    let steps: Vec<_> = event["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert!(steps.contains(&"guards") && steps.contains(&"body") && steps.contains(&"module"), "{steps:?}");
    let attempt = &event["attempts_made"][0];
    for (field, value) in [
        ("number", json!(1)),
        ("module", json!("http_webhook")),
        ("kind", Value::Null),
        ("reason", Value::Null),
        ("outcome", json!("delivered")),
        ("answer", json!({"status": 201, "body": "taken as 7"})),
    ] {
        assert_eq!(attempt[field], value, "{field} of {attempt}");
    }
    assert!(seconds(&attempt["seconds"]) > 0.0 && seconds(&event["duration_seconds"]) >= seconds(&attempt["seconds"]));
    assert!(attempt["at"].as_str().unwrap() >= event["at"].as_str().unwrap());

    assert_eq!(recorded.send("orders", &headers, body).await.header("x-duplicate"), "true");
    let duplicate = recorded.newest("orders").await;
    assert_eq!((&duplicate["outcome"], &duplicate["dedup"]), (&json!("skipped"), &json!("duplicate")));
    assert!(duplicate["reason"].as_str().unwrap().contains(&id), "{duplicate}");

    let kept = recorded.kept().await;
    for (text, is_kept) in
        [("taken as 7", true), ("d-1", true), ("hunter", false), ("the-old-token", false), ("the-new-token", false)]
    {
        assert_eq!(contains(&kept, text), is_kept, "{text}");
    }
}

#[tokio::test]
async fn a_target_that_refuses_an_event_is_quoted_and_so_is_each_attempt() {
    let refusal = format!("the field `order` is missing{}", "x".repeat(5000));
    let refusing = Target::answering(answer("400 Bad Request", &refusal)).await;
    let busy = Target::answering(answer("503 Service Unavailable", "try later")).await;
    let retry = json!({"enabled": true, "max_attempts": 2, "initial_delay": 0.05, "max_delay": 0.05});
    let to = |url: String, ack: &str| json!({"module": "http_webhook", "module-config": {"url": url}, "ack": ack, "retry": retry.clone()});
    let webhooks = json!({"direct": to(refusing.url(), "delivered"), "queued": to(refusing.url(), "accepted"), "busy": to(busy.url(), "accepted")});
    let recorded = Recorded::start(webhooks, json!({})).await;
    for (webhook, status) in [("direct", 502), ("queued", 202)] {
        let sent = recorded.send(webhook, &[], "{}").await;
        assert_eq!(sent.status, status, "{webhook}");
        let event = match webhook {
            "queued" => recorded.event(sent.header("x-event-id"), "failed").await,
            _ => recorded.newest(webhook).await,
        };
        assert_eq!((&event["outcome"], &event["status"]), (&json!("failed"), &json!(status)), "{event}");
        assert_eq!((&event["kind"], &event["accepted"]), (&json!("permanent"), &json!(webhook == "queued")));
        let attempts = event["attempts_made"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "a permanent error is not tried again: {event}");
        assert_eq!(attempts[0]["kind"], "permanent");
        let reason = attempts[0]["reason"].as_str().unwrap();
        assert!(reason.contains("400") && reason.contains(&refusing.address.to_string()), "{reason}");
        assert_eq!(attempts[0]["answer"], json!({"status": 400, "body": &refusal[..1024]}));
    }
    let sent = recorded.send("busy", &[], "{}").await;
    let event = recorded.event(sent.header("x-event-id"), "failed").await;
    assert_eq!((&event["attempts"], &event["in_queue"]), (&json!(2), &json!("dead_letter")));
    let attempts = event["attempts_made"].as_array().unwrap();
    let facts: Vec<_> = attempts.iter().map(|one| (&one["number"], &one["outcome"], &one["answer"]["body"])).collect();
    let later = json!("try later");
    assert_eq!(facts, [(&json!(1), &json!("waiting"), &later), (&json!(2), &json!("failed"), &later)]);
    assert!(attempts[0]["next"].is_string() && attempts[1]["next"].is_null(), "{event}");
}

#[tokio::test]
async fn a_refused_request_is_kept_with_its_reason_and_nothing_of_its_contents() {
    let webhooks = json!({"guarded": {"module": "discard", "authorization": "Bearer a-long-token"}});
    let recorded = Recorded::start(webhooks, json!({})).await;
    let headers = ["Authorization: Bearer guess-hunter2", "X-Note: note-hunter2"];
    assert_eq!(recorded.send("guarded?q=query-hunter2", &headers, r#"{"a": "body-hunter2"}"#).await.status, 401);
    let event = recorded.newest("guarded").await;
    for (field, value) in [
        ("outcome", json!("refused")),
        ("status", json!(401)),
        ("kind", json!("unauthenticated")),
        ("method", json!("POST")),
        ("size", json!(21)),
        ("peer", json!("127.0.0.1")),
        ("head", json!([])),
        ("body", Value::Null),
        ("can_replay", json!(false)),
    ] {
        assert_eq!(event[field], value, "{field} of {event}");
    }
    assert_eq!(event["reason"], "`authorization`: invalid");
    assert!(!contains(&recorded.kept().await, "hunter2"));
}
