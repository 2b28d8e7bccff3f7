//! One entry for each request that reached a webhook.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tower_webhook::Receiver;
use tower_webhook::config::DataType;
use tower_webhook::dedup::Claims;
use tower_webhook::history::{Body, Dedup, Outcome, Received};
use tower_webhook::request::Peer;

use crate::support::history::InMemory;
use crate::support::modules::{Broken, Gate, Seen};
use crate::support::{Answer, CREDENTIAL, ask, post, receiver_of};

const GUARD: &str = r#""authorization": "Bearer s3cret-token""#;

async fn receiver(memory: &InMemory, webhook: &str) -> Receiver {
    let registry = Seen::default().registry().module::<Broken>();
    receiver_of(registry, &[("shop", "a", webhook)], |builder| {
        builder.history(memory.history()).claims(Claims::in_memory()).max_body_bytes(1000)
    })
    .await
}

/// Sends one request, and returns its answer and its entry.
async fn recorded(webhook: &str, request: Request<Full<Bytes>>) -> (Answer, Received) {
    let memory = InMemory::default();
    let answer = ask(&receiver(&memory, webhook).await, request).await;
    let received = memory.only();
    assert_eq!(received.status, answer.status);
    (answer, received)
}

fn steps(received: &Received) -> Vec<&'static str> {
    let mut end = Duration::ZERO;
    for step in &received.steps {
        assert_eq!(step.at, end, "{received:?}");
        end = step.at + step.duration;
    }
    assert_eq!(end, received.duration, "{received:?}");
    received.steps.iter().map(|step| step.name).collect()
}

#[tokio::test]
async fn a_delivered_event_is_reported_with_everything_that_is_known() {
    let webhook = format!(r#"{{"module": "capture", "authorization": ["Bearer old", "{CREDENTIAL}"]}}"#);
    let mut request = post("/shop/a?token=1", r#"{"n": 1}"#);
    request.extensions_mut().insert(Peer::new("[::ffff:192.0.2.7]:4711".parse().unwrap()));
    let (answer, received) = recorded(&webhook, request).await;
    answer.assert_accepted();
    assert_eq!(received.id.to_string(), answer.header("x-event-id"));
    assert!(received.at.elapsed().unwrap() < Duration::from_secs(20));
    assert_eq!(received.webhook.to_string(), "shop/a");
    assert_eq!((&*received.module, received.data_type, received.is_accepted), ("capture", DataType::Json, false));
    assert_eq!(received.revision, 1);
    assert_eq!(received.peer, Some("192.0.2.7".parse().unwrap()));
    assert_eq!((&received.method, &*received.path), (&Method::POST, "/shop/a"));
    assert_eq!(received.headers["authorization"], CREDENTIAL);
    assert_eq!(received.body, Body::Whole(Bytes::from(r#"{"n": 1}"#)));
    assert_eq!((received.outcome, received.kind, &received.reason), (Outcome::Delivered, None, &None));
    assert_eq!(received.dedup, None);
    assert_eq!(received.secrets, [("authorization", 2)]);
    assert_eq!(steps(&received), ["guards", "body", "payload", "module"]);
}

#[tokio::test]
async fn an_event_that_fails_has_the_reason_that_its_sender_does_not_get() {
    for (how, status, kind) in [("fail", 502, "connect"), ("unavailable", 503, "io"), ("timeout", 504, "timeout")] {
        let webhook = format!(r#"{{"module": "broken", "module-config": {{"how": "{how}"}}, {GUARD}}}"#);
        let (answer, received) = recorded(&webhook, post("/shop/a", "{}")).await;
        assert_eq!(answer.status, status);
        assert_eq!(received.id.to_string(), answer.header("x-event-id"));
        assert_eq!((received.outcome, received.kind), (Outcome::Failed, Some(kind)));
        assert_eq!(received.reason.as_deref(), Some("an-internal-reason"));
        assert_eq!(received.body.size(), 2);
        assert_eq!(steps(&received).last(), Some(&"module"));
    }
}

#[tokio::test]
async fn of_a_request_that_a_guard_refuses_neither_head_nor_body_is_kept() {
    let webhook = format!(r#"{{"module": "capture", {GUARD}}}"#);
    let mut request = post("/shop/a", "{}");
    request.headers_mut().insert("authorization", "Bearer wrong".parse().unwrap());
    request.headers_mut().insert("content-length", "2".parse().unwrap());
    let (answer, received) = recorded(&webhook, request).await;
    assert_eq!(answer.status, 401);
    assert_eq!((received.outcome, received.kind), (Outcome::Refused, Some("unauthenticated")));
    assert_eq!(received.reason.as_deref(), Some("`authorization`: invalid"));
    assert!(received.headers.is_empty());
    assert_eq!(received.body, Body::Left(2));
    assert_eq!(steps(&received), ["guards"]);
}

#[cfg(feature = "signature")]
#[tokio::test]
async fn of_a_request_with_a_wrong_signature_neither_head_nor_body_is_kept() {
    let webhook = r#"{"module": "capture", "signature": {"preset": "github", "secrets": ["s3cret-of-the-test"]}}"#;
    let mut request = post("/shop/a", "{}");
    let wrong = format!("sha256={}", "0".repeat(64));
    request.headers_mut().insert("x-hub-signature-256", wrong.parse().unwrap());
    let (answer, received) = recorded(webhook, request).await;
    assert_eq!(answer.status, 401);
    assert_eq!((received.outcome, received.kind), (Outcome::Refused, Some("unauthenticated")));
    assert_eq!(received.reason.as_deref(), Some("`signature`: bad signature"));
    assert!(received.headers.is_empty());
    assert_eq!(received.body, Body::Left(2));
    assert_eq!(steps(&received), ["guards", "body", "signature"]);
}

#[tokio::test]
async fn each_class_of_refusal_has_its_kind_and_its_step() {
    let guarded = format!(r#"{{"module": "capture", {GUARD}}}"#);
    let deduplicated = format!(r#"{{"module": "capture", {GUARD}, "dedup": {{"header": "x-id"}}}}"#);
    let get = Request::get("/shop/a").body(Full::default()).unwrap();
    let long = post("/shop/a", "x".repeat(1001));
    let mut encoded = post("/shop/a", "{}");
    encoded.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    let cases: [(&str, Request<Full<Bytes>>, u16, &str, &str, bool); 5] = [
        (&guarded, get, 405, "method_not_allowed", "handshake", false),
        (&guarded, long, 413, "body_too_large", "body", false),
        (&guarded, post("/shop/a", "{"), 400, "malformed_payload", "payload", true),
        (&guarded, encoded, 415, "unsupported_encoding", "payload", true),
        (&deduplicated, post("/shop/a", "{}"), 400, "missing_event_id", "dedup", true),
    ];
    for (webhook, request, status, kind, step, has_contents) in cases {
        let (answer, received) = recorded(webhook, request).await;
        assert_eq!(answer.status, status, "{kind}");
        assert_eq!((received.outcome, received.kind), (Outcome::Refused, Some(kind)));
        assert!(received.reason.is_some(), "{kind}");
        assert_eq!(steps(&received).last(), Some(&step));
        assert_eq!(matches!(received.body, Body::Whole(_)), has_contents, "{kind}");
        assert_eq!(received.headers.contains_key("authorization"), has_contents, "{kind}");
        assert!(!answer.headers.contains_key("x-event-id"), "{kind}");
    }
}

#[tokio::test]
async fn requests_for_no_webhook_are_not_reported() {
    let memory = InMemory::default();
    let receiver = receiver(&memory, r#"{"module": "capture"}"#).await;
    for (path, status) in [("/shop/unknown", 404), ("/", 404), ("/shop/a/b", 404)] {
        assert_eq!(ask(&receiver, post(path, "{}")).await.status, status);
    }
    assert_eq!(memory.count(), 0);
}

#[tokio::test]
async fn a_duplicate_is_skipped_and_names_the_first_event() {
    let memory = InMemory::default();
    let webhook = r#"{"module": "capture", "dedup": {"header": "x-id"}}"#;
    let receiver = receiver(&memory, webhook).await;
    let event = || {
        let mut request = post("/shop/a", "{}");
        request.headers_mut().insert("x-id", "1".parse().unwrap());
        request
    };
    let first = ask(&receiver, event()).await;
    ask(&receiver, event()).await.assert_accepted();
    let [one, other] = &memory.received()[..] else { panic!("{:?}", memory.received()) };
    assert_eq!((one.outcome, one.dedup), (Outcome::Delivered, Some(Dedup::First)));
    assert_eq!(one.id.to_string(), first.header("x-event-id"));
    assert_eq!(steps(one), ["guards", "body", "payload", "dedup", "module"]);
    assert_eq!((other.outcome, other.dedup, other.kind), (Outcome::Skipped, Some(Dedup::Duplicate), Some("duplicate")));
    assert_ne!(one.id, other.id);
    assert!(other.reason.as_ref().unwrap().contains(first.header("x-event-id")), "{other:?}");
}

#[tokio::test]
async fn a_repeated_event_in_progress_is_refused() {
    let (memory, gate) = (InMemory::default(), Gate::default());
    let webhook = r#"{"module": "gate", "dedup": {"digest": true}}"#;
    let receiver = receiver_of(gate.registry(), &[("shop", "a", webhook)], |builder| {
        builder.history(memory.history()).claims(Claims::in_memory())
    })
    .await;
    let first = tokio::spawn({
        let receiver = receiver.clone();
        async move { ask(&receiver, post("/shop/a", "{}")).await }
    });
    gate.was_called(1).await;
    assert_eq!(ask(&receiver, post("/shop/a", "{}")).await.status, 409);
    assert_eq!((memory.only().outcome, memory.only().kind), (Outcome::Refused, Some("in_progress")));
    gate.take_all();
    first.await.unwrap().assert_accepted();
    assert_eq!(memory.received()[1].outcome, Outcome::Delivered);
}

#[tokio::test]
async fn a_challenge_is_skipped_and_nothing_of_it_is_kept() {
    let webhook = r#"{"module": "capture", "handshake": "dropbox"}"#;
    let get = Request::get("/shop/a?challenge=s3cret").body(Full::default()).unwrap();
    let (answer, received) = recorded(webhook, get).await;
    assert_eq!(answer.text(), "s3cret");
    assert_eq!((received.outcome, received.kind), (Outcome::Skipped, Some("handshake")));
    assert_eq!((&*received.path, received.headers.len()), ("/shop/a", 0));
    assert_eq!(steps(&received), ["handshake"]);
}

#[tokio::test]
async fn the_key_history_says_how_much_is_kept() {
    for (kept, has_contents) in [("full", true), ("metadata", false)] {
        let webhook = format!(r#"{{"module": "capture", "history": "{kept}"}}"#);
        let (answer, received) = recorded(&webhook, post("/shop/a", "{}")).await;
        answer.assert_accepted();
        assert_eq!(received.outcome, Outcome::Delivered);
        assert_eq!(!received.headers.is_empty(), has_contents);
        assert_eq!(received.body, if has_contents { Body::Whole("{}".into()) } else { Body::Left(2) });
    }
    let memory = InMemory::default();
    let receiver = receiver(&memory, r#"{"module": "capture", "history": "none"}"#).await;
    ask(&receiver, post("/shop/a", "{}")).await.assert_accepted();
    assert_eq!(ask(&receiver, post("/shop/a", "{")).await.status, 400);
    assert_eq!(memory.count(), 0);
}
