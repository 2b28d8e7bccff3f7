//! The module `nats` against NATS 2.9 and 2.15. The consumer is nats-py.

mod credentials;
mod server;
mod speed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};

use self::credentials::Credentials;
use self::server::{Cluster, Release, STREAM, USER, V29};
pub(crate) use self::server::{Nats, V215};
use crate::suite::{self, Access, Broker, PASSWORD};
use crate::support::certificates::Certificates;
use crate::support::client::Message;
use crate::support::rig::Rig;
use crate::support::server::{Directory, Server};
use crate::support::{SOON, seat};

impl<R: Release> Broker for Nats<R> {
    const FULL: &[&str] = &["throttled"];

    async fn start(certificates: Option<&Certificates>) -> Self {
        Self::start(PASSWORD, certificates).await
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn port(&self) -> u16 {
        self.plain_port()
    }

    fn tls_port(&self) -> u16 {
        self.port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        let Access { port, password, tls } = access;
        let url = format!("nats://localhost:{port}");
        let mut connection = json!({"type": "nats", "url": url, "user": USER, "password": password});
        if let Some(tls) = tls {
            connection["tls"] = json!({"ca": tls.ca});
            if let Some(client) = tls.client {
                connection["tls"]["client_cert"] = json!(client.certificate);
                connection["tls"]["client_key"] = json!(client.key);
            }
        }
        connection
    }

    fn webhook(&self) -> Value {
        webhook(json!({"subject": "events.{webhook}"}))
    }

    fn unroutable(&self) -> Option<Value> {
        Some(webhook(json!({"subject": "elsewhere.{webhook}"})))
    }

    async fn consume(&mut self) -> Vec<Message> {
        self.stored().await
    }

    fn too_large(&self) -> Option<usize> {
        Some(1024 * 1024 + 1)
    }

    async fn fill(&mut self) {
        self.update(json!({"max_bytes": 1})).await;
    }

    async fn empty(&mut self) {
        self.update(json!({})).await;
    }

    async fn change_password(&mut self, password: &str) {
        Nats::change_password(self, password);
        // The server reads its file again.
        self.server.signal("HUP");
    }
}

/// A webhook with these options of the module.
fn webhook(options: Value) -> Value {
    json!({"module": "nats", "connection": "c", "module-config": options})
}

/// Runs each test on both releases.
macro_rules! on_both {
    ($($(#[$attribute:meta])* $name:ident => $test:expr;)*) => {
        mod old {
            use super::*;
            type R = V29;
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $test.await;
                }
            )*
        }

        mod current {
            use super::*;
            type R = V215;
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $test.await;
                }
            )*
        }
    };
}

on_both! {
    events_arrive_byte_for_byte => suite::works::<Nats<R>>();
    a_wrong_password_is_refused => suite::wrong_password::<Nats<R>>();
    a_subject_without_a_stream_is_a_fault_of_the_configuration => suite::unroutable::<Nats<R>>();
    events_survive_a_kill => suite::survives_a_kill::<Nats<R>>(500);
    the_events_headers_arrive_and_the_senders_orders_do_not => headers::<R>();
    core_nats_says_what_the_server_has_read => core::<R>();
    a_user_without_permissions_is_a_fault_of_the_configuration => permissions::<R>();

    #[ignore = "takes a minute; `make test-targets` runs it"]
    five_thousand_events_survive_a_kill => suite::survives_a_kill::<Nats<R>>(5_000);
    #[ignore = "`make test-targets` runs it"]
    a_frozen_server_is_a_timeout => suite::frozen::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_silent_connection_is_a_timeout => suite::silent::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_cut_connection_loses_nothing => suite::cut_in_the_middle::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_foreign_authority_is_refused => suite::foreign_authority::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_large_message_is_refused_for_good => suite::too_large::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_full_stream_is_throttled => suite::full::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    credentials_may_change => suite::credentials_change::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_server_that_is_down_fails_deliveries_at_once => suite::down::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_server_that_takes_nothing_costs_bounded_memory => suite::bounded_memory::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    a_stop_is_graceful => suite::stops_gracefully::<Nats<R>>();
    #[ignore = "`make test-targets` runs it"]
    limits_and_names_of_streams_are_told_apart => streams::<R>();
    #[ignore = "`make test-targets` runs it"]
    items_of_a_chain_arrive_in_the_same_stream => chain::<R>();
    #[ignore = "`make test-targets` runs it"]
    tls_and_client_certificates_are_demanded => demanding_tls::<R>();
    #[ignore = "`make test-targets` runs it"]
    tokens_and_private_inboxes_work => tokens::<R>();
    #[ignore = "`make test-targets` runs it"]
    credentials_files_work => credentials_files::<R>();
    #[ignore = "`make test-targets` runs it"]
    a_server_that_says_goodbye_is_left => lame_duck::<R>();
    #[ignore = "`make test-targets` runs it"]
    a_cluster_loses_a_server => cluster::<R>();
}

/// Starts a server and a receiver with the connection `c`.
async fn begin<R: Release>() -> (Nats<R>, Rig) {
    let nats = Nats::<R>::start(PASSWORD, None).await;
    let rig = Rig::start().await;
    rig.connection("c", &nats.connection(&Access::at(nats.port))).await;
    (nats, rig)
}

async fn headers<R: Release>() {
    let _seat = seat().await;
    let (nats, rig) = begin::<R>().await;
    let mut options = json!({"subject": "events.{namespace}.{header:X-Kind}", "forward_headers": true});
    rig.webhook("a", &webhook(options.clone())).await;
    let mut headers = HeaderMap::new();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (name, value) in [
        ("content-type", "application/json"),
        ("traceparent", trace),
        ("x-kind", "new"),
        ("x-github-event", "push"),
        ("authorization", "Bearer s3cret"),
        ("nats-rollup", "all"),
        ("nats-msg-id", "forged"),
        ("nats-expected-last-sequence", "99"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let mut sent = Vec::new();
    for _ in 0..2 {
        let answer = rig.post_with("a", &headers, "{}").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        sent.push(answer.event_id);
    }
    let stored = nats.stored().await;
    assert_eq!(stored.iter().map(|message| &message.id).collect::<Vec<_>>(), sent.iter().collect::<Vec<_>>());
    let found = &stored[0].headers;
    for (name, expected) in [
        ("subject", "events.shop.new"),
        ("X-Namespace", "shop"),
        ("X-Webhook", "a"),
        ("Content-Type", "application/json"),
        ("traceparent", trace),
        ("x-github-event", "push"),
        ("x-kind", "new"),
        ("Nats-Msg-Id", &sent[0]),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(expected), "{name} in {found:?}");
    }
    assert!(found["X-Received-At"].ends_with('Z'), "{found:?}");
    let forbidden = ["authorization", "nats-rollup", "nats-msg-id", "nats-expected-last-sequence"];
    assert!(forbidden.iter().all(|name| !found.contains_key(*name)), "{found:?}");
    assert_eq!(found.len(), 10, "{found:?}");

    // A value that would change the place is refused for good, and a missing one too.
    options["forward_headers"] = json!(false);
    headers.insert("x-kind", "new.>".parse().unwrap());
    assert_eq!(rig.post_with("a", &headers, "{}").await.status, 502);
    let reason = rig.attempt(&webhook(options), "{}").await.failed_as(&["permanent"]).to_owned();
    assert_eq!(reason, "`subject` cannot be filled in: the header `x-kind` is missing");
}

async fn core<R: Release>() {
    let _seat = seat().await;
    let (nats, rig) = begin::<R>().await;
    let core = |subject: &str| webhook(json!({"subject": subject, "jetstream": false}));
    let mut listener = nats.listen("core.>").await;
    rig.webhook("a", &core("core.{webhook}")).await;
    assert!(rig.warnings().contains("core NATS has no acknowledgement"), "{}", rig.warnings());
    for body in [&b"{ }"[..], b"{\"a\": \"\xc3\xa9\"}"] {
        let answer = rig.post("a", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let message = listener.next().await;
        assert_eq!((message.id, message.body), (answer.event_id, body.to_vec()));
        assert_eq!(message.headers["subject"], "core.a");
        assert!(!message.headers.contains_key("Nats-Msg-Id"));
    }
    // Nobody needs to listen.
    rig.attempt(&core("nobody"), "{}").await.was_delivered();
    let too_large = rig.attempt(&blob(core("core.a")), vec![b'x'; 1024 * 1024 + 1]).await;
    assert!(too_large.failed_as(&["permanent"]).contains("`max_payload` of 1048576 bytes"), "{too_large:?}");

    // A server that refuses does not answer; it is noticed all the same, and by the deliveries of this subject only.
    let limited = json!({"type": "nats", "url": format!("nats://limited:{PASSWORD}@127.0.0.1:{}", nats.port)});
    rig.connection("c", &limited).await;
    let refused = core("core.refused");
    for _ in 0..3 {
        let attempt = rig.attempt(&refused, "{}").await;
        assert!(attempt.failed_as(&["config"]).contains("may not publish to this subject"), "{attempt:?}");
        assert!(attempt.took < SOON, "{attempt:?}");
        rig.attempt(&core("core.allowed"), "{}").await.was_delivered();
    }
    let mut message = listener.next().await;
    for _ in 0..2 {
        assert_eq!(message.headers["subject"], "core.allowed");
        message = listener.next().await;
    }
    rig.connection("c", &json!({"type": "nats", "url": format!("nats://deaf:{PASSWORD}@127.0.0.1:{}", nats.port)}))
        .await;
    let deaf = rig.attempt(&core("core.a"), "{}").await;
    assert!(deaf.failed_as(&["config"]).contains("may not subscribe to its inbox"), "{deaf:?}");
}

fn blob(mut webhook: Value) -> Value {
    webhook["data_type"] = json!("blob");
    webhook
}

async fn permissions<R: Release>() {
    let _seat = seat().await;
    let (nats, rig) = begin::<R>().await;
    let to = |subject: &str| webhook(json!({"subject": subject}));
    for (user, subject, expected) in [
        ("limited", "events.refused", "may not publish to this subject"),
        ("deaf", "events.allowed", "may not subscribe to its inbox"),
    ] {
        let url = format!("nats://{user}:{PASSWORD}@127.0.0.1:{}", nats.port);
        rig.connection("c", &json!({"type": "nats", "url": url})).await;
        let attempt = rig.attempt(&to(subject), "{}").await;
        assert!(attempt.failed_as(&["config"]).contains(expected), "{user}: {attempt:?}");
        assert!(attempt.took < SOON, "{attempt:?}");
    }
    rig.connection("c", &json!({"type": "nats", "url": format!("nats://limited:{PASSWORD}@127.0.0.1:{}", nats.port)}))
        .await;
    rig.attempt(&to("events.allowed"), "{}").await.was_delivered();
    // The user may not ask whether there is a stream.
    let unknown = rig.attempt(&to("core.allowed"), "{}").await;
    println!("no stream, and no permission to ask: {}", unknown.failed_as(&["unavailable"]));
}

async fn streams<R: Release>() {
    let _seat = seat().await;
    let (nats, rig) = begin::<R>().await;
    let with = |key: &str, value: Value| webhook(json!({"subject": "events.a", key: value}));
    rig.attempt(&with("expected_stream", json!(STREAM)), "{}").await.was_delivered();
    let other = rig.attempt(&with("expected_stream", json!("OTHER")), "{}").await;
    println!("another stream: {}", other.failed_as(&["config"]));
    nats.update(json!({"max_msg_size": 1000})).await;
    let large = rig.attempt(&blob(nats.webhook()), vec![b'x'; 2000]).await;
    println!("too large for the stream: {}", large.failed_as(&["permanent"]));
    nats.update(json!({"max_msgs": 1})).await;
    println!("no room: {}", rig.attempt(&nats.webhook(), "{}").await.failed_as(&["throttled"]));
    nats.update(json!({})).await;
    rig.attempt(&nats.webhook(), "{}").await.was_delivered();
    // Somebody answers in place of a stream. Its answer is no acknowledgement.
    let mut responder = nats.respond("elsewhere.>").await;
    let attempt = rig.attempt(&webhook(json!({"subject": "elsewhere.a"})), "{}").await;
    assert!(attempt.failed_as(&["config"]).contains("another program than a stream answered"), "{attempt:?}");
    responder.next().await;
}

async fn chain<R: Release>() {
    let _seat = seat().await;
    let (nats, rig) = begin::<R>().await;
    let item = |subject: &str| json!({"module": "nats", "connection": "c", "module-config": {"subject": subject}});
    rig.webhook("a", &json!({"chain": [item("events.first"), item("events.second")]})).await;
    assert_eq!(rig.post("a", "{}").await.status, 200);
    let subjects: Vec<_> = nats.stored().await.into_iter().map(|message| message.headers["subject"].clone()).collect();
    assert_eq!(subjects, ["events.first", "events.second"]);
}

async fn demanding_tls<R: Release>() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| certificates.path(name));
    let rig = Rig::start().await;

    // A server that demands TLS, of a connection without.
    let nats = Nats::<R>::start(PASSWORD, Some(&certificates)).await;
    rig.connection("c", &nats.connection(&Access::at(nats.port))).await;
    let attempt = rig.attempt(&nats.webhook(), "{}").await;
    assert!(attempt.failed_as(&["config"]).contains("the server requires TLS"), "{attempt:?}");
    // The certificate names localhost and 127.0.0.1, and not ::1 or another name of this machine.
    let tls = json!({"ca": certificates.ca});
    let url = format!("tls://127.0.0.1:{}", nats.port);
    let connection = json!({"type": "nats", "url": url, "user": USER, "password": PASSWORD, "tls": tls});
    rig.connection("c", &connection).await;
    rig.attempt(&nats.webhook(), "{}").await.was_delivered();
    drop(nats);

    let settings = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}\n");
    let nats = Nats::<R>::start_without_stream(PASSWORD, &settings).await;
    let access =
        |client| Access { port: nats.port, password: PASSWORD, tls: Some(suite::Tls { ca: &certificates.ca, client }) };
    for (client, kinds) in [(None, &["auth"]), (Some(&certificates.foreign_client), &["auth"])] {
        rig.connection("c", &nats.connection(&access(client))).await;
        println!("client certificate: {}", rig.attempt(&nats.webhook(), "{}").await.failed_as(kinds));
    }
    rig.connection("c", &nats.connection(&access(Some(&certificates.client)))).await;
    let core = webhook(json!({"subject": "a", "jetstream": false}));
    rig.attempt(&core, "{}").await.was_delivered();
}

async fn tokens<R: Release>() {
    let _seat = seat().await;
    let (nats, rig) = begin::<R>().await;
    let mut private = json!({"type": "nats", "url": format!("nats://private:{PASSWORD}@127.0.0.1:{}", nats.port)});
    rig.connection("c", &private).await;
    rig.attempt(&nats.webhook(), "{}").await.failed_as(&["config"]);
    private["inbox_prefix"] = json!("_INBOX_private");
    rig.connection("c", &private).await;
    rig.attempt(&nats.webhook(), "{}").await.was_delivered();
    drop(nats);

    let nats = Nats::<R>::start_with_token("t0ken").await;
    let core = webhook(json!({"subject": "a", "jetstream": false}));
    let url = |login: &str| format!("nats://{login}127.0.0.1:{}", nats.port);
    for connection in
        [json!({"type": "nats", "url": url("t0ken@")}), json!({"type": "nats", "servers": [url("")], "token": "t0ken"})]
    {
        rig.connection("c", &connection).await;
        rig.attempt(&core, "{}").await.was_delivered();
    }
    rig.connection("c", &json!({"type": "nats", "url": url("wrong@")})).await;
    rig.attempt(&core, "{}").await.failed_as(&["auth"]);
}

async fn credentials_files<R: Release>() {
    let _seat = seat().await;
    let credentials = Credentials::new();
    let nats = Nats::<R>::start_for_operator(&credentials.settings).await;
    let rig = Rig::start().await;
    let directory = Directory::new("credentials");
    let file = directory.write("user.creds", &credentials.user);
    let core = webhook(json!({"subject": "a", "jetstream": false}));
    let url = format!("nats://127.0.0.1:{}", nats.port);
    let connection = |key: &str, value: &str| json!({"type": "nats", "url": url, key: value});
    let good = connection("creds_file", file.to_str().unwrap());
    for connection in [connection("creds", &credentials.user), good.clone()] {
        rig.connection("c", &connection).await;
        rig.attempt(&core, "{}").await.was_delivered();
    }
    for (connection, kind) in [
        (json!({"type": "nats", "url": url}), "auth"),
        (connection("creds", &credentials.foreign_user), "auth"),
        (connection("creds", "no credentials"), "config"),
        (connection("creds_file", directory.path().join("missing").to_str().unwrap()), "config"),
    ] {
        rig.connection("c", &connection).await;
        println!("credentials: {}", rig.attempt(&core, "{}").await.failed_as(&[kind]));
    }
}

/// A server in lame duck mode asks its clients to leave. No delivery fails because of it.
async fn lame_duck<R: Release>() {
    let _seat = seat().await;
    let cluster = Cluster::start::<R>().await;
    let rig = Rig::start().await;
    rig.connection("c", &cluster.connection(&[0, 1, 2])).await;
    rig.webhook("a", &webhook(json!({"subject": "events.a"}))).await;
    let follower = (cluster.leader().await + 1) % 3;
    let mut goodbye = false;
    for number in 0..400 {
        let answer = rig.post("a", format!("{{\"number\": {number}}}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        if number == 100 {
            cluster.servers[follower].signal("USR2");
            goodbye = true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(goodbye);
    assert_eq!(cluster.stored((follower + 1) % 3).await.len(), 400);
}

/// The leader of the stream is killed while accepted events are delivered: all arrive, once. Servers that a server names
/// are not used.
async fn cluster<R: Release>() {
    let _seat = seat().await;
    let mut cluster = Cluster::start::<R>().await;
    let rig = Rig::start().await;
    rig.connection("c", &cluster.connection(&[0, 1, 2])).await;
    let retry = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.1, "max_delay": 10});
    let mut accepting = webhook(json!({"subject": "events.{webhook}"}));
    accepting["ack"] = json!("accepted");
    accepting["retry"] = retry;
    rig.webhook("a", &accepting).await;
    let leader = cluster.leader().await;
    let mut sent = BTreeMap::new();
    for round in 0..20 {
        for answer in join_all((0..100).map(|_| rig.post("a", "{}"))).await {
            assert_eq!(answer.status, 202, "{answer:?}");
            sent.insert(answer.event_id, ());
        }
        if round == 10 {
            cluster.servers[leader].kill();
        }
    }
    let began = Instant::now();
    rig.drained().await;
    println!("drained {:?} after the last event; the leader was killed", began.elapsed());
    assert_eq!(rig.dead_letters().await, Vec::<String>::new());
    let other = (leader + 1) % 3;
    let stored = cluster.stored(other).await;
    let arrived: BTreeMap<_, _> = stored.iter().map(|message| (message.id.clone(), ())).collect();
    assert!(sent == arrived, "{} were sent, {} arrived", sent.len(), arrived.len());
    println!("{} events, {} arrived twice", sent.len(), stored.len() - arrived.len());
    assert_eq!(stored.len(), arrived.len(), "a stream drops repeats");

    // Two of three are left, and the connection names only one of them: if it dies, the other is not asked.
    rig.connection("d", &cluster.connection(&[other])).await;
    let mut direct = webhook(json!({"subject": "events.{webhook}", "jetstream": false}));
    direct["connection"] = json!("d");
    rig.attempt(&direct, "{}").await.was_delivered();
    cluster.servers[other].kill();
    for _ in 0..5 {
        rig.attempt(&direct, "{}").await.failed_as(&["connect"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Without a majority the stream has no leader.
    let attempt = rig.attempt(&webhook(json!({"subject": "events.b"})), "{}").await;
    println!("without a majority: {}", attempt.failed_as(&["unavailable", "timeout", "connect"]));
}
