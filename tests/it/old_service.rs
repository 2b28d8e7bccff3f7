//! Values of the Python service for brokers: they work as they are, or the error says how to mend them.

use std::time::Duration;

use tower_webhook::module::Egress;
use tower_webhook::source::FixedSource;
use tower_webhook::{Registry, reflect};

/// Connections as that service had them.
const CONNECTIONS: [(&str, &str); 4] = [
    ("mq", r#"{"type": "activemq", "host": "10.0.0.1", "port": 61613, "user": "hooks", "password": "s3cret"}"#),
    ("rabbit", r#"{"type": "rabbitmq", "host": "10.0.0.1", "port": 5672, "user": "hooks", "pass": "s3cret"}"#),
    ("rq", r#"{"type": "redis-rq", "host": "10.0.0.1", "port": 6379, "db": 1}"#),
    ("kafka", r#"{"type": "kafka", "bootstrap_servers": "10.0.0.1:9092,10.0.0.2:9092"}"#),
];

/// Why a value of a webhook is refused, if it is.
async fn refusal(webhook: &str) -> Option<String> {
    let egress = Egress::new("10.0.0.0/8, 127.0.0.0/8".parse().unwrap());
    let mut source = FixedSource::new();
    for (name, value) in CONNECTIONS {
        source = source.connection(name, value).unwrap();
    }
    let source = source.webhook("shop", "a", webhook.to_owned()).unwrap();
    let (store, reflector) = reflect(source, Registry::builtin().egress(&egress));
    let task = tokio::spawn(reflector.run());
    store.wait_ready(Duration::from_secs(20)).await.unwrap();
    let snapshot = store.snapshot();
    task.abort();
    snapshot.refusals().next().map(|(_, refusal)| refusal.reason().to_string())
}

#[tokio::test]
async fn values_for_brokers_work_as_they_are() {
    for webhook in [
        r#"{"data_type": "json", "module": "rabbitmq", "connection": "rabbit", "module-config": {"queue_name": "q"}}"#,
        r#"{"data_type": "json", "module": "rabbitmq", "connection": "rabbit", "queue_name": "q"}"#,
        r#"{"module": "rabbitmq", "connection": "rabbit", "queue_name": "q", "module-config": {}}"#,
        r#"{"module": "redis_rq", "connection": "rq", "module-config": {"queue_name": "q", "function": "tasks.handle"}}"#,
        r#"{"module": "redis_rq", "connection": "rq", "module-config": {"function": "tasks.handle"}}"#,
        r#"{"module": "redis_publish", "redis": {"host": "10.0.0.1", "port": 6379, "channel": "c"}}"#,
        r#"{"module": "redis_publish", "redis": {}}"#,
        r#"{"module": "redis_publish", "redis": {"host": "redis.example", "allowed_hosts": ["redis.example"]}}"#,
        r#"{"module": "kafka", "connection": "kafka", "module-config": {"topic": "orders", "key": "k", "partition": 0, "forward_headers": true}}"#,
        r#"{"module": "kafka", "connection": "kafka", "topic": "shop.orders_1-a"}"#,
        r#"{"module": "activemq", "connection": "mq", "module-config": {"destination": "orders", "destination_type": "queue"}}"#,
        r#"{"module": "activemq", "connection": "mq", "module-config": {"destination": "orders", "destination_type": "topic"}}"#,
        r#"{"chain": [{"module": "kafka", "connection": "kafka", "module-config": {"topic": "orders"}},
                      {"module": "rabbitmq", "connection": "rabbit", "module-config": {"queue_name": "q"}}]}"#,
    ] {
        assert_eq!(refusal(webhook).await, None, "{webhook}");
    }
}

#[tokio::test]
async fn values_that_do_not_work_say_how_to_mend_them() {
    for (webhook, words) in [
        (
            r#"{"module": "rabbitmq", "connection": "rabbit", "queue_name": "q", "module-config": {"queue_name": "q"}}"#,
            "`queue_name` is in `module-config` too; expected it there only",
        ),
        (
            r#"{"module": "redis_rq", "connection": "rq", "queue_name": "q", "module-config": {"function": "tasks.handle"}}"#,
            "`queue_name` is an option of a module: it belongs into `module-config`",
        ),
        (
            r#"{"module": "kafka", "connection": "kafka", "topic": "orders", "queue_name": "q"}"#,
            "`queue_name` is an option of a module: it belongs into `module-config`",
        ),
        (
            r#"{"chain": [{"module": "kafka", "connection": "kafka", "topic": "orders"}]}"#,
            "chain.0: `topic` is an option of a module: it belongs into `module-config`",
        ),
        (
            r#"{"chain": ["redis_publish"], "redis": {}}"#,
            "`redis` is an option of a module: it belongs into `module-config`",
        ),
        (
            r#"{"module": "rabbitmq", "queue_name": "q"}"#,
            "connection: this module needs a connection of the type `rabbitmq`",
        ),
        (
            r#"{"module": "zeromq", "module-config": {"endpoint": "tcp://*:5555", "socket_type": "PUB"}}"#,
            "`endpoint` and `socket_type` belong to a connection of the type `zeromq`",
        ),
        (r#"{"module": "rabbitmq", "connection": "rabbit"}"#, "`queue_name` or `exchange` is required"),
        (r#"{"module": "rabbitmq", "connection": "kafka", "queue_name": "q"}"#, "needs the type `rabbitmq`"),
        (r#"{"module": "redis_rq", "connection": "rq"}"#, "`function`"),
        (r#"{"module": "kafka", "connection": "kafka"}"#, "`topic`"),
        (r#"{"module": "kafka", "connection": "kafka", "topic": "shop orders"}"#, "topic"),
        (
            r#"{"module": "redis_publish", "redis": {"host": "redis.example", "allowed_hosts": ["other.example"]}}"#,
            "`allowed_hosts`",
        ),
        (r#"{"module": "redis_publish", "redis": {"host": "192.168.0.1"}}"#, "private address"),
        (r#"{"module": "redis_publish"}"#, "name a `connection` of the type `redis`, or give `redis`"),
    ] {
        let reason = refusal(webhook).await.unwrap_or_default();
        assert!(reason.contains(words), "{webhook}: {reason}");
        println!("{reason}");
    }
}
