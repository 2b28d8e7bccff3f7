//! The description of a webhook: its guards, its targets, and a value that is refused.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_webhook::admin::Admin;
use tower_webhook::source::FixedSource;
use tower_webhook::{Capabilities, Registry, reflect};

use crate::support::{Answer, PATIENCE};

/// No answer may have it.
const SECRET: &str = "hunter2-hunter2-hunter2";

async fn webhook(admin: &Admin, id: &str) -> Value {
    let request = Request::get(format!("/webhooks/shop/{id}")).body(Full::<Bytes>::default()).unwrap();
    let answer = Answer::of(admin.clone().oneshot(request).await.unwrap()).await;
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    answer.json()
}

fn connections() -> [(&'static str, Value); 8] {
    [
        ("rabbit", json!({"type": "rabbitmq", "url": format!("amqp://ops:{SECRET}@8.8.8.8:5672/vhost")})),
        ("cache", json!({"type": "redis", "host": "8.8.8.8", "password": SECRET})),
        ("log", json!({"type": "kafka", "bootstrap_servers": "8.8.8.8:9092"})),
        ("bus", json!({"type": "nats", "url": "nats://8.8.8.8:4222", "token": SECRET})),
        ("things", json!({"type": "mqtt", "host": "8.8.8.8", "username": "ops", "password": SECRET})),
        ("mill", json!({"type": "activemq", "host": "8.8.8.8", "user": "ops", "password": SECRET})),
        ("worker", json!({"type": "zeromq", "endpoint": "tcp://8.8.8.8:5555", "socket_type": "REQ"})),
        ("live", json!({"type": "websocket", "url": format!("wss://Live.example.com/{SECRET}?key={SECRET}")})),
    ]
}

/// The module with its options, the connection, and the target that is shown.
fn targets() -> Vec<(Value, &'static str, Value)> {
    let url = format!("https://Hooks.example.com:8443/{SECRET}?key={SECRET}");
    vec![
        (
            json!({"module": "http_webhook", "module-config": {"url": url, "headers": {"X-Key": SECRET}}}),
            "",
            json!("hooks.example.com:8443"),
        ),
        (json!({"module": "save_to_disk", "module-config": {"path": "orders/new"}}), "", json!("./orders/new")),
        (json!({"module": "save_to_disk"}), "", json!("./")),
        (json!({"module": "discard"}), "", Value::Null),
        (json!({"module": "log"}), "", Value::Null),
        (json!({"module": "rabbitmq", "module-config": {"queue_name": "orders"}}), "rabbit", json!("orders")),
        (
            json!({"module": "rabbitmq", "module-config": {"exchange": "events", "routing_key": "{namespace}.{header:X-Region}"}}),
            "rabbit",
            json!("events/shop.{header:x-region}"),
        ),
        (json!({"module": "redis_publish", "module-config": {"channel": "news"}}), "cache", json!("news")),
        (json!({"module": "redis_stream", "module-config": {"stream": "s-{webhook}"}}), "cache", json!("s-a")),
        (json!({"module": "redis_rq", "module-config": {"function": "a.b"}}), "cache", json!("default")),
        (json!({"module": "kafka", "module-config": {"topic": "orders-events"}}), "log", json!("orders-events")),
        (json!({"module": "nats", "module-config": {"subject": "orders.new"}}), "bus", json!("orders.new")),
        (json!({"module": "mqtt", "module-config": {"topic": "shop/new"}}), "things", json!("shop/new")),
        (json!({"module": "activemq", "module-config": {"destination": "orders"}}), "mill", json!("/queue/orders")),
        (json!({"module": "zeromq"}), "worker", json!("8.8.8.8:5555")),
        (json!({"module": "websocket"}), "live", json!("live.example.com")),
        (
            json!({"module": "websocket", "module-config": {"url": format!("wss://live.example.com:8443/{SECRET}")}}),
            "",
            json!("live.example.com:8443"),
        ),
    ]
}

#[tokio::test]
async fn the_target_of_each_module_is_named_without_a_secret() {
    for (mut value, connection, target) in targets() {
        let (mut source, module) = (FixedSource::new(), value["module"].clone());
        if !connection.is_empty() {
            value["connection"] = json!(connection);
        }
        for (name, connection) in connections() {
            source = source.connection(name, connection.to_string()).unwrap();
        }
        let source = source.webhook("shop", "a", value.to_string()).unwrap();
        let (store, reflector) = reflect(source, Registry::builtin());
        tokio::spawn(reflector.run());
        store.wait_ready(PATIENCE).await.unwrap();
        let shown = webhook(&Admin::new(store).without_tokens(), "a").await;
        assert_eq!(shown["refused"], Value::Null, "{value}");
        assert_eq!(shown["targets"], json!([{"module": module, "target": target}]), "{value}");
    }
}

#[tokio::test]
async fn each_item_of_a_chain_has_its_target_and_each_guard_its_kind() {
    let value = json!({
        "chain": [
            {"module": "save_to_disk", "module-config": {"path": "orders"}},
            {"module": "http_webhook", "module-config": {"url": "https://example.com/x"}},
        ],
        "signature": {"preset": "github", "secrets": [SECRET]},
        "any_of": [
            {"authorization": format!("Bearer {SECRET}"), "ip_allow": ["10.0.0.0/8"]},
            {"signature": {"algorithm": "hmac-sha256", "encoding": "hex", "header": "X-Sum", "content": "{body}", "secrets": [SECRET]}},
        ],
    });
    let source = FixedSource::new().webhook("shop", "a", value.to_string()).unwrap();
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());
    store.wait_ready(PATIENCE).await.unwrap();
    let shown = webhook(&Admin::new(store).without_tokens(), "a").await;
    let targets =
        json!([{"module": "save_to_disk", "target": "./orders"}, {"module": "http_webhook", "target": "example.com"}]);
    assert_eq!((&shown["module"], &shown["targets"]), (&json!("save_to_disk"), &targets));
    let mut guards: Vec<_> = shown["guards"].as_array().unwrap().iter().map(|guard| guard.as_str().unwrap()).collect();
    guards.sort_unstable();
    assert_eq!(guards, ["any_of: authorization and ip_allow, or signature", "signature: github"]);
}

#[tokio::test]
async fn beside_a_refused_value_stands_the_revision_that_is_served_in_its_place() {
    let (source, handle) = FixedSource::new().live();
    let registry = Registry::builtin().capable_of(Capabilities::none());
    let (store, reflector) = reflect(source, registry);
    tokio::spawn(reflector.run());
    store.wait_ready(PATIENCE).await.unwrap();
    let admin = Admin::new(store.clone()).without_tokens();
    let put = async |id: &str, value: &str| {
        let revision = handle.put_webhook("shop", id, value.to_owned()).await.unwrap();
        assert!(store.wait_for_revision(revision).await);
        revision
    };
    let good = put("a", r#"{"module": "discard"}"#).await;
    let fenced = put("b", r#"{"module": "discards"}"#).await;
    let shown = webhook(&admin, "a").await;
    assert_eq!((&shown["revision"], &shown["refused"]), (&json!(good), &Value::Null), "its own, not the newest");

    let bad = put("a", r#"{"module": "discard", "authorisation": "Bearer x"}"#).await;
    let shown = webhook(&admin, "a").await;
    assert_eq!((&shown["state"], &shown["revision"]), (&json!("stale"), &json!(good)));
    let refused = &shown["refused"];
    assert_eq!(
        (&refused["revision"], &refused["serving_last_good"], &refused["last_good_revision"]),
        (&json!(bad), &json!(true), &json!(good))
    );
    assert!(refused["reason"].as_str().unwrap().contains("authorization") && refused["at"].is_string(), "{refused}");

    let shown = webhook(&admin, "b").await;
    assert_eq!((&shown["state"], &shown["revision"], &shown["targets"]), (&json!("fenced"), &Value::Null, &json!([])));
    let refused = &shown["refused"];
    assert_eq!((&refused["revision"], &refused["last_good_revision"]), (&json!(fenced), &Value::Null));

    let mended = put("a", r#"{"module": "log"}"#).await;
    let shown = webhook(&admin, "a").await;
    assert_eq!((&shown["revision"], &shown["refused"]), (&json!(mended), &Value::Null));
}
