//! `data_type: "form"`: the accepted forms, which arrive byte for byte.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_webhook::dedup::Claims;
use tower_webhook::receiver;

use crate::support::scripted::Journal;
use crate::support::{ask, post, receiver_of, store_of};

fn form(body: &str) -> Request<Full<Bytes>> {
    let mut request = post("/shop/a", body.to_owned());
    let content_type = "Application/x-www-form-urlencoded; charset=utf-8";
    request.headers_mut().insert("content-type", content_type.parse().unwrap());
    request.headers_mut().insert("content-length", body.len().into());
    request
}

#[tokio::test]
async fn a_form_arrives_byte_for_byte() {
    let journal = Journal::default();
    let webhook = r#"{"module": "scripted", "data_type": "form"}"#;
    let receiver = receiver(store_of(journal.registry(), &[("shop", "a", webhook)]).await);
    for body in ["", "a=1&&a=%c3%A9+%2B&", "payload=%7B%22zen%22%3A%22x%22%7D\r\n"] {
        ask(&receiver, form(body)).await.assert_accepted();
        assert_eq!(journal.deliveries().last().unwrap().body(), body);
    }
    let mut json = form("a=1");
    json.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let detail = ask(&receiver, json).await.problem(415);
    assert_eq!(detail, "Expected the Content-Type application/x-www-form-urlencoded, found another one");
    let detail = ask(&receiver, form("a=1&b=5%")).await.problem(400);
    assert!(detail.starts_with("Malformed form: expected two hexadecimal digits after each `%`"), "{detail}");
    assert_eq!(journal.deliveries().len(), 3);
}

#[tokio::test]
async fn a_field_of_a_form_tells_an_event_that_comes_twice() {
    let journal = Journal::default();
    let webhook = r#"{"module": "scripted", "data_type": "form", "dedup": {"form": "MessageSid"}}"#;
    let webhooks = [("shop", "a", webhook)];
    let receiver = receiver_of(journal.registry(), &webhooks, |builder| builder.claims(Claims::in_memory())).await;
    for (body, is_new) in [
        ("MessageSid=SM1&Body=a", true),
        ("Body=b&MessageSid=SM1", false),
        ("MessageSid=SM2", true),
        ("%4dessageSid=%53M1", false),
    ] {
        let answer = ask(&receiver, form(body)).await;
        answer.assert_accepted();
        assert_eq!(!answer.headers.contains_key("x-duplicate"), is_new, "{body}");
    }
    let detail = ask(&receiver, form("Body=a")).await.problem(400);
    assert_eq!(detail, "The event has no id: the field `MessageSid` of the form is missing");
    assert_eq!(journal.deliveries().len(), 2);
}

#[tokio::test]
async fn credentials_of_a_form_are_masked_and_all_else_is_as_it_was() {
    let body = "a=%61+b&token=hunter2&payload=%7B%22token%22%3A%22hunter2%22%2C%22n%22%3A1%7D&Mine=hunter2";
    let masked = "a=%61+b&token=***REDACTED***&payload=%7B%22token%22%3A%22***REDACTED***%22%2C%22n%22%3A1%7D\
                  &Mine=***REDACTED***";
    let removed = "a=%61+b&payload=%7B%22n%22%3A1%7D";
    for (mode, expected) in [("mask", masked), ("remove", removed)] {
        let journal = Journal::default();
        let webhook = format!(
            r#"{{"module": "scripted", "data_type": "form",
                "credential_cleanup": {{"mode": "{mode}", "fields": ["mine"]}}}}"#
        );
        let receiver = receiver(store_of(journal.registry(), &[("shop", "a", &webhook)]).await);
        ask(&receiver, form(body)).await.assert_accepted();
        let deliveries = journal.deliveries();
        assert_eq!(deliveries[0].body(), expected);
        assert_eq!(deliveries[0].headers()["content-length"], expected.len().to_string());
    }
}
