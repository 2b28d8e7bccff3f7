//! The key `credential_cleanup`: modules do not get credentials, and guards see them.

use http::Request;
use http_body_util::Full;
use tower_webhook::receiver;

use crate::support::scripted::Journal;
use crate::support::{Answer, CREDENTIAL, ask, post, store_of};

async fn send(journal: &Journal, rest: &str, request: Request<Full<bytes::Bytes>>) -> Answer {
    let json = format!(r#"{{"module": "scripted", "authorization": "{CREDENTIAL}" {rest}}}"#);
    ask(&receiver(store_of(journal.registry(), &[("shop", "a", &json)]).await), request).await
}

fn request(body: &'static str) -> Request<Full<bytes::Bytes>> {
    let mut request = post("/shop/a", body);
    request.headers_mut().insert("x-api-key", "hunter2".parse().unwrap());
    request.headers_mut().insert("x-kind", "order".parse().unwrap());
    request.headers_mut().insert("content-length", body.len().into());
    request
}

const BODY: &str =
    r#"{"n": 1.10, "Password": "hunter2", "list": [{"token": {"value": "hunter2"}}], "mine": 1, "z": 1}"#;

#[tokio::test]
async fn credentials_are_masked_and_all_else_is_as_it_was() {
    let journal = Journal::default();
    send(&journal, r#", "credential_cleanup": {"fields": ["Mine"]}"#, request(BODY)).await.assert_accepted();
    let [delivery] = &journal.deliveries()[..] else { panic!("one event was sent") };
    let masked = r#"{"n": 1.10, "Password": "***REDACTED***", "list": [{"token": "***REDACTED***"}], "mine": "***REDACTED***", "z": 1}"#;
    assert_eq!(delivery.body(), masked);
    for (name, value) in [
        ("authorization", "***REDACTED***"),
        ("x-api-key", "***REDACTED***"),
        ("x-kind", "order"),
        ("content-length", &masked.len().to_string()),
    ] {
        assert_eq!(delivery.headers()[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_long_body_too() {
    let journal = Journal::default();
    let items = r#"{"token": 1},"#.repeat(20_000);
    let body: &'static str = format!("[{items}1]").leak();
    send(&journal, r#", "credential_cleanup": {"mode": "remove"}"#, request(body)).await.assert_accepted();
    assert_eq!(journal.deliveries()[0].body(), &format!("[{}1]", "{},".repeat(20_000)));
}

#[tokio::test]
async fn or_removed() {
    let journal = Journal::default();
    send(&journal, r#", "credential_cleanup": {"mode": "remove"}"#, request(BODY)).await.assert_accepted();
    let [delivery] = &journal.deliveries()[..] else { panic!("one event was sent") };
    assert_eq!(delivery.body(), r#"{"n": 1.10, "list": [{}], "mine": 1, "z": 1}"#);
    let mut names: Vec<_> = delivery.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-kind"]);
}

#[tokio::test]
async fn without_the_key_or_switched_off_nothing_is_changed() {
    for rest in ["", r#", "credential_cleanup": {"enabled": false, "fields": ["n"]}"#] {
        let journal = Journal::default();
        send(&journal, rest, request(BODY)).await.assert_accepted();
        let delivery = &journal.deliveries()[0];
        assert_eq!(delivery.body(), BODY);
        assert_eq!(delivery.headers()["authorization"], CREDENTIAL);
    }
}

#[tokio::test]
async fn only_the_header_fields_of_a_blob_are_cleaned() {
    let journal = Journal::default();
    let rest = r#", "data_type": "blob", "credential_cleanup": {}"#;
    send(&journal, rest, request(r#"{"token": 1}"#)).await.assert_accepted();
    let delivery = &journal.deliveries()[0];
    assert_eq!(delivery.body(), r#"{"token": 1}"#);
    assert_eq!(delivery.headers()["x-api-key"], "***REDACTED***");
}

#[tokio::test]
async fn names_with_half_a_surrogate_pair_are_read_too() {
    let journal = Journal::default();
    let body = r#"{"\ud83d": 1, "tok\ud83den": "hunter2", "\udc00mine": "hunter2", "token": "hunter2"}"#;
    send(&journal, r#", "credential_cleanup": {"fields": ["mine"]}"#, request(body)).await.assert_accepted();
    let masked = r#"{"\ud83d": 1, "tok\ud83den": "*", "\udc00mine": "*", "token": "*"}"#;
    assert_eq!(journal.deliveries()[0].body(), &masked.replace('*', "***REDACTED***"));
}

#[tokio::test]
async fn guards_and_checks_see_what_was_sent() {
    let journal = Journal::default();
    let rest = r#", "credential_cleanup": {}"#;
    send(&journal, rest, request(r#"{"token": }"#)).await.problem(400);
    let mut stranger = request(BODY);
    stranger.headers_mut().insert("authorization", "***REDACTED***".parse().unwrap());
    send(&journal, rest, stranger).await.problem(401);
    assert!(journal.deliveries().is_empty());
}

#[tokio::test]
async fn every_item_of_a_chain_gets_the_cleaned_event_in_every_attempt() {
    let journal = Journal::default();
    let item = r#"{"module": "scripted", "module-config": {"fails": 1}}"#;
    let retry = r#""retry": {"enabled": true, "initial_delay": 0}"#;
    let rest = format!(r#", "credential_cleanup": {{}}, {retry}, "chain": [{item}, {item}]"#);
    send(&journal, &rest, request(r#"{"token": 1}"#)).await.assert_accepted();
    let deliveries = journal.deliveries();
    assert_eq!(deliveries.len(), 4);
    assert!(deliveries.iter().all(|delivery| delivery.body() == r#"{"token": "***REDACTED***"}"#));
}
