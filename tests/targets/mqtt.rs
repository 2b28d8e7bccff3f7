//! The module `mqtt` against Mosquitto 2.0 (MQTT 5 and 3.1.1) and RabbitMQ 3.10 (3.1.1). The consumer is paho-mqtt.

mod server;
mod speed;

use http::HeaderMap;
use serde_json::{Value, json};

use self::server::{Mosquitto, RabbitMqtt, TOPIC, USER};
use crate::suite::{self, Access, Broker, PASSWORD, long, short};
use crate::support::certificates::Certificates;
use crate::support::rig::Rig;
use crate::support::{eventually, seat};

short! {
    events_arrive_byte_for_byte => suite::works::<Mosquitto>(),
    a_wrong_password_is_told_apart => suite::wrong_password::<Mosquitto>(),
    a_forbidden_topic_is_told_apart => suite::unroutable::<Mosquitto>(),
    five_hundred_events_survive_a_kill_of_rabbitmq => suite::survives_a_kill::<RabbitMqtt>(500),
}

long! {
    envelopes_arrive_byte_for_byte_through_rabbitmq => suite::works::<RabbitMqtt>(),
    rabbitmq_refuses_a_wrong_password => suite::wrong_password::<RabbitMqtt>(),
    five_thousand_events_survive_a_kill_of_rabbitmq => suite::survives_a_kill::<RabbitMqtt>(5_000),
    rabbitmq_without_memory_is_a_timeout => suite::full::<RabbitMqtt>(),
    a_frozen_server_is_a_timeout => suite::frozen::<Mosquitto>(),
    a_silent_connection_is_a_timeout => suite::silent::<Mosquitto>(),
    a_connection_is_cut_in_the_middle_of_a_message => suite::cut_in_the_middle::<Mosquitto>(),
    a_foreign_authority_is_refused => suite::foreign_authority::<Mosquitto>(),
    a_message_that_is_too_large_is_permanent => suite::too_large::<Mosquitto>(),
    a_password_is_changed_while_it_runs => suite::credentials_change::<Mosquitto>(),
    a_server_that_is_down_fails_at_once => suite::down::<Mosquitto>(),
    a_server_that_takes_nothing_costs_bounded_memory => suite::bounded_memory::<Mosquitto>(),
    a_stop_loses_nothing => suite::stops_gracefully::<Mosquitto>(),
}

fn webhook(config: &Value) -> Value {
    json!({"module": "mqtt", "connection": "c", "data_type": "blob", "module-config": config})
}

/// A server that runs, a receiver, and a connection to it in this version.
async fn begin(version: &str) -> (Mosquitto, Rig) {
    let broker = Mosquitto::start(None).await;
    let rig = Rig::start().await;
    rig.connection("c", &connection(&broker, version)).await;
    (broker, rig)
}

fn connection(broker: &Mosquitto, version: &str) -> Value {
    let mut connection = broker.connection(&Access::at(broker.port));
    connection["mqtt_version"] = json!(version);
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_its_properties() {
    let _seat = seat().await;
    let (broker, rig) = begin("5").await;
    let config =
        json!({"topic": "events/{namespace}/{header:X-Kind}", "forward_headers": true, "qos": 2, "retained": true});
    rig.webhook("a", &webhook(&config)).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-kind", "new"),
        ("x-tag", "1"),
        ("x-tag", "2"),
        ("x-tab", "a\tb"),
        ("content-type", "application/json"),
        ("traceparent", trace),
        ("authorization", "s3cret"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    // Mosquitto would end the session for a text with a control character of ISO 8859-1.
    headers.append("x-latin", http::HeaderValue::from_bytes(b"caf\xe9 \x85").unwrap());
    let answer = rig.post_with("a", &headers, "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let read = broker.read().await;
    let [message] = &read[..] else { panic!("{read:?}") };
    let header = |name: &str| message.headers.get(name).map(String::as_str);
    assert_eq!((&*message.id, &message.body[..]), (&*answer.event_id, &b"{}"[..]));
    for (name, value) in [
        ("topic", "events/shop/new"),
        ("qos", "2"),
        ("X-Namespace", "shop"),
        ("X-Webhook", "a"),
        ("Content-Type", "application/json"),
        ("traceparent", trace),
        ("x-tag", "1, 2"),
    ] {
        assert_eq!(header(name), Some(value), "{name}");
    }
    assert!(header("X-Received-At").is_some_and(|at| at.ends_with('Z')));
    for name in ["authorization", "x-tab", "x-latin"] {
        assert_eq!(header(name), None, "{name}");
    }
    headers.insert("x-kind", "a/b".parse().unwrap());
    assert_eq!(rig.post_with("a", &headers, "{}").await.status, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_no_client_gets_is_told_apart_in_version_5() {
    let _seat = seat().await;
    let (mut broker, rig) = begin("5").await;
    // The reader subscribes to `events/#`, which is all that the user may use.
    std::fs::write(broker.directory().join("acl"), format!("user {USER}\ntopic readwrite #\n")).unwrap();
    broker.server.kill();
    broker.server.start_again().await;
    suite::works_again(&rig, &broker).await;
    let nobody = |more: Value| {
        let mut config = json!({"topic": "nobody/reads"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        webhook(&config)
    };
    let attempt = rig.attempt(&nobody(json!({})), "{}").await;
    println!("no receiver: {}", attempt.failed_as(&["unavailable"]));
    // With QoS 2 it looks for receivers only after its first answer, and says nothing of them in the second.
    rig.attempt(&nobody(json!({"qos": 2})), "{}").await.was_delivered();
    rig.attempt(&nobody(json!({"require_receiver": false})), "{}").await.was_delivered();
    rig.attempt(&nobody(json!({"retained": true})), "{}").await.was_delivered();
    // Whoever subscribes gets the retained one.
    rig.connection("c", &connection(&broker, "3.1.1")).await;
    rig.attempt(&nobody(json!({})), "{}").await.was_delivered();
    assert!(rig.warnings().contains("acknowledges messages that it refuses"), "{}", rig.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_carries_each_qos() {
    let _seat = seat().await;
    let (broker, rig) = begin("5").await;
    let mut sent = Vec::new();
    for version in ["3.1.1", "5"] {
        rig.connection("c", &connection(&broker, version)).await;
        for qos in [0, 1, 2] {
            let body = format!("{version} with {qos}");
            rig.attempt(&webhook(&json!({"topic": TOPIC, "qos": qos})), body.clone()).await.was_delivered();
            sent.push((body.into_bytes(), qos.to_string()));
        }
    }
    assert!(rig.warnings().contains("QoS 0 has no acknowledgement"), "{}", rig.warnings());
    let read = broker.read().await;
    let mut read: Vec<_> = read.into_iter().map(|message| (message.body, message.headers["qos"].clone())).collect();
    read.sort();
    // Mosquitto keeps no message with QoS 0 for a client that is away.
    let mut kept: Vec<_> = sent.into_iter().filter(|(_, qos)| qos != "0").collect();
    kept.sort();
    assert_eq!(read, kept);
}

/// The service before gave all clients one id, so that the server ended the session of the earlier one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_do_not_end_each_others_session() {
    let _seat = seat().await;
    let (broker, rig) = begin("5").await;
    let other = Rig::start().await;
    other.connection("c", &connection(&broker, "5")).await;
    for _ in 0..10 {
        for rig in [&rig, &other] {
            rig.attempt(&broker.webhook(), "{}").await.was_delivered();
        }
    }
    assert!(!broker.server.output().contains("already connected"), "{}", broker.server.output());
    let mut same = connection(&broker, "5");
    same["client_id"] = json!("same");
    rig.connection("c", &same).await;
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    other.connection("c", &same).await;
    let attempt = other.attempt(&broker.webhook(), "{}").await;
    // The first one connects again at once, and may end the session of the second one before its acknowledgement.
    assert!(attempt.error.is_none_or(|error| error.kind == "connect"));
    eventually("the end of a session", async || broker.server.output().contains("already connected")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_may_be_files_as_in_the_service_before() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let broker = Mosquitto::start_with(Some(&certificates), true).await;
    let rig = Rig::start().await;
    let path = |name| certificates.path(name).display().to_string();
    let mut connection = json!({"type": "mqtt", "host": "127.0.0.1", "port": broker.tls_port, "username": USER,
        "password": PASSWORD, "mqtt_version": "5", "tls": true, "tls_insecure": false, "tls_ca_cert_file": path("ca.pem"),
        "tls_cert_file": path("client.pem"), "tls_key_file": path("client.key")});
    rig.connection("c", &connection).await;
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    let names = ["tls_cert_file", "tls_key_file"];
    let files = names.map(|name| connection.as_object_mut().unwrap().remove(name).unwrap());
    rig.connection("c", &connection).await;
    println!("no certificate: {}", rig.attempt(&broker.webhook(), "{}").await.failed_as(&["auth", "connect"]));
    for (name, file) in names.into_iter().zip(files) {
        connection[name] = file;
    }
    connection["tls_ca_cert_file"] = json!("/does/not/exist.pem");
    rig.connection("c", &connection).await;
    let attempt = rig.attempt(&broker.webhook(), "{}").await;
    assert!(attempt.failed_as(&["config"]).contains("`tls_ca_cert_file` cannot be read"), "{attempt:?}");
}
