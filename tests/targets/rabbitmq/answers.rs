//! What a real server answers, and what the module makes of it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};

use super::QUEUE;
use super::server::{RabbitMq, USER};
use crate::suite::{Access, Broker, PASSWORD, Tls};
use crate::support::certificates::Certificates;
use crate::support::client::python;
use crate::support::rig::Rig;
use crate::support::{alone, eventually, seat};

impl RabbitMq {
    /// Calls methods of pika's channel.
    async fn call(&self, calls: Value) {
        python("rabbitmq_do.py", &[&self.port.to_string(), USER, &self.password, &calls.to_string()]).await;
    }
}

fn to(config: Value) -> Value {
    json!({"module": "rabbitmq", "connection": "c", "module-config": config})
}

async fn begin() -> (RabbitMq, Rig) {
    let broker = RabbitMq::start(None).await;
    let rig = Rig::start().await;
    rig.connection("c", &broker.connection(&Access::at(broker.port))).await;
    (broker, rig)
}

/// Each cause has its kind, and none of them disturbs the deliveries of another webhook over the same connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn each_refusal_has_its_kind_and_disturbs_no_other_webhook() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    broker
        .call(json!([
            ["exchange_declare", {"exchange": "topics", "exchange_type": "topic", "durable": true}],
            ["exchange_declare", {"exchange": "nowhere", "exchange_type": "fanout"}],
            ["queue_declare", {"queue": "orders", "durable": true}],
            ["queue_bind", {"queue": "orders", "exchange": "topics", "routing_key": "orders.*"}],
            ["queue_declare", {"queue": "quorum", "durable": true, "arguments": {"x-queue-type": "quorum"}}],
            ["queue_declare", {"queue": "transient", "durable": false}],
            ["queue_declare", {"queue": "full", "durable": true, "arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}}],
        ]))
        .await;
    rig.webhook("other", &broker.webhook()).await;
    assert_eq!(rig.post("other", "{}").await.status, 200);
    let mut expected = 1;
    for (config, kind) in [
        (json!({"exchange": "topics", "routing_key": "orders.new"}), ""),
        (json!({"queue_name": "quorum", "declare": false}), ""),
        (json!({"queue_name": "full", "declare": false}), ""),
        (json!({"queue_name": "full", "declare": false}), "unavailable"),
        (json!({"exchange": "topics", "routing_key": "refunds.new"}), "config"),
        (json!({"exchange": "nowhere"}), "config"),
        (json!({"exchange": "missing"}), "config"),
        (json!({"queue_name": "quorum"}), "config"),
        (json!({"queue_name": "transient"}), "config"),
        (json!({"queue_name": "a.{header:X-Missing}"}), "permanent"),
    ] {
        let webhook = to(config.clone());
        let (attempt, others) =
            tokio::join!(rig.attempt(&webhook, "{}"), join_all((0..20).map(|_| rig.post("other", "{}"))));
        match kind {
            "" => attempt.was_delivered(),
            kind => println!("{config}: {kind}: {}", attempt.failed_as(&[kind])),
        }
        let statuses: BTreeSet<_> = others.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, BTreeSet::from([200]), "{config}");
        expected += 20;
    }
    assert_eq!(broker.take(QUEUE).await.len(), expected);
    assert_eq!(broker.take("orders").await[0].headers["routing_key"], "orders.new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_user_without_the_permission_and_a_missing_virtual_host_are_told_apart() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    broker.control(&["add_user", "limited", PASSWORD]).await;
    broker.control(&["add_vhost", "closed"]).await;
    broker.control(&["set_permissions", "-p", "/", "limited", "^mine$", "^mine$", "^mine$"]).await;
    broker.call(json!([["exchange_declare", {"exchange": "theirs", "exchange_type": "fanout"}]])).await;
    let connection = |vhost: &str| json!({"type": "rabbitmq", "url": format!("amqp://limited:{PASSWORD}@127.0.0.1:{}/{vhost}", broker.port)});
    rig.connection("c", &connection("%2F")).await;
    for (config, words) in [
        (json!({"queue_name": "theirs"}), "may not make the queue"),
        (json!({"exchange": "theirs"}), "may not publish there"),
    ] {
        let attempt = rig.attempt(&to(config), "{}").await;
        let reason = attempt.failed_as(&["config"]);
        assert!(reason.contains(words), "{reason}");
    }
    for vhost in ["closed", "missing"] {
        rig.connection("c", &connection(vhost)).await;
        let attempt = rig.attempt(&broker.webhook(), "{}").await;
        let reason = attempt.failed_as(&["config"]);
        println!("{vhost}: {reason}");
        assert!(reason.contains("virtual host"), "{reason}");
    }
}

/// Unroutable and routable messages at the same time over one connection: each event has its own outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_returned_message_is_never_taken_for_another_one() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    rig.webhook("good", &broker.webhook()).await;
    rig.webhook("bad", &to(json!({"queue_name": "missing", "declare": false}))).await;
    let mut sent = BTreeSet::new();
    for _ in 0..20 {
        let good = join_all((0..30).map(|_| rig.post("good", "{}")));
        let bad = join_all((0..30).map(|_| rig.post("bad", "{}")));
        let (good, bad) = tokio::join!(good, bad);
        for answer in bad {
            assert_eq!(answer.status, 502, "{answer:?}");
        }
        for answer in good {
            assert_eq!(answer.status, 200, "{answer:?}");
            sent.insert(answer.event_id);
        }
    }
    let arrived: BTreeSet<_> = broker.take(QUEUE).await.into_iter().map(|message| message.id).collect();
    assert_eq!(arrived.len(), 600);
    assert!(arrived == sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_queue_that_is_deleted_is_made_again() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    rig.webhook("a", &broker.webhook()).await;
    assert_eq!(rig.post("a", "{}").await.status, 200);
    broker.call(json!([["queue_delete", {"queue": QUEUE}]])).await;
    let answer = rig.post("a", "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let arrived = broker.take(QUEUE).await;
    assert_eq!(arrived.iter().map(|message| &message.id).collect::<Vec<_>>(), [&answer.event_id]);
}

/// What a consumer sees beside the body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_consumer_sees_the_event_its_webhook_and_the_received_headers() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("traceparent", parent),
        ("x-github-event", "push"),
        ("x-tag", "1"),
        ("x-tag", "2"),
        ("x-name", "caf\u{e9}"),
        ("authorization", "Bearer hunter2"),
        ("cookie", "hunter2"),
        ("bcc", "other"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    rig.webhook("a", &to(json!({"queue_name": "{namespace}.{header:X-GitHub-Event}", "declare": false}))).await;
    broker.call(json!([["queue_declare", {"queue": "shop.push", "durable": true}]])).await;
    let answer = rig.post_with("a", &headers, "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let messages = broker.take("shop.push").await;
    let [message] = &messages[..] else { panic!("{messages:?}") };
    for (name, value) in [
        ("property:delivery_mode", "2"),
        ("property:type", "shop/a"),
        ("property:content_type", "application/json; charset=utf-8"),
        ("X-Event-Id", &answer.event_id),
        ("X-Namespace", "shop"),
        ("X-Webhook", "a"),
        ("traceparent", parent),
        ("x-github-event", "push"),
        ("x-tag", "1, 2"),
        ("x-name", "caf\u{e9}"),
    ] {
        assert_eq!(message.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(message.headers.contains_key("property:timestamp") && message.headers.contains_key("X-Received-At"));
    assert_eq!(message.id, answer.event_id);
    assert!(!format!("{message:?}").contains("hunter2") && !message.headers.contains_key("bcc"), "{message:?}");
}

/// A server that asks for a client's certificate takes that of its own authority only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_client_needs_its_certificate() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let broker = RabbitMq::start_strict(PASSWORD, &certificates).await;
    let rig = Rig::start().await;
    let access = |client| {
        let tls = Tls { ca: &certificates.ca, client };
        Access { port: broker.tls_port, password: PASSWORD, tls: Some(tls) }
    };
    rig.connection("c", &broker.connection(&access(Some(&certificates.client)))).await;
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    for client in [None, Some(&certificates.foreign_client)] {
        rig.connection("c", &broker.connection(&access(client))).await;
        let attempt = rig.attempt(&broker.webhook(), "{}").await;
        // A server that has read nothing of the login resets the connection, and the alert may be lost with that.
        let reason = attempt.failed_as(&["auth", "connect"]);
        println!("certificate: {reason}");
        assert!(reason.contains("the client's certificate"), "{reason}");
    }
    // By the name in place of the address, which goes along as SNI.
    let mut named = broker.connection(&access(Some(&certificates.client)));
    named["host"] = json!("localhost");
    rig.connection("c", &named).await;
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    named["tls"]["server_name"] = json!("another.example");
    rig.connection("c", &named).await;
    let attempt = rig.attempt(&broker.webhook(), "{}").await;
    assert!(attempt.failed_as(&["connect"]).contains("another.example"), "{attempt:?}");
}

/// The threads of connections while a server is frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_frozen_server_leaves_no_thread() {
    let _alone = alone().await;
    let broker = RabbitMq::start(None).await;
    let rig = Rig::patient(std::time::Duration::from_millis(500)).await;
    rig.connection("c", &broker.connection(&Access::at(broker.port))).await;
    rig.webhook("a", &broker.webhook()).await;
    eventually("a delivery", async || rig.post("a", "{}").await.status == 200).await;
    let threads = io_threads();
    broker.server.freeze();
    for _ in 0..10 {
        join_all((0..40).map(|_| rig.post("a", "{}"))).await;
    }
    assert!(io_threads() <= threads + 2, "{} threads of connections", io_threads());
    broker.server.thaw();
    eventually("it works again", async || rig.post("a", "{}").await.status == 200).await;
}

/// The threads of this process that serve connections.
fn io_threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}
