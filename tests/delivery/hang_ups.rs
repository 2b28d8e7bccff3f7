//! Senders that do not wait for the answer.

use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{beside_others, eventually, within};

/// The number of senders that hang up.
const MANY: usize = 50;

fn home(target: &Target) -> Home {
    let webhook = |path: &str, ack: &str| {
        json!({
            "module": "http_webhook",
            "ack": ack,
            "module-config": {"url": target.url(path)},
            "dedup": {"header": "x-id"},
        })
    };
    let save = json!({"module": "save_to_disk", "module-config": {
        "path": "saved", "filename_template": "{event_id}.json"
    }});
    Home::new(&json!({"default": {
        "delivered": webhook("/delivered", "delivered"),
        "accepted": webhook("/accepted", "accepted"),
        "save": save,
    }}))
}

fn text(webhook: &str, id: usize) -> String {
    format!("POST /webhook/{webhook} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: 2\r\n\r\n{{}}")
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.address).await.unwrap()
}

/// The connection, and its socket.
async fn http2(address: SocketAddr) -> (SendRequest<Full<Bytes>>, std::net::TcpStream) {
    let stream = TcpStream::connect(address).await.unwrap().into_std().unwrap();
    let socket = stream.try_clone().unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    (sender, socket)
}

fn request(webhook: &str, id: usize) -> Request<Full<Bytes>> {
    let request = Request::post(format!("http://gateway/webhook/{webhook}")).header("x-id", id.to_string());
    request.body(Full::new(Bytes::from("{}"))).unwrap()
}

/// Sends an event on a stream of its own.
fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    webhook: &str,
    id: usize,
) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
    sender.send_request(request(webhook, id))
}

/// The number of events without a sender that had this outcome.
async fn gone(gateway: &Gateway, outcome: &str) -> f64 {
    let name = format!("tower_webhook_senders_gone_total{{outcome=\"{outcome}\"}}");
    gateway.metric(&name).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_closes_its_half_is_answered() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_millis(20))).await;
    let home = home(&target);
    let gateway = home.start().await;
    for (webhook, status) in [("delivered", "200"), ("accepted", "202"), ("save", "200")] {
        for id in 0..MANY {
            let mut stream = connect(&gateway).await;
            stream.write_all(text(webhook, id).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            within("the answer and the end", stream.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{webhook} {id}: {answer:?}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_connection_without_a_whole_request_ends() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::ok()).await;
    let home = home(&target);
    let gateway = home.start().await;
    let whole = text("save", 1);
    for length in (0..whole.len()).step_by(7) {
        let mut stream = connect(&gateway).await;
        stream.write_all(&whole.as_bytes()[..length]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within("the end", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{length}: {answer:?}");
    }
    assert_eq!(home.saved("saved").len(), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_sender_closes_at_once_is_processed() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_millis(20))).await;
    let home = home(&target);
    let gateway = home.start().await;
    for id in 0..MANY {
        for webhook in ["delivered", "accepted", "save"] {
            let mut stream = connect(&gateway).await;
            stream.write_all(text(webhook, id).as_bytes()).await.unwrap();
        }
    }
    target.count_at("/delivered", MANY).await;
    target.count_at("/accepted", MANY).await;
    eventually("all to be saved", async || home.saved("saved").len() == MANY).await;
    gateway.stop().await;
    assert_eq!((target.at("/delivered").len(), target.at("/accepted").len()), (MANY, MANY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_sender_that_closes_at_once_loses_nothing() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_millis(20))).await;
    let home = home(&target);
    let gateway = home.start().await;
    for id in 0..MANY {
        let (mut sender, socket) = http2(gateway.address).await;
        for webhook in ["delivered", "accepted", "save"] {
            tokio::spawn(ask(&mut sender, webhook, id));
        }
        // By now everything has been sent.
        tokio::time::sleep(Duration::from_millis(5)).await;
        socket.shutdown(Shutdown::Both).unwrap();
    }
    // An event that had not reached the gateway when the connection ended is not counted.
    eventually("all that arrived to be processed", async || {
        gateway.metric("tower_webhook_dedup_total{outcome=\"first\"}").await
            == Some((target.at("/delivered").len() + target.at("/accepted").len()) as f64)
    })
    .await;
    assert!(home.saved("saved").len() > MANY / 2, "{}", home.saved("saved").len());
    assert_eq!(gone(&gateway, "broken_off").await + gone(&gateway, "dropped").await, 0.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_sent_again_while_it_is_under_way_is_delivered_once() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_millis(1500))).await;
    let home = home(&target);
    let gateway = home.start().await;
    let (mut sender, _connection) = http2(gateway.address).await;
    let impatient = tokio::time::timeout(Duration::from_millis(500), ask(&mut sender, "delivered", 1)).await;
    assert!(impatient.is_err(), "the target takes longer");
    let mut stream = connect(&gateway).await;
    stream.write_all(text("delivered", 2).as_bytes()).await.unwrap();
    target.count_at("/delivered", 2).await;
    drop(stream);

    for id in 1..=2 {
        let again = within("an answer", ask(&mut sender, "delivered", id)).await.unwrap();
        assert_eq!(again.status(), 409, "{id}");
        assert!(again.headers().contains_key("retry-after"));
        eventually("the event to be taken", async || {
            let again = ask(&mut sender.clone(), "delivered", id).await.unwrap();
            assert!(again.status() == 409 || again.headers().contains_key("x-duplicate"), "{again:?}");
            again.status() == 200
        })
        .await;
    }
    assert_eq!(target.at("/delivered").len(), 2);
    assert_eq!(gone(&gateway, "taken").await, 1.0, "the other one only hung up");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_events_whose_senders_are_gone_as_long_as_the_grace_time() {
    let _guard = beside_others().await;
    for (grace, arrives) in [(30, true), (1, false)] {
        let target = Target::start(|_| Reply::Late(Duration::from_secs(3))).await;
        let home = home(&target).with("SHUTDOWN_GRACE_SECONDS", grace);
        let gateway = home.start().await;
        let (mut sender, socket) = http2(gateway.address).await;
        tokio::spawn(ask(&mut sender, "delivered", 1));
        target.count_at("/delivered", 1).await;
        socket.shutdown(Shutdown::Both).unwrap();
        gateway.stop().await;
        // The next process knows an event that was taken.
        let gateway = home.start().await;
        let (mut sender, _connection) = http2(gateway.address).await;
        let again = within("an answer", ask(&mut sender, "delivered", 1)).await.unwrap();
        assert_eq!(again.headers().contains_key("x-duplicate"), arrives, "{grace} s: {again:?}");
        assert_eq!(target.at("/delivered").len(), if arrives { 1 } else { 2 });
        gateway.stop().await;
    }
}

/// The streams of a connection end after the connection, and only then do their events continue without a sender.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_events_whose_senders_close_while_it_waits() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Late(Duration::from_secs(3))).await;
    let home = home(&target).with("SHUTDOWN_GRACE_SECONDS", 30);
    let mut gateway = home.start().await;
    let (mut sender, socket) = http2(gateway.address).await;
    for id in 0..MANY {
        tokio::spawn(ask(&mut sender, "delivered", id));
    }
    target.count_at("/delivered", MANY).await;
    gateway.signal("TERM").await;
    eventually("the stop to begin", async || gateway.log().contains("stopping")).await;
    socket.shutdown(Shutdown::Both).unwrap();
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log());
    let gateway = home.start().await;
    let (mut sender, _connection) = http2(gateway.address).await;
    for id in 0..MANY {
        let again = within("an answer", ask(&mut sender, "delivered", id)).await.unwrap();
        assert!(again.headers().contains_key("x-duplicate"), "{id}: {again:?}");
    }
    gateway.stop().await;
}

/// CVE-2023-44487: a stream is reset as soon as it has begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_gain_no_more_than_waiting() {
    let _guard = beside_others().await;
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/delivered" => Reply::Late(Duration::from_secs(2)),
        _ => Reply::ok(),
    })
    .await;
    let home = home(&target);
    let gateway = home.start().await;
    let before = gateway.resident_kb();
    for round in 0..20 {
        let (mut sender, _connection) = http2(gateway.address).await;
        let asked = (0..100).map(|n| {
            let mut sender = sender.clone();
            async move {
                let asked = ask(&mut sender, "delivered", round * 100 + n);
                let _ = tokio::time::timeout(Duration::from_millis(30), asked).await;
            }
        });
        futures_util::future::join_all(asked).await;
        // Other events are served meanwhile.
        let other = within("an answer", ask(&mut sender, "save", 0)).await;
        if let Ok(other) = other {
            assert_eq!(other.status(), 200);
        }
        assert_eq!(gateway.post("/webhook/save", b"{}").await.status, 200);
    }
    let at_a_time = target.at("/delivered").len();
    assert!(at_a_time <= 256 * 10, "places are those of the webhook: {at_a_time}");
    assert!(gateway.resident_kb() < before + 50_000, "{before} kB, {} kB", gateway.resident_kb());
    gateway.stop().await;
}
