//! What real servers answer, and what the module makes of it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::json;

use super::{QUEUE, RABBITMQ_USER, Stomp, to};
use crate::suite::{Access, Broker, PASSWORD, Tls};
use crate::support::certificates::Certificates;
use crate::support::client::python;
use crate::support::rig::Rig;
use crate::support::{eventually, seat};

async fn begin() -> (Stomp, Rig) {
    let broker = Stomp::start(None).await;
    let rig = Rig::start().await;
    rig.connection("c", &broker.connection(&Access::at(broker.port))).await;
    (broker, rig)
}

impl Stomp {
    /// Calls methods of pika's channel.
    async fn call(&self, calls: serde_json::Value) {
        let port = self.rabbitmq.port.to_string();
        python("rabbitmq_do.py", &[&port, RABBITMQ_USER, PASSWORD, &calls.to_string()]).await;
    }
}

/// The server ends the whole connection for each of these messages, and the deliveries of another webhook do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn each_refusal_has_its_kind_and_disturbs_no_other_webhook() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    broker
        .call(json!([
            ["queue_declare", {"queue": "transient", "durable": false}],
            ["queue_declare", {"queue": "quorum", "durable": true, "arguments": {"x-queue-type": "quorum"}}],
            ["exchange_declare", {"exchange": "topics", "exchange_type": "topic", "durable": true}],
        ]))
        .await;
    rig.webhook("other", &broker.webhook()).await;
    assert_eq!(rig.post("other", "{}").await.status, 200);
    let mut expected = 1;
    for (config, kind) in [
        (json!({"destination": "/amq/queue/quorum"}), ""),
        (json!({"destination": "/exchange/topics/a.b"}), ""),
        (json!({"destination": "a", "destination_type": "topic"}), ""),
        (json!({"destination": "/exchange/missing/x"}), "config"),
        (json!({"destination": "/queue/a/b"}), "config"),
        (json!({"destination": "transient"}), "config"),
        (json!({"destination": "a.{header:X-Missing}"}), "permanent"),
    ] {
        for _ in 0..3 {
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
    }
    assert_eq!(broker.take(&format!("/queue/{QUEUE}")).await.len(), expected);
    assert!(rig.warnings().contains("confirms an event that nobody gets"), "{}", rig.warnings());
}

/// A destination that worked is deleted: messages to others that are under way at that moment fail, and work again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn an_exchange_that_is_deleted_costs_one_connection() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    let topics = json!({"exchange": "topics", "exchange_type": "topic", "durable": true});
    broker.call(json!([["exchange_declare", topics]])).await;
    rig.webhook("other", &broker.webhook()).await;
    rig.webhook("a", &to(json!({"destination": "/exchange/topics/x"}))).await;
    for id in ["other", "a", "a"] {
        assert_eq!(rig.post(id, "{}").await.status, 200);
    }
    broker.call(json!([["exchange_delete", {"exchange": "topics"}]])).await;
    for _ in 0..3 {
        assert_eq!(rig.post("a", "{}").await.status, 502);
        eventually("the other webhook to work", async || rig.post("other", "{}").await.status == 200).await;
    }
    // From now on it is tried alone.
    for _ in 0..10 {
        let (bad, others) = tokio::join!(rig.post("a", "{}"), join_all((0..20).map(|_| rig.post("other", "{}"))));
        assert_eq!(bad.status, 502);
        assert!(others.iter().all(|answer| answer.status == 200), "{others:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_user_without_the_permission_and_a_missing_virtual_host_are_told_apart() {
    let _seat = seat().await;
    let (broker, rig) = begin().await;
    let rabbitmq = &broker.rabbitmq;
    // A password with every sign that the protocol escapes.
    let password = "a:b\\c\\n";
    rabbitmq.control(&["add_user", "limited", password]).await;
    rabbitmq.control(&["set_permissions", "-p", "/", "limited", "^mine$", "^(mine|amq\\.default)$", "^mine$"]).await;
    let connection = |vhost: &str| {
        json!({"type": "activemq", "host": "127.0.0.1", "port": broker.port, "user": "limited", "password": password,
            "vhost": vhost})
    };
    rig.connection("c", &connection("/")).await;
    rig.attempt(&to(json!({"destination": "mine"})), "{}").await.was_delivered();
    for destination in ["theirs", "/exchange/amq.topic/x"] {
        let attempt = rig.attempt(&to(json!({"destination": destination})), "{}").await;
        println!("{destination}: {}", attempt.failed_as(&["config"]));
    }
    rig.connection("c", &connection("missing")).await;
    let attempt = rig.attempt(&broker.webhook(), "{}").await;
    let reason = attempt.failed_as(&["config"]);
    assert!(reason.contains("Virtual host"), "{reason}");
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
        ("x-tag", "a:b\\c"),
        ("x-name", "caf\u{e9}"),
        ("authorization", "Bearer hunter2"),
        ("persistent", "false"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    let config = json!({"destination": "{namespace}.{header:X-GitHub-Event}", "forward_headers": true});
    rig.webhook("a", &to(config)).await;
    let answer = rig.post_with("a", &headers, "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let messages = broker.take("/queue/shop.push").await;
    let [message] = &messages[..] else { panic!("{messages:?}") };
    for (name, value) in [
        ("persistent", "true"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "2"),
        ("X-Event-Id", &*answer.event_id),
        ("X-Namespace", "shop"),
        ("X-Webhook", "a"),
        ("traceparent", parent),
        ("http-x-github-event", "push"),
        ("http-x-tag", "1, a:b\\c"),
        ("http-x-name", "caf\u{e9}"),
        ("http-persistent", "false"),
    ] {
        assert_eq!(message.headers.get(name).map(String::as_str), Some(value), "{name}: {message:?}");
    }
    assert!(
        message.headers.contains_key("X-Received-At") && !format!("{message:?}").contains("hunter2"),
        "{message:?}"
    );
}

/// A server that asks for a client's certificate takes that of its own authority only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_client_needs_its_certificate() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let broker = Stomp::start_as(Some(&certificates), true).await;
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
        // A server that has read nothing of the login may reset the connection, and the alert is lost with that.
        println!("certificate: {}", attempt.failed_as(&["auth", "connect"]));
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

/// The memory of this process while a server is frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_frozen_server_costs_bounded_memory() {
    let _seat = seat().await;
    let broker = Stomp::start(None).await;
    let rig = Rig::patient(std::time::Duration::from_millis(500)).await;
    rig.connection("c", &broker.connection(&Access::at(broker.port))).await;
    let mut webhook = broker.webhook();
    webhook["data_type"] = json!("blob");
    rig.webhook("a", &webhook).await;
    eventually("a delivery", async || rig.post("a", vec![b'x'; 500_000]).await.status == 200).await;
    let memory = resident_mb();
    broker.rabbitmq.server.freeze();
    let mut most = memory;
    for _ in 0..40 {
        join_all((0..40).map(|_| rig.post("a", vec![b'x'; 500_000]))).await;
        most = most.max(resident_mb());
    }
    println!("800 MB sent to a frozen server: {memory} MB before, {most} MB at most");
    assert!(most < memory + 150, "{memory} MB before, {most} MB while it was frozen");
    broker.rabbitmq.server.thaw();
    eventually("it works again", async || rig.post("a", "x").await.status == 200).await;
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
