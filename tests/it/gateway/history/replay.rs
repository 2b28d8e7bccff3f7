//! An event is replayed from the history if what is delivered is the same, byte for byte.

use serde_json::{Value, json};

use super::{Recorded, hmac};
use crate::http_webhook::target::{OK, Received, Target};

const SECRET: &str = "secret-of-github";
const BODY: &str = r#"{"action": "opened", "number": 7}"#;

/// The header fields of a delivery, without the fields that are new in each delivery.
fn seen(received: &Received) -> Vec<(&str, Vec<&str>)> {
    let names = received.names().into_iter();
    let is_old = |name: &&str| !matches!(*name, "x-event-id" | "x-received-at");
    names.filter(is_old).map(|name| (name, received.all(name))).collect()
}

struct Replayed {
    recorded: Recorded,
    target: Target,
    first: Received,
    id: String,
}

/// A webhook that GitHub signs. One event of it is delivered.
async fn github(more: Value, body: &str) -> Replayed {
    let mut target = Target::answering(OK).await;
    let mut webhook = json!({
        "module": "http_webhook", "module-config": {"url": target.url()},
        "signature": {"preset": "github", "secrets": [SECRET]},
    });
    for (key, value) in more.as_object().unwrap() {
        match key.as_str() {
            "module-config" => webhook[key]["forward_headers"] = value["forward_headers"].clone(),
            _ => webhook[key] = value.clone(),
        }
    }
    let recorded = Recorded::start(json!({"pushes": webhook}), json!({})).await;
    let signature = format!("X-Hub-Signature-256: sha256={}", hmac(SECRET, body));
    let headers = [signature.as_str(), "X-GitHub-Event: issues", "Content-Type: application/json"];
    assert_eq!(recorded.send("pushes", &headers, body).await.status, 200);
    let first = target.received().await;
    let id = recorded.newest("pushes").await["id"].as_str().unwrap().to_owned();
    Replayed { recorded, target, first, id }
}

impl Replayed {
    async fn assert_same(mut self) {
        let event = self.recorded.event(&self.id, "delivered").await;
        assert_eq!((&event["can_replay"], &event["replay_note"]), (&json!(true), &Value::Null), "{event}");
        let answer = self.recorded.ask("POST", &format!("events/{}/replay", self.id)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let again = self.target.received().await;
        assert_eq!((&again.line, &again.body, seen(&again)), (&self.first.line, &self.first.body, seen(&self.first)));
        assert_eq!(again.one("x-event-id"), answer.json()["id"]);
    }

    async fn assert_refused(self, reason: &str) {
        let event = self.recorded.event(&self.id, "delivered").await;
        let detail = self.recorded.ask("POST", &format!("events/{}/replay", self.id)).await.problem(409);
        assert!(detail.contains(reason), "{detail}");
        assert_eq!((&event["can_replay"], &event["replay_note"]), (&json!(false), &json!(detail)));
    }
}

#[tokio::test]
async fn an_event_that_github_has_signed_is_replayed_as_it_was_delivered() {
    github(json!({}), BODY).await.assert_same().await;
}

#[tokio::test]
async fn a_signature_that_was_sent_on_is_not_made_up() {
    let replayed = github(json!({"module-config": {"forward_headers": true}}), BODY).await;
    assert!(replayed.first.one("x-hub-signature-256").starts_with("sha256="));
    replayed.assert_refused("the header field `x-hub-signature-256`, whose value is not kept").await;
}

#[tokio::test]
async fn a_signature_that_the_cleanup_masks_is_masked_in_the_replay_too() {
    for mode in ["mask", "remove"] {
        let config = json!({"module-config": {"forward_headers": true}, "credential_cleanup": {"mode": mode}});
        let replayed = github(config, BODY).await;
        assert_eq!(replayed.first.all("x-hub-signature-256").len(), usize::from(mode == "mask"));
        replayed.assert_same().await;
    }
}

#[tokio::test]
async fn a_body_that_had_a_secret_or_was_cut_is_not_replayed() {
    github(json!({}), r#"{"token": "hunter2"}"#).await.assert_refused("secrets removed").await;
    let long = format!(r#"{{"text": "{}"}}"#, "x".repeat(70_000));
    github(json!({}), &long).await.assert_refused("is cut").await;
}

#[tokio::test]
async fn what_the_queue_still_has_is_replayed_whatever_the_history_has_masked() {
    let mut target = Target::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let webhook = json!({
        "module": "http_webhook", "module-config": {"url": target.url(), "forward_headers": true}, "ack": "accepted",
        "header_auth": {"header_name": "X-Foo", "api_key": "value-of-header-auth"},
    });
    let recorded = Recorded::start(json!({"orders": webhook}), json!({})).await;
    let sent = recorded.send("orders", &["X-Foo: value-of-header-auth"], r#"{"token": "hunter2"}"#).await;
    let id = sent.header("x-event-id");
    assert_eq!(target.received().await.one("x-foo"), "value-of-header-auth");
    let event = recorded.event(id, "failed").await;
    assert_eq!((&event["is_exact"], &event["can_replay"]), (&json!(false), &json!(true)), "{event}");
    assert_eq!(recorded.ask("POST", &format!("events/{id}/replay")).await.status, 202);
    let again = target.received().await;
    assert_eq!((again.one("x-foo"), &*again.body), ("value-of-header-auth", &br#"{"token": "hunter2"}"#[..]));
}
