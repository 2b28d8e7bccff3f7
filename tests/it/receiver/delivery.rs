//! Deliveries to modules, and the answers to senders when a module fails.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tower_webhook::{Receiver, Registry, receiver};

use crate::support::modules::{Broken, Seen};
use crate::support::{CREDENTIAL, ask, post, store_of};

async fn broken(how: &str) -> Receiver {
    let json = format!(r#"{{"module": "broken", "module-config": {{"how": "{how}"}}}}"#);
    let webhooks = [("shop", "broken", json.as_str()), ("shop", "good", r#"{"module": "discard"}"#)];
    let store = store_of(Registry::builtin().module::<Broken>(), &webhooks).await;
    Receiver::of_store(store).delivery_deadline(Duration::from_secs(3)).build()
}

#[tokio::test]
async fn a_module_from_elsewhere_gets_the_bytes_and_headers_as_received() {
    let seen = Seen::default();
    let json = format!(r#"{{"module": "capture", "data_type": "blob", "authorization": "{CREDENTIAL}"}}"#);
    let receiver = receiver(store_of(seen.registry(), &[("shop", "a", &json)]).await);
    let body = b"\x00\xff{\r\n \xf0\x28";
    let mut request = Request::post("/shop/a?q=1").body(Full::<Bytes>::from(&body[..])).unwrap();
    let headers = request.headers_mut();
    headers.append("authorization", CREDENTIAL.parse().unwrap());
    headers.append("x-twice", "1".parse().unwrap());
    headers.append("x-twice", "2".parse().unwrap());
    headers.append("x-bytes", HeaderValue::from_bytes(b"\xe9\x80 x").unwrap());
    headers.append("content-encoding", "gzip".parse().unwrap());
    let sent = headers.clone();

    let answer = ask(&receiver, request).await;
    answer.assert_accepted();
    let [delivery] = &seen.take()[..] else { panic!("one event was sent") };
    assert_eq!(delivery.body(), &body[..]);
    assert_eq!(delivery.headers(), &sent);
    assert_eq!(delivery.id().to_string(), answer.header("x-event-id"));
    assert_eq!(delivery.webhook().key().to_string(), "shop/a");
    assert!(delivery.received_at().elapsed().unwrap() < crate::support::PATIENCE);
}

#[tokio::test]
async fn json_is_delivered_as_it_was_written() {
    let seen = Seen::default();
    let receiver = receiver(store_of(seen.registry(), &[("shop", "a", r#"{"module": "capture"}"#)]).await);
    let body = " {\"b\": 1.10, \"a\": \"\\u00e9\", \"a\": 1e2}\n";
    ask(&receiver, post("/shop/a", body)).await.assert_accepted();
    assert_eq!(seen.take()[0].body(), body);
}

#[tokio::test]
async fn a_refused_event_is_not_delivered() {
    let seen = Seen::default();
    let json = format!(r#"{{"module": "capture", "authorization": "{CREDENTIAL}"}}"#);
    let receiver = receiver(store_of(seen.registry(), &[("shop", "a", &json)]).await);
    let stranger = Request::post("/shop/a").body(Full::<Bytes>::from("{}")).unwrap();
    ask(&receiver, stranger).await.problem(401);
    ask(&receiver, post("/shop/a", "{")).await.problem(400);
    ask(&receiver, post("/shop/b", "{}")).await.problem(404);
    assert_eq!(seen.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_taken_is_never_200() {
    for (how, status, detail) in [
        ("fail", 502, "The event could not be delivered"),
        ("unavailable", 503, "The event cannot be taken now"),
        ("timeout", 504, "The event was not delivered in time"),
        ("hang", 504, "The event was not delivered in time"),
        ("panic", 502, "The event could not be delivered"),
    ] {
        let receiver = broken(how).await;
        let answer = ask(&receiver, post("/shop/broken", "{}")).await;
        assert_eq!(answer.problem(status), detail, "{how}");
        assert_eq!(answer.header("x-event-id").len(), 36);
        assert!(!answer.text().contains("internal"), "the reason is the operator's");
        if status == 503 {
            assert_eq!(answer.header("retry-after"), "1");
        }
        ask(&receiver, post("/shop/good", "{}")).await.assert_accepted();
    }
}

/// `deliver` returns a future, and may panic before it does.
#[tokio::test]
async fn a_module_that_panics_before_there_is_a_future_loses_only_its_own_event() {
    let receiver = broken("panic_at_once").await;
    let answer = ask(&receiver, post("/shop/broken", "{}")).await;
    assert_eq!(answer.problem(502), "The event could not be delivered");
    ask(&receiver, post("/shop/good", "{}")).await.assert_accepted();
}

#[tokio::test]
async fn a_module_that_panics_while_it_is_built_is_a_refused_configuration() {
    let receiver = broken("panic_when_built").await;
    ask(&receiver, post("/shop/broken", "{}")).await.problem(503);
    ask(&receiver, post("/shop/good", "{}")).await.assert_accepted();
}

#[tokio::test]
async fn a_connection_is_shared_by_all_that_name_it() {
    let seen = Seen::default();
    let source = tower_webhook::source::FixedSource::new()
        .connection("db", r#"{"type": "greeter", "greeting": "hello"}"#)
        .unwrap()
        .webhook("shop", "a", r#"{"module": "capture", "connection": "db"}"#)
        .unwrap();
    let store = crate::support::reflected(source, seen.registry()).await;
    assert_eq!(store.snapshot().counts().connections, 1);
    ask(&receiver(store), post("/shop/a", "{}")).await.assert_accepted();
}
