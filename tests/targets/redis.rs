//! The modules `redis_stream`, `redis_publish` and `redis_rq` against Redis 7.0 and Valkey 9.1. The consumers are redis-py,
//! redis-cli and a worker of RQ.

mod kinds;
mod server;
mod speed;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

pub(crate) use self::server::Redis;
use crate::suite::{self, Access, Broker, PASSWORD};
use crate::support::certificates::Certificates;
use crate::support::client::{Message, messages, python};
use crate::support::rig::Rig;
use crate::support::server::Server;
use crate::support::{SOON, seat, tool};

const STREAM: &str = "events:{shop}";

impl Broker for Redis {
    const FULL: &[&str] = &["unavailable"];

    async fn start(certificates: Option<&Certificates>) -> Self {
        let redis = Redis::start(PASSWORD, certificates).await;
        redis.cli(&["SET", "no-stream", "x"]).await;
        redis
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
        connection(access)
    }

    fn webhook(&self) -> Value {
        stream(json!({}))
    }

    fn unroutable(&self) -> Option<Value> {
        Some(stream(json!({"stream": "no-stream"})))
    }

    async fn consume(&mut self) -> Vec<Message> {
        let password = self.password.lock().unwrap().clone();
        messages("redis_stream.py", &[&self.port.to_string(), &password, STREAM]).await
    }

    fn too_large(&self) -> Option<usize> {
        Some((4 << 20) + 1)
    }

    async fn fill(&mut self) {
        self.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    }

    async fn empty(&mut self) {
        self.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }

    async fn change_password(&mut self, password: &str) {
        self.cli(&["CONFIG", "SET", "requirepass", password]).await;
        *self.password.lock().unwrap() = password.to_owned();
    }
}

/// The value of a connection.
fn connection(access: &Access<'_>) -> Value {
    let mut value = json!({"type": "redis", "host": "127.0.0.1", "port": access.port, "password": access.password});
    if let Some(tls) = &access.tls {
        value["tls"] = json!({"ca": tls.ca});
        if let Some(client) = tls.client {
            value["tls"]["client_cert"] = json!(client.certificate);
            value["tls"]["client_key"] = json!(client.key);
        }
    }
    value
}

/// A webhook of `redis_stream` with these options.
fn stream(options: Value) -> Value {
    hook("redis_stream", json!({"stream": "events:{{{namespace}}}"}), options)
}

fn hook(module: &str, mut config: Value, options: Value) -> Value {
    for (key, value) in options.as_object().unwrap() {
        config[key] = value.clone();
    }
    json!({"module": module, "connection": "c", "module-config": config})
}

/// A server and a receiver with the connection `c` to it.
async fn begin(redis: &Redis) -> Rig {
    let rig = Rig::start().await;
    rig.connection("c", &connection(&Access::at(redis.port))).await;
    rig
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_byte_for_byte() {
    suite::works::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_events_survive_a_kill() {
    suite::survives_a_kill::<Redis>(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn five_thousand_events_survive_a_kill() {
    suite::survives_a_kill::<Redis>(5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_apart() {
    suite::wrong_password::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_another_type_is_told_apart() {
    suite::unroutable::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_frozen_server_is_a_timeout() {
    suite::frozen::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_silent_connection_is_a_timeout() {
    suite::silent::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_connection_may_be_cut_in_the_middle_of_a_command() {
    suite::cut_in_the_middle::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_certificate_of_a_foreign_authority_is_refused() {
    suite::foreign_authority::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn an_event_that_is_too_large_is_refused_for_good() {
    suite::too_large::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_server_without_memory_is_unavailable() {
    suite::full::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_password_may_change_while_events_wait() {
    suite::credentials_change::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_server_that_is_down_delays_nothing() {
    suite::down::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_server_that_takes_nothing_costs_bounded_memory() {
    suite::bounded_memory::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_stop_waits_for_deliveries() {
    suite::stops_gracefully::<Redis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_has_the_fields_of_the_manual_and_a_stream_is_trimmed() {
    let _seat = seat().await;
    let mut redis = Redis::start(PASSWORD, None).await;
    let rig = begin(&redis).await;
    let options = json!({"forward_headers": true, "allowed_headers": ["X-Kind"]});
    rig.webhook("a", &stream(options)).await;
    let sent = headers(&[
        ("content-type", "application/json"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-kind", "push"),
        ("x-other", "1"),
    ]);
    assert_eq!(rig.post_with("a", &sent, r#"{"a": 1}"#).await.status, 200);
    let found = &redis.consume().await[0];
    let names: Vec<_> = found.headers.keys().map(String::as_str).collect();
    let expected = ["content_type", "header:x-kind", "id", "namespace", "received_at", "traceparent", "webhook"];
    assert_eq!(names, expected);
    assert_eq!((&*found.headers["namespace"], &*found.headers["webhook"]), ("shop", "a"));

    rig.webhook("trimmed", &stream(json!({"stream": "trimmed", "maxlen": 100}))).await;
    for _ in 0..10 {
        for answer in join_all((0..100).map(|_| rig.post("trimmed", "{}"))).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    let length: usize = redis.cli(&["XLEN", "trimmed"]).await.parse().unwrap();
    assert!((100..300).contains(&length), "{length}");
}

/// A subscriber of redis-py that has begun.
async fn subscriber(redis: &Redis, channel: &str, count: usize) -> tokio::task::JoinHandle<Vec<Vec<u8>>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/targets/consumers/redis_subscribe.py");
    let mut command = tokio::process::Command::new("python3");
    command.args([path, &redis.port.to_string(), PASSWORD, channel, &count.to_string()]);
    command.env("PYTHONPATH", tool("clients")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("subscribed"));
    tokio::spawn(async move {
        use base64::Engine;
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            found.push(base64::prelude::BASE64_STANDARD.decode(line).unwrap());
        }
        child.wait().await.unwrap();
        found
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_reaches_a_subscriber_and_an_unheard_one_is_told() {
    let _seat = seat().await;
    let redis = Redis::start(PASSWORD, None).await;
    let rig = begin(&redis).await;
    let publish = |options| hook("redis_publish", json!({"channel": "ch:{namespace}"}), options);
    rig.webhook("a", &publish(json!({}))).await;
    assert!(rig.warnings().contains("PUBLISH has no acknowledgement"), "{}", rig.warnings());
    let attempt = rig.attempt(&publish(json!({})), "{}").await;
    assert!(attempt.failed_as(&["unavailable"]).contains("no client is subscribed"));
    rig.attempt(&publish(json!({"require_receiver": false})), "{}").await.was_delivered();

    let heard = subscriber(&redis, "ch:shop", 2).await;
    let body = r#"{ "n" : 1e400, "text": "\u00e9" }"#;
    let answer = rig.post_with("a", &headers(&[("x-kind", "push")]), body).await;
    assert_eq!(answer.status, 200);
    let mut blob = publish(json!({"format": "body"}));
    blob["data_type"] = json!("blob");
    rig.attempt(&blob, &b"\0\xff\r\n"[..]).await.was_delivered();
    let heard = heard.await.unwrap();
    let envelope = String::from_utf8(heard[0].clone()).unwrap();
    assert!(envelope.starts_with(&format!(r#"{{"payload":{body},"headers":{{"#)), "{envelope}");
    for part in [r#""x-kind":"push""#.to_owned(), format!(r#""x-event-id":"{}""#, answer.event_id)] {
        assert!(envelope.contains(&part), "{envelope}");
    }
    assert_eq!(heard[1], b"\0\xff\r\n");
}

/// The keys of the old service, without a connection, and at the top of the webhook.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_keys_of_redis_publish_and_redis_rq_work() {
    let _seat = seat().await;
    let redis = Redis::start("", None).await;
    let rig = Rig::start().await;
    rig.connection("c", &json!({"type": "redis-rq", "host": "127.0.0.1", "port": redis.port, "db": 0})).await;
    let server = json!({"host": "localhost", "port": redis.port, "channel": "old", "allowed_hosts": ["localhost"]});
    let attempt = rig.attempt(&json!({"module": "redis_publish", "redis": server}), "{}").await;
    assert!(attempt.failed_as(&["unavailable"]).contains("no client is subscribed"));
    let heard = subscriber(&redis, "old", 1).await;
    rig.attempt(&json!({"module": "redis_publish", "module-config": {"redis": server}}), "{}").await.was_delivered();
    assert!(heard.await.unwrap()[0].starts_with(br#"{"payload":{},"headers":{"#));
    let job = json!({"module": "redis_rq", "connection": "c", "module-config": {"queue_name": "q", "function": "rq_worker.handle"}});
    rig.attempt(&job, "{}").await.was_delivered();
    assert_eq!(redis.cli(&["LLEN", "rq:queue:q"]).await, "1");
}

/// The calls that a worker of RQ has made.
async fn calls(redis: &Redis, queue: &str, serializer: &str) -> Vec<Value> {
    let password = redis.password.lock().unwrap().clone();
    let printed = python("rq_worker.py", &[&redis.port.to_string(), &password, queue, serializer]).await;
    assert!(printed.contains("FAILED 0 "), "{printed}");
    let calls = printed.lines().filter_map(|line| line.strip_prefix("CALL "));
    calls.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_rq_runs_the_job() {
    let _seat = seat().await;
    let redis = Redis::start(PASSWORD, None).await;
    let rig = begin(&redis).await;
    let job = |options| hook("redis_rq", json!({"queue_name": "events", "function": "rq_worker.handle"}), options);
    rig.webhook("json", &job(json!({"timeout": 77}))).await;
    let body = r#"{"order": 7, "big": 12345678901234567890123, "text": "\u00e9", "list": [null, true, 1.5]}"#;
    let first = rig.post_with("json", &headers(&[("x-kind", "push")]), body).await;
    assert_eq!(first.status, 200, "{first:?}");
    let mut blob = job(json!({}));
    blob["data_type"] = json!("blob");
    rig.webhook("blob", &blob).await;
    assert_eq!(rig.post("blob", &b"\0\xff"[..]).await.status, 200);
    let mut accepted = job(json!({"queue_name": "accepted"}));
    accepted["ack"] = json!("accepted");
    rig.webhook("accepted", &accepted).await;
    assert_eq!(rig.post("accepted", "{}").await.status, 202);
    rig.drained().await;

    let found = calls(&redis, "events", "pickle").await;
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["job"], &found[0]["timeout"]), (&json!(first.event_id), &json!(77)));
    assert_eq!(found[0]["payload"], serde_json::from_str::<Value>(body).unwrap());
    assert_eq!(found[0]["headers"]["x-kind"], "push");
    assert_eq!(found[0]["headers"]["x-event-id"], json!(first.event_id));
    assert_eq!(found[1]["payload"], json!({"bytes": "AP8="}));
    assert_eq!(calls(&redis, "accepted", "pickle").await.len(), 1);

    rig.webhook("text", &job(json!({"queue_name": "text", "serializer": "json"}))).await;
    assert_eq!(rig.post("text", body).await.status, 200);
    assert_eq!(calls(&redis, "text", "json").await[0]["payload"], serde_json::from_str::<Value>(body).unwrap());
}

/// Each answer comes from the real server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_server_are_told_apart() {
    let _seat = seat().await;
    let redis = Redis::start(PASSWORD, None).await;
    let rig = begin(&redis).await;
    let to = |name: &str| {
        let mut webhook = stream(json!({}));
        webhook["connection"] = json!(name);
        webhook
    };
    let connection_as = |user: &str, more: Value| {
        let mut value = connection(&Access::at(redis.port));
        value["user"] = json!(user);
        for (key, more) in more.as_object().unwrap() {
            value[key] = more.clone();
        }
        value
    };
    redis.cli(&["ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@read", "+@connection", "+config|get"]).await;
    redis.cli(&["ACL", "SETUSER", "writer", "on", ">s3cret", "~events:*", "+xadd"]).await;
    rig.connection("reader", &connection_as("reader", json!({}))).await;
    rig.connection("writer", &connection_as("writer", json!({}))).await;
    rig.connection("nobody", &connection_as("nobody", json!({}))).await;
    rig.connection("db", &connection_as("default", json!({"db": 99}))).await;
    let open = json!({"type": "redis", "host": "127.0.0.1", "port": redis.port});
    rig.connection("open", &open).await;
    for (name, kind, words) in [
        ("reader", "config", "NOPERM"),
        ("nobody", "auth", ""),
        ("db", "config", "DB index"),
        ("open", "auth", "NOAUTH"),
    ] {
        let attempt = rig.attempt(&to(name), "{}").await;
        let reason = attempt.failed_as(&[kind]);
        println!("{name}: {reason}");
        assert!(reason.contains(words) && !reason.contains("s3cret"), "{reason}");
    }
    // The least that a user needs: it may append, and nothing else.
    rig.attempt(&to("writer"), "{}").await.was_delivered();

    let other = Redis::start("", None).await;
    redis.cli(&["CONFIG", "SET", "masterauth", ""]).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]).await;
    let attempt = rig.attempt(&to("c"), "{}").await;
    println!("a replica: {}", attempt.failed_as(&["unavailable"]));
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    redis.cli(&["CONFIG", "SET", "requirepass", PASSWORD]).await;

    redis.cli(&["CONFIG", "SET", "maxclients", "1"]).await;
    rig.connection("late", &connection_as("default", json!({"timeout": 1}))).await;
    let attempt = rig.attempt(&to("late"), "{}").await;
    println!("too many clients: {}", attempt.failed_as(&["unavailable", "connect"]));
}

/// A server that loads its data, and a limit that is lowered while a session lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; `make test-targets` runs it"]
async fn a_server_that_loads_its_data_is_unavailable() {
    let _seat = seat().await;
    let mut redis = Redis::start(PASSWORD, None).await;
    let rig = begin(&redis).await;
    rig.attempt(&stream(json!({})), "{}").await.was_delivered();
    redis.cli(&["CONFIG", "SET", "proto-max-bulk-len", "1048576"]).await;
    let mut blob = stream(json!({}));
    blob["data_type"] = json!("blob");
    let attempt = rig.attempt(&blob, vec![b'x'; (1 << 20) + 1]).await;
    println!("a lowered limit: {}", attempt.failed_as(&["permanent"]));

    redis.cli(&["DEBUG", "POPULATE", "300000", "key", "100"]).await;
    redis.cli(&["SAVE"]).await;
    redis.cli(&["CONFIG", "SET", "key-load-delay", "1000"]).await;
    redis.cli(&["BGREWRITEAOF"]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    redis.server.kill();
    redis.server.launch();
    let began = Instant::now();
    let mut kinds = std::collections::BTreeSet::new();
    while began.elapsed() < Duration::from_secs(60) {
        let attempt = rig.attempt(&stream(json!({})), "{}").await;
        match attempt.error {
            None => break,
            Some(error) => {
                if kinds.insert(error.kind) {
                    println!("{}: {}", error.kind, error.reason);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    redis.server.ready().await;
    println!("{kinds:?} in {:?}", began.elapsed());
    assert!(kinds.iter().all(|kind| ["connect", "unavailable"].contains(kind)), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_asks_for_the_clients_certificate() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let redis = Redis::with("redis-server", PASSWORD, Some(&certificates), &["--tls-auth-clients", "yes"]).await;
    let rig = Rig::start().await;
    let tls = |client| Access {
        port: redis.tls_port,
        password: PASSWORD,
        tls: Some(suite::Tls { ca: &certificates.ca, client }),
    };
    rig.connection("c", &connection(&tls(Some(&certificates.client)))).await;
    rig.attempt(&stream(json!({})), "{}").await.was_delivered();
    rig.connection("c", &connection(&tls(Some(&certificates.foreign_client)))).await;
    println!("foreign: {}", rig.attempt(&stream(json!({})), "{}").await.failed_as(&["connect"]));
    rig.connection("c", &connection(&tls(None))).await;
    println!("none: {}", rig.attempt(&stream(json!({})), "{}").await.failed_as(&["connect"]));
    let mut url = json!({
        "type": "redis",
        "url": format!("rediss://:{PASSWORD}@127.0.0.1:{}/1", redis.tls_port),
        "tls": {"ca": certificates.ca, "client_cert": certificates.client.certificate, "client_key": certificates.client.key,
                "server_name": "localhost"},
    });
    rig.connection("c", &url).await;
    rig.attempt(&stream(json!({})), "{}").await.was_delivered();
    url["tls"]["server_name"] = json!("other.example");
    rig.connection("c", &url).await;
    println!("name: {}", rig.attempt(&stream(json!({})), "{}").await.failed_as(&["connect"]));
}

/// WAIT with a real replica, and WAITAOF, which Redis 7.0 does not know and Valkey 9.1 does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_waits_for_replicas_and_for_the_disk() {
    let _seat = seat().await;
    let redis = Redis::start("", None).await;
    let valkey = Redis::with("valkey-server", "", None, &[]).await;
    let rig = Rig::start().await;
    for (name, server) in [("c", &redis), ("v", &valkey)] {
        rig.connection(name, &json!({"type": "redis", "host": "127.0.0.1", "port": server.port})).await;
    }
    let waiting = |connection: &str, wait: Value| {
        let mut webhook = stream(json!({"wait": wait}));
        webhook["connection"] = json!(connection);
        webhook
    };
    rig.attempt(&waiting("v", json!({"aof": true})), "{}").await.was_delivered();
    let old = rig.attempt(&waiting("c", json!({"aof": true})), "{}").await;
    println!("WAITAOF on Redis 7.0: {}", old.failed_as(&["config"]));
    let alone = rig.attempt(&waiting("c", json!({"replicas": 1, "timeout": 0.3})), "{}").await;
    println!("no replica: {}", alone.failed_as(&["unavailable"]));

    let replica = Redis::start("", None).await;
    replica.cli(&["REPLICAOF", "127.0.0.1", &redis.port.to_string()]).await;
    crate::support::eventually("the replica", async || {
        replica.cli(&["INFO", "replication"]).await.contains("link_status:up")
    })
    .await;
    rig.attempt(&waiting("c", json!({"replicas": 1})), "{}").await.was_delivered();
    let two = rig.attempt(&waiting("c", json!({"replicas": 2, "timeout": 0.3})), "{}").await;
    assert!(two.failed_as(&["unavailable"]).contains("1 of 2 replicas"), "{two:?}");
    // Many at a time share the waits, and a webhook without `wait` on the same connection is not held up.
    rig.webhook("waits", &waiting("c", json!({"replicas": 2, "timeout": 4}))).await;
    rig.webhook("other", &stream(json!({}))).await;
    let began = Instant::now();
    let (waited, other) = tokio::join!(join_all((0..64).map(|_| rig.post("waits", "{}"))), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.post("other", "{}").await
    });
    assert!(waited.iter().all(|answer| answer.status == 502), "{waited:?}");
    assert!(began.elapsed() < Duration::from_secs(4) + SOON, "{:?}", began.elapsed());
    assert!(other.status == 200 && other.took < Duration::from_secs(3), "{other:?}");
    valkey.cli(&["CONFIG", "SET", "appendonly", "no"]).await;
    let off = rig.attempt(&waiting("v", json!({"aof": true})), "{}").await;
    println!("without appendonly: {}", off.failed_as(&["config"]));
}

/// A node of a cluster names another one, which is not followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_that_a_cluster_names_is_not_followed() {
    let _seat = seat().await;
    let redis = Redis::with("redis-server", "", None, &["--cluster-enabled", "yes"]).await;
    let node = redis.cli(&["CLUSTER", "MYID"]).await;
    redis.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16382"]).await;
    let rig = begin_open(&redis).await;
    let attempt = rig.attempt(&stream(json!({})), "{}").await;
    println!("a cluster with a hole: {}", attempt.failed_as(&["config", "unavailable"]));
    let other = Redis::with("redis-server", "", None, &["--cluster-enabled", "yes"]).await;
    redis.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]).await;
    other.cli(&["CLUSTER", "ADDSLOTS", "16383"]).await;
    crate::support::eventually("the cluster", async || {
        other.cli(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
    })
    .await;
    rig.connection("c", &json!({"type": "redis", "host": "127.0.0.1", "port": other.port})).await;
    let attempt = rig.attempt(&stream(json!({})), "{}").await;
    println!("of another node ({node}): {}", attempt.failed_as(&["config"]));
    assert!(attempt.failed_as(&["config"]).contains("MOVED"));
}

async fn begin_open(redis: &Redis) -> Rig {
    let rig = Rig::start().await;
    rig.connection("c", &json!({"type": "redis", "host": "127.0.0.1", "port": redis.port})).await;
    rig
}
