//! Peers that read their answers slowly or not at all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::frames::{DATA, END_STREAM, Frames, HEADERS, RST_STREAM};
use crate::support::process::{Gateway, free_address, webhooks};
use crate::support::raw::{request, text};
use crate::support::{PATIENCE, eventually, within};

const REFUSED_STREAM: u32 = 7;

/// SETTINGS_INITIAL_WINDOW_SIZE 0: no byte of an answer's body may be sent.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

async fn ask(frames: &mut Frames, stream: u32, path: &str) -> bool {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
    frames.request(stream, &fields, END_STREAM).await
}

#[tokio::test]
async fn an_http2_connection_has_64_requests_at_a_time() {
    let gateway = Gateway::start(&[]).await;
    let mut frames = Frames::connect_with(gateway.address, &NO_WINDOW).await;
    for number in 0..65 {
        ask(&mut frames, 2 * number + 1, "/health").await;
    }
    let refused = loop {
        let frame = frames.next().await.expect("the connection goes on");
        if frame.kind == RST_STREAM {
            break frame;
        }
        assert_eq!(frame.kind, HEADERS);
    };
    assert_eq!((refused.stream, refused.code()), (129, REFUSED_STREAM));
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_no_memory_each() {
    let gateway = Gateway::start(&[]).await;
    // Makes the answer large.
    for n in 0..100 {
        gateway.post(&format!("/webhook/nothing-{n}"), "{}").await;
    }
    let before = gateway.resident_kb();
    let mut unread = Vec::new();
    for _ in 0..100 {
        let mut frames = Frames::connect_with(gateway.address, &NO_WINDOW).await;
        for number in 0..199 {
            ask(&mut frames, 2 * number + 1, "/metrics").await;
        }
        unread.push(frames);
    }
    for frames in &mut unread {
        // Streams beyond 64 may be refused before the first one is answered.
        while frames.next().await.expect("the connection goes on").kind != HEADERS {}
    }
    gateway.assert_serves().await;
    let held = gateway.resident_kb().saturating_sub(before);
    println!("{held} kB for 100 connections");
    assert!(held < 64 << 10, "{held} kB for 100 connections");
}

/// Whether the connection has ended, or ends soon.
async fn ends(frames: &mut Frames) -> bool {
    let end = async { while frames.next().await.is_some() {} };
    timeout(Duration::from_millis(50), end).await.is_ok()
}

/// Beyond the first of each connection, 8,192 answers may wait.
#[tokio::test]
async fn all_unread_answers_together_are_bounded() {
    const CONNECTIONS: usize = 200;
    /// As many as hold less than all may.
    const SLOW: usize = 120;
    // No connection ends for being slow.
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "600")]).await;
    let mut few = Frames::connect_with(gateway.address, &NO_WINDOW).await;
    for number in 0..10 {
        ask(&mut few, 2 * number + 1, "/health").await;
    }
    let mut kept = gateway.connect().await;
    let before = gateway.resident_kb();
    let mut unread = Vec::new();
    for connection in 0..CONNECTIONS {
        if connection == SLOW {
            // Slow connections are ended first: more of them hold many answers than have to end.
            sleep(Duration::from_millis(1500)).await;
        }
        let mut frames = Frames::connect_with(gateway.address, &NO_WINDOW).await;
        for number in 0..64 {
            ask(&mut frames, 2 * number + 1, "/health").await;
        }
        unread.push(frames);
    }
    let mut open = CONNECTIONS;
    for frames in &mut unread {
        open -= usize::from(ends(frames).await);
    }
    let held = gateway.resident_kb().saturating_sub(before);
    println!("{open} connections with unread answers are left, and {held} kB are held");
    assert!((50..=8192 / 63 + 20).contains(&open), "{open} connections are left");
    assert!(held < 150 << 10, "{held} kB");
    assert!(!ends(&mut few).await, "a connection with few unread answers has ended");
    kept.send(text(&["POST /webhook/open HTTP/1.1"], "{}")).await;
    assert_eq!(kept.answer().await.unwrap().status, 200);
    assert!(gateway.err().contains("connections with the most unread answers are closed"), "{}", gateway.err());
    let metrics = String::from_utf8(gateway.get("/metrics").await.body.to_vec()).unwrap();
    let ended = metrics.lines().find_map(|line| line.strip_prefix("tower_webhook_connections_unread_total "));
    let ended: usize = ended.unwrap().parse().unwrap();
    assert!((CONNECTIONS - open..CONNECTIONS).contains(&ended), "{ended} have ended, and {open} are left");
}

#[tokio::test]
async fn an_http2_answer_that_nobody_reads_ends_its_connection() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    let mut frames = Frames::connect_with(gateway.address, &NO_WINDOW).await;
    ask(&mut frames, 1, "/health").await;
    assert_eq!(frames.next().await.unwrap().kind, HEADERS);
    let end = async {
        while let Some(frame) = frames.next().await {
            assert_ne!(frame.kind, DATA);
        }
    };
    // Long before the idle time.
    within("the end of the connection", end).await;
    gateway.assert_serves().await;
}

#[tokio::test]
async fn an_http1_answer_that_nobody_reads_ends_its_connection() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let requests = text(&["GET /metrics HTTP/1.1"], "").repeat(100);
    let begin = Instant::now();
    // While the gateway reads, it answers into the system's buffers. Then it neither reads nor writes.
    while timeout(PATIENCE, stream.write_all(&requests)).await.expect("the connection is kept open").is_ok() {
        assert!(begin.elapsed() < 4 * PATIENCE, "the system's buffers are too large for this test");
    }
    gateway.assert_serves().await;
}

/// A gateway with a dead letter of `size` bytes, and the text of the request for it.
async fn with_dead_letter(size: usize, variables: &[(&str, &str)]) -> (Gateway, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let mut webhooks = webhooks();
    webhooks["namespaces"]["default"]["lost"] = json!({
        "module": "http_webhook", "ack": "accepted", "retry": {"enabled": true, "max_attempts": 1},
        "module-config": {"url": format!("http://{}/", free_address())},
    });
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let own = [("SPOOL_DIR", "spool"), ("ADMIN_TOKEN", "operator"), ("EGRESS_ALLOW", "127.0.0.1")];
    let variables: Vec<_> = own.iter().chain(variables).copied().collect();
    let gateway = Gateway::start_in(directory, &variables).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    let answer = gateway.post("/webhook/lost", format!("\"{}\"", "a".repeat(size))).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let admin = "Authorization: Bearer operator";
    let mut id = None;
    for _ in 0..200 {
        let listed = request(gateway.address, &["GET /admin/dead-letters HTTP/1.1", admin], "").await;
        let listed: Value = serde_json::from_slice(&listed.body).unwrap();
        id = listed["dead_letters"][0]["id"].as_str().map(str::to_owned);
        if id.is_some() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let line = format!("GET /admin/dead-letters/{} HTTP/1.1", id.expect("a dead letter"));
    (gateway, text(&[&line, admin, "Connection: close"], ""))
}

#[tokio::test]
async fn a_large_answer_may_be_read_slowly() {
    const SIZE: usize = 20_000_000;
    let (gateway, question) =
        with_dead_letter(SIZE, &[("HEADER_TIMEOUT_SECONDS", "1"), ("IDLE_TIMEOUT_SECONDS", "1")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let (mut read, mut chunk) = (0, vec![0; 200_000]);
    loop {
        match within("a piece of the answer", stream.read(&mut chunk)).await {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) => panic!("after {read} bytes: {error}"),
        }
        // 2 MB/s at most: the whole answer takes far longer than both times.
        sleep(Duration::from_millis(chunk.len() as u64 / 2000 / 4)).await;
    }
    assert!(read > SIZE, "it ended after {read} bytes");
}

#[tokio::test]
async fn answers_of_the_operator_that_nobody_reads_are_bounded() {
    let (gateway, question) = with_dead_letter(8_000_000, &[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    let before = gateway.resident_kb();
    let mut unread = Vec::new();
    for _ in 0..40 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut stream = socket.connect(gateway.address).await.unwrap();
        stream.write_all(&question).await.unwrap();
        unread.push(stream);
    }
    // Each answer contains the whole event.
    for _ in 0..20 {
        sleep(Duration::from_millis(100)).await;
        let held = gateway.resident_kb().saturating_sub(before);
        assert!(held < 200 << 10, "{held} kB are held");
    }
    // Once the slow readers have been disconnected, the operator is served again.
    eventually("the dead letter", async || {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let mut whole = Vec::new();
        stream.read_to_end(&mut whole).await.is_ok() && whole.starts_with(b"HTTP/1.1 200") && whole.len() > 8_000_000
    })
    .await;
}
