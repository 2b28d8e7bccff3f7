//! One tenant against the others: large bodies, targets that hang, and endless ids, events and values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::pending;
use futures_util::stream::{self, iter};
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::attacker::{Attacker, attacked, begun, sent};
use super::{P99, assert_serves_quickly, p99};
use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::text;
use crate::support::{CREDENTIAL, eventually, within};

/// The memory for bodies, in kB.
const BUDGET: u64 = 256 << 10;

/// A gateway with these webhooks by namespace, and with `guarded` in the default namespace.
async fn serving(mut namespaces: Value, variables: &[(&str, &str)]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    namespaces["default"]["guarded"] = json!({"module": "discard", "authorization": CREDENTIAL});
    std::fs::write(directory.path().join("webhooks.json"), json!({"namespaces": namespaces}).to_string()).unwrap();
    let own = [("BODY_MEMORY_BYTES", "256MiB"), ("EGRESS_ALLOW", "127.0.0.1"), ("SPOOL_DIR", "spool")];
    let variables: Vec<_> = own.iter().chain(variables).copied().collect();
    let gateway = Gateway::start_in(directory, &variables).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    gateway
}

/// A target that accepts connections and never answers, and the configuration of a webhook for it.
fn hangs() -> (std::net::TcpListener, Value) {
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", target.local_addr().unwrap());
    (target, json!({"module": "http_webhook", "module-config": {"url": url, "timeout": 300}}))
}

/// Sends all requests over one connection, several at a time, and reads all answers, which must have this status.
async fn pipeline(gateway: &Gateway, requests: impl Iterator<Item = Vec<u8>>, status: u16) {
    const AT_A_TIME: usize = 100;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let line = format!("HTTP/1.1 {status} ");
    let mut requests = requests.peekable();
    while requests.peek().is_some() {
        let batch: Vec<_> = requests.by_ref().take(AT_A_TIME).collect();
        within("the gateway to read", stream.write_all(&batch.concat())).await.unwrap();
        let (mut answers, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        while answers.windows(line.len()).filter(|at| *at == line.as_bytes()).count() < batch.len() {
            let read = within("an answer", stream.read(&mut chunk)).await.unwrap();
            assert!(read > 0, "the connection has ended: {}", String::from_utf8_lossy(&answers));
            answers.extend_from_slice(&chunk[..read]);
        }
    }
}

/// Sends `number` requests over several connections.
async fn send_all(gateway: Arc<Gateway>, senders: usize, number: usize, request: fn(usize) -> Vec<u8>, status: u16) {
    let mut running = JoinSet::new();
    for sender in 0..senders {
        let gateway = Arc::clone(&gateway);
        running.spawn(async move {
            let requests = (0..number / senders).map(|n| request(n * senders + sender));
            pipeline(&gateway, requests, status).await;
        });
    }
    running.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn two_hundred_large_bodies_on_one_http2_connection_leave_room() {
    let gateway = serving(json!({"default": {"open": {"module": "discard"}}}), &[]).await;
    let before = gateway.resident_kb();
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let large = Bytes::from(vec![b' '; (25 << 20) - 1]);
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let (mut sender, large) = (sender.clone(), large.clone());
        requests.spawn(async move {
            // The last byte never arrives.
            let frames = iter([Ok::<_, std::io::Error>(Frame::data(large))]).chain(stream::pending());
            let request = Request::post("http://localhost/webhook/open").body(StreamBody::new(frames));
            sender.ready().await.is_ok() && sender.send_request(request.unwrap()).await.is_ok()
        });
    }
    sleep(Duration::from_secs(3)).await;
    assert_serves_quickly(&gateway, before, BUDGET, "200 bodies of 25 MiB on one HTTP/2 connection").await;
    requests.abort_all();
    connection.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn large_events_for_a_target_that_hangs_leave_room() {
    if let Some(address) = attacked() {
        return send_large_events(address).await;
    }
    let (_target, hangs) = hangs();
    let gateway = serving(json!({"default": {"hangs": hangs}}), &[("DELIVERY_TIMEOUT_SECONDS", "300")]).await;
    let before = gateway.resident_kb();
    let name = "large_events_for_a_target_that_hangs_leave_room";
    let attacker = Attacker::start(module_path!(), name, &gateway).await;
    let mut during = Vec::new();
    while !attacker.has_sent() {
        during.push(p99(&gateway).await);
    }
    println!("while 840 events of 8 MB are being sent: p99 of a sender {during:?}");
    assert!(during.iter().any(|p99| *p99 < P99), "{during:?}");
    assert_serves_quickly(&gateway, before, BUDGET, "840 events of 8 MB for a target that hangs").await;
}

async fn send_large_events(address: SocketAddr) {
    let event = text(&["POST /webhook/hangs HTTP/1.1"], format!("\"{}\"", "a".repeat(8_000_000)));
    let event = Bytes::from(event);
    let mut senders = JoinSet::new();
    for _ in 0..840 {
        let (mut stream, event) = (TcpStream::connect(address).await.unwrap(), event.clone());
        senders.spawn(async move {
            // The connection may end, or answer, or neither.
            let _ = stream.write_all(&event).await;
            stream
        });
    }
    begun();
    let streams = senders.join_all().await;
    sent();
    pending::<()>().await;
    drop(streams);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn ids_without_end_of_one_tenant_flush_no_others() {
    const IDS: usize = 1_500_000;
    let once = json!({"module": "discard", "dedup": {"header": "X-Id"}});
    let gateway = serving(json!({"quiet": {"once": once}, "noisy": {"once": once}}), &[]).await;
    let quiet = ["POST /webhook/quiet/once HTTP/1.1", "X-Id: first"];
    assert!(!gateway.request(&quiet, "{}").await.headers.contains_key("x-duplicate"));
    let before = gateway.resident_kb();
    let gateway = Arc::new(gateway);
    let id = |n: usize| text(&["POST /webhook/noisy/once HTTP/1.1", &format!("X-Id: {n}")], "{}");
    let began = Instant::now();
    let flood = tokio::spawn(send_all(Arc::clone(&gateway), 20, IDS, id, 200));
    sleep(Duration::from_secs(2)).await;
    assert_serves_quickly(&gateway, before, 0, "ids without end, at their begin").await;
    flood.await.unwrap();
    let rate = IDS as f64 / began.elapsed().as_secs_f64();
    assert_serves_quickly(&gateway, before, 0, &format!("{IDS} ids of one tenant, {rate:.0} each second")).await;
    assert_eq!(gateway.request(&quiet, "{}").await.header("x-duplicate"), "true", "the id of another tenant is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn a_webhook_with_600_000_waiting_events_is_deleted_with_few_lines() {
    const EVENTS: usize = 600_000;
    let (_target, mut hangs) = hangs();
    hangs["ack"] = json!("accepted");
    // Attempts that are in flight when the webhook is deleted end by this timeout.
    hangs["module-config"]["timeout"] = json!(5);
    let variables = [("SPOOL_MAX_BYTES", "8GiB"), ("DELIVERY_TIMEOUT_SECONDS", "300")];
    let gateway = Arc::new(serving(json!({"default": {"waits": hangs}}), &variables).await);
    let before = gateway.resident_kb();
    let event = |n: usize| text(&["POST /webhook/waits HTTP/1.1"], n.to_string());
    send_all(Arc::clone(&gateway), 1000, EVENTS, event, 202).await;
    let lines = gateway.err().lines().count();
    let kept = json!({"guarded": {"module": "discard", "authorization": CREDENTIAL}});
    std::fs::write(gateway.path("webhooks.json"), kept.to_string()).unwrap();
    let gone = async || gateway.request(&["POST /webhook/waits HTTP/1.1", AUTHORIZATION], "{}").await.status == 404;
    eventually("the webhook to be gone", gone).await;
    assert_serves_quickly(&gateway, before, 0, "a webhook with 600,000 waiting events is deleted").await;
    for _ in 0..1200 {
        let metrics = gateway.get("/metrics").await;
        if metrics.text().contains("tower_webhook_spool_waiting 0") {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let metrics = gateway.get("/metrics").await;
    assert!(metrics.text().contains("tower_webhook_spool_waiting 0"), "{}", metrics.text());
    let lines = gateway.err().lines().count() - lines;
    println!("{EVENTS} waiting events of a deleted webhook left {lines} lines");
    assert!(lines < 100, "{lines} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn values_that_are_too_large_hold_up_nobody() {
    let gateway = serving(json!({}), &[]).await;
    let before = gateway.resident_kb();
    let options = |count: usize| (0..count).map(|n| (format!("f{n}"), json!(0))).collect::<Map<_, _>>();
    // Each item gets a copy of the options.
    let chain = |count: usize| {
        let item = json!({"module": "log", "module-config": options(count / 20)});
        json!({"chain": vec![item; 20], "module-config": options(count)})
    };
    let guarded = json!({"module": "discard", "authorization": CREDENTIAL});
    // 1.5 MB, the most work for the merging that the limits of a value allow.
    let files: Vec<_> =
        [75_000, 74_000, 900, 800].map(|count| json!({"guarded": guarded, "huge": chain(count)}).to_string()).into();
    assert!(files[0].len() > 1_500_000, "{}", files[0].len());
    let path = gateway.path("webhooks.json");
    let writer = tokio::spawn(async move {
        for file in files.iter().cycle() {
            std::fs::write(path.with_extension("new"), file).unwrap();
            std::fs::rename(path.with_extension("new"), &path).unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    });
    sleep(Duration::from_secs(2)).await;
    assert_serves_quickly(&gateway, before, 0, "values of 1.5 MB, ten each second").await;
    writer.abort();
    assert!(gateway.err().contains("expected at most 512 KiB"), "{}", gateway.err());
}
