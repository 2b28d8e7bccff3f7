//! More idle connections than the gateway keeps buffers for.

use crate::support::frames::{DATA, END_STREAM, Frames, GOAWAY, HEADERS};
use crate::support::process::Gateway;
use crate::support::raw::{Raw, text};

use super::certificates::{self, Pair};

/// More than the number of idle connections that keep their buffers.
const MANY: usize = 200;

const OPEN: &str = "POST /webhook/open HTTP/1.1";

fn may_open(files: u64) {
    let limit = rlimit::increase_nofile_limit(files).unwrap();
    assert!(limit >= files, "the limit of open files is {limit}: these tests need {files}");
}

async fn asks(raw: &mut Raw) {
    raw.send(text(&[OPEN], "{}")).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
}

async fn connect(gateway: &Gateway) -> Raw {
    let mut raw = gateway.connect().await;
    asks(&mut raw).await;
    raw
}

/// As many connections as `open` opens.
async fn idle<C>(number: usize, open: impl AsyncFn() -> C) -> Vec<C> {
    let mut idle = Vec::new();
    for _ in 0..number {
        idle.push(open().await);
    }
    idle
}

/// Opens more connections than those that keep their buffers. Returns all of them, and how many bytes of the gateway's memory
/// each further one costs.
async fn without_buffers<C>(gateway: &Gateway, open: impl AsyncFn() -> C) -> (Vec<C>, u64) {
    const MORE: usize = 2000;
    let mut all = idle(MANY, &open).await;
    let before = gateway.resident_kb();
    all.extend(idle(MORE, &open).await);
    let each = gateway.resident_kb().saturating_sub(before) * 1024 / MORE as u64;
    println!("an idle connection costs {each} bytes");
    (all, each)
}

#[tokio::test]
async fn idle_connections_over_tls_cost_little() {
    may_open(4000);
    let pair = Pair::new();
    let gateway = certificates::start(&pair).await;
    let (mut idle, each) = without_buffers(&gateway, async || {
        let mut stream = certificates::connect(&gateway, &[&pair]).await.unwrap();
        certificates::ask(&mut stream).await;
        stream
    })
    .await;
    assert!(each < 10_000, "{each} bytes");
    let [.., one] = &mut idle[..] else { panic!("there are more") };
    for _ in 0..3 {
        certificates::skip_answer(one).await;
        certificates::ask(one).await;
    }
}

#[tokio::test]
async fn idle_connections_cost_little_and_are_served_like_others() {
    may_open(4000);
    let mut gateway = Gateway::start(&[]).await;
    let (mut idle, each) = without_buffers(&gateway, async || connect(&gateway).await).await;
    assert!(each < 3_000, "{each} bytes");

    let [.., first, second, third] = &mut idle[..] else { panic!("there are more") };
    for _ in 0..3 {
        asks(first).await;
    }
    // One and a half times what hyper reads at once.
    let request = text(&[OPEN], "{}");
    let (begin, rest) = request.split_at(10);
    second.send([&request.repeat(40)[..], begin].concat()).await;
    for _ in 0..40 {
        assert_eq!(second.answer().await.unwrap().status, 200);
    }
    second.send(rest).await;
    assert_eq!(second.answer().await.unwrap().status, 200);
    // One byte at a time.
    for byte in &request {
        third.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(third.answer().await.unwrap().status, 200);

    gateway.signal("TERM").await;
    for raw in idle.iter_mut().rev().take(10) {
        assert!(raw.is_closed_by_peer().await);
    }
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn an_idle_connection_without_buffers_ends_in_time() {
    may_open(2000);
    let limits = [("IDLE_TIMEOUT_SECONDS", "2"), ("HEADER_TIMEOUT_SECONDS", "2")];
    let gateway = Gateway::start(&limits).await;
    let mut idle = idle(MANY, async || connect(&gateway).await).await;
    let [.., half, last] = &mut idle[..] else { panic!("there are more") };
    half.send(OPEN).await;
    assert!(half.is_closed_by_peer().await);
    assert!(last.is_closed_by_peer().await);
    gateway.assert_serves().await;
}

/// More than the number of idle HTTP/2 connections that stay open.
const MANY_HTTP2: usize = 1700;

#[tokio::test]
async fn of_many_idle_http2_connections_the_oldest_end_gracefully() {
    may_open(4000);
    let gateway = Gateway::start(&[]).await;
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/webhook/open")];
    let answer = async |frames: &mut Frames, stream| {
        frames.request(stream, &post, 0).await;
        frames.send(DATA, END_STREAM, stream, b"{}").await;
        loop {
            let frame = frames.next().await.expect("the connection has ended");
            if let Some(status) = frame.status().filter(|_| frame.kind == HEADERS) {
                break status;
            }
        }
    };
    let mut idle = Vec::new();
    for _ in 0..MANY_HTTP2 {
        let mut frames = Frames::connect(gateway.address).await;
        assert_eq!(answer(&mut frames, 1).await, 200);
        idle.push(frames);
    }
    let [first, .., last] = &mut idle[..] else { panic!("there are more") };
    let end = async {
        while let Some(frame) = first.next().await {
            if frame.kind == GOAWAY {
                // NO_ERROR
                assert_eq!(frame.payload[4..8], [0; 4]);
                return;
            }
        }
        panic!("the connection has ended without a GOAWAY");
    };
    end.await;
    assert_eq!(answer(last, 3).await, 200, "a younger one stays");
    assert!(gateway.err().contains("the HTTP/2 connections with the most memory are closed"), "{}", gateway.err());
    let metrics = String::from_utf8(gateway.get("/metrics").await.body.to_vec()).unwrap();
    let closed = metrics.lines().find_map(|line| line.strip_prefix("tower_webhook_http2_connections_closed_total "));
    let closed: usize = closed.unwrap().parse().unwrap();
    assert!((1..MANY_HTTP2).contains(&closed), "{closed} of {MANY_HTTP2}");
}
