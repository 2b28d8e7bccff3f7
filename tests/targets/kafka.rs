//! The module `kafka` against Tansu 0.6, which is not Apache Kafka: one broker without replicas that makes unknown topics
//! and has no limit for a message. The consumer is confluent-kafka. Errors that Tansu does not know are made by librdkafka's
//! mock of a cluster. Tansu has no users, so that a proxy before it asks for the password.

mod guarded;
mod mock;
mod server;
mod speed;

use serde_json::{Value, json};

pub(crate) use self::guarded::Guarded;
use self::server::Options;
pub(crate) use self::server::Tansu;
use crate::suite::{self, Access, Broker};
use crate::support::certificates::Certificates;
use crate::support::client::{self, Message};
use crate::support::proxy::Proxy;
use crate::support::rig::Rig;
use crate::support::seat;
use crate::support::server::{Server, free_port};

const TOPIC: &str = "shop.orders";

impl Broker for Tansu {
    // It cannot be filled.
    const FULL: &'static [&'static str] = &[];

    async fn start(certificates: Option<&Certificates>) -> Self {
        Tansu::start(Options { is_durable: true, certificates, ..Options::default() }).await
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        let mut connection = json!({"type": "kafka", "bootstrap_servers": format!("127.0.0.1:{}", access.port)});
        // After a kill Tansu takes some messages that are sent again for ones that it has, and has them not.
        connection["idempotent"] = json!(false);
        if let Some(tls) = &access.tls {
            connection["tls"] = json!({"ca": tls.ca});
            if let Some(client) = tls.client {
                connection["tls"]["client_cert"] = json!(client.certificate);
                connection["tls"]["client_key"] = json!(client.key);
            }
        }
        connection
    }

    fn webhook(&self) -> Value {
        json!({"module": "kafka", "connection": "c", "data_type": "blob", "module-config": {"topic": TOPIC}})
    }

    fn unroutable(&self) -> Option<Value> {
        None
    }

    async fn consume(&mut self) -> Vec<Message> {
        // In the tests of TLS the announced port is that of TLS, where the client does not go.
        client::messages("kafka.py", &[&self.port.to_string(), TOPIC]).await
    }

    fn too_large(&self) -> Option<usize> {
        None
    }

    async fn fill(&mut self) {
        unreachable!("it cannot be filled")
    }

    async fn empty(&mut self) {
        unreachable!("it cannot be filled")
    }

    async fn change_password(&mut self, _: &str) {
        unreachable!("it has no users")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_byte_for_byte() {
    suite::works::<Tansu>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_events_survive_a_kill() {
    suite::survives_a_kill::<Tansu>(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; `make test-targets` runs it"]
async fn five_thousand_events_survive_a_kill() {
    suite::survives_a_kill::<Tansu>(5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_frozen_server_is_a_timeout() {
    suite::frozen::<Tansu>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_server_that_is_down_fails_within_a_second() {
    suite::down::<Tansu>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_server_that_takes_nothing_costs_bounded_memory() {
    suite::bounded_memory::<Tansu>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_stop_flushes() {
    suite::stops_gracefully::<Tansu>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_is_unknown_is_refused() {
    let _seat = seat().await;
    let tansu = Tansu::start(Options { wants_users: true, ..Options::default() }).await;
    let rig = Rig::start().await;
    for (mechanism, kinds) in [("SCRAM-SHA-256", &["auth"][..]), ("SCRAM-SHA-512", &["auth"])] {
        let mut connection = tansu.connection(&Access::at(tansu.port));
        connection["sasl"] = json!({"mechanism": mechanism, "username": "stranger", "password": "s3cret"});
        rig.connection("c", &connection).await;
        let attempt = rig.answered(&tansu.webhook(), "{}").await;
        let reason = attempt.failed_as(kinds);
        assert!(reason.contains("unknown-user") && !reason.contains("s3cret"), "{reason}");
    }
    // Without a user.
    rig.connection("c", &tansu.connection(&Access::at(tansu.port))).await;
    rig.attempt(&tansu.webhook(), "{}").await.failed_as(&["connect", "timeout", "auth"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_and_the_headers_arrive() {
    let _seat = seat().await;
    let mut tansu = Tansu::start(Options::default()).await;
    let rig = Rig::start().await;
    let mut connection = tansu.connection(&Access::at(tansu.port));
    connection["idempotent"] = json!(true);
    rig.connection("c", &connection).await;
    let config = json!({"topic": TOPIC, "key": {"pointer": "/customer"}, "forward_headers": true});
    rig.webhook("a", &json!({"module": "kafka", "connection": "c", "module-config": config})).await;
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("x-shop-topic", "orders/paid".parse().unwrap());
    headers.insert("authorization", "Bearer s3cret".parse().unwrap());
    headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap());
    let mut ids = Vec::new();
    for customer in ["\"anna\"", "\"anna\"", "17", "null"] {
        let answer = rig.post_with("a", &headers, format!("{{\"customer\":{customer}}}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.push(answer.event_id);
    }
    let messages = tansu.consume().await;
    let of = |id: &String| &messages.iter().find(|message| &message.id == id).unwrap().headers;
    assert_eq!([of(&ids[0]).get("key"), of(&ids[2]).get("key")].map(Option::unwrap), ["anna", "17"]);
    assert!(!of(&ids[3]).contains_key("key"));
    assert_eq!(of(&ids[0])["partition"], of(&ids[1])["partition"], "one customer, one partition");
    let headers = of(&ids[0]);
    assert_eq!([&headers["X-Namespace"], &headers["X-Webhook"]], ["shop", "a"]);
    assert_eq!([&headers["Content-Type"], &headers["x-shop-topic"]], ["application/json", "orders/paid"]);
    assert!(headers.contains_key("traceparent") && headers.contains_key("X-Received-At"), "{headers:?}");
    assert!(!headers.contains_key("authorization"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_certificate_of_another_authority_is_refused() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let tansu = Tansu::start(Options { certificates: Some(&certificates), ..Options::default() }).await;
    let rig = Rig::start().await;
    let access =
        |ca| Access { port: tansu.tls_port, password: suite::PASSWORD, tls: Some(suite::Tls { ca, client: None }) };
    rig.connection("c", &tansu.connection(&access(&certificates.ca))).await;
    rig.attempt(&tansu.webhook(), vec![b'x'; 70_000]).await.was_delivered();
    rig.connection("c", &tansu.connection(&access(&certificates.foreign_ca))).await;
    let refused = rig.attempt(&tansu.webhook(), "{}").await;
    let reason = refused.failed_as(&["connect", "auth"]);
    assert!(reason.to_lowercase().contains("certificate"), "{reason}");
}

/// The server's clients are told to come through the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_connection_that_is_cut_in_the_middle_loses_nothing() {
    let _seat = seat().await;
    let announced = free_port();
    let mut tansu = Tansu::start(Options { announced: Some(announced), ..Options::default() }).await;
    let proxy = Proxy::at(announced, tansu.port).await;
    let rig = Rig::start().await;
    rig.connection("c", &tansu.connection(&Access::at(announced))).await;
    let mut webhook = tansu.webhook();
    webhook["ack"] = json!("accepted");
    webhook["retry"] = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.1, "max_delay": 5});
    rig.webhook("a", &webhook).await;
    let mut sent = Vec::new();
    for cut in [10, 1_000, 30_000, 60_000, 99_000] {
        sent.push(rig.post("a", "{}").await.event_id);
        rig.drained().await;
        proxy.cut_after(cut);
        sent.push(rig.post("a", format!("\"{}\"", "x".repeat(100_000))).await.event_id);
        rig.drained().await;
        assert!(proxy.has_cut(), "the connection was not cut after {cut} bytes");
    }
    assert_eq!(rig.dead_letters().await, Vec::<String>::new());
    let arrived: Vec<_> = tansu.consume().await.into_iter().map(|message| message.id).collect();
    let missing: Vec<_> = sent.iter().filter(|id| !arrived.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?} of {} are lost", sent.len());
    // The client sends a message again whose answer was cut off.
    assert!(arrived.len() <= sent.len() + 5, "{} of {} arrived", arrived.len(), sent.len());
}
