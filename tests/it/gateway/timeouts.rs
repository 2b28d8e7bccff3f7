//! Time limits for peers: for a head, and between two requests.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::frames::{DATA, END_STREAM, Frames, HEADERS};
use crate::support::process::Gateway;
use crate::support::raw::{Raw, text};

const OPEN: &str = "POST /webhook/open HTTP/1.1";

/// Longer than the head time below, and shorter than the idle time.
const BETWEEN: Duration = Duration::from_secs(4);

async fn served(gateway: &Gateway) -> Raw {
    let mut raw = gateway.connect().await;
    again(&mut raw).await;
    raw
}

async fn again(raw: &mut Raw) {
    raw.send(text(&[OPEN], "{}")).await;
    raw.answer().await.expect("the connection was closed").assert_accepted();
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_time() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    let mut raw = served(&gateway).await;
    for _ in 0..2 {
        sleep(BETWEEN).await;
        again(&mut raw).await;
    }
}

#[tokio::test]
async fn a_head_that_never_ends_is_bounded_by_the_head_time_on_a_used_connection_too() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1"), ("IDLE_TIMEOUT_SECONDS", "86400")]).await;
    let mut begun = Vec::new();
    for begin in ["", "P", "POST /webhook/open HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut raw = gateway.connect().await;
        raw.send(begin).await;
        begun.push(raw);
    }
    for begin in ["P", "POST /webhook/open HTTP/1.1\r\nHost: a\r\n", "\r\n"] {
        let mut raw = served(&gateway).await;
        // Time that does not count for any head.
        sleep(Duration::from_secs(2)).await;
        again(&mut raw).await;
        raw.send(begin).await;
        begun.push(raw);
    }
    let trickle = async {
        let mut raw = served(&gateway).await;
        let mut sent = 0;
        while raw.send("X").await {
            sent += 1;
            assert!(sent < 100, "a head that trickles is waited for without end");
            sleep(Duration::from_millis(100)).await;
        }
    };
    let closed = async {
        for raw in &mut begun {
            assert!(raw.is_closed_by_peer().await);
        }
    };
    tokio::join!(trickle, closed);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_time() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "86400"), ("IDLE_TIMEOUT_SECONDS", "1")]).await;
    let mut raw = served(&gateway).await;
    let mut http2 = Frames::connect(gateway.address).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "a")];
    http2.request(1, &fields, END_STREAM).await;
    assert!(raw.is_closed_by_peer().await);
    while http2.next().await.is_some() {}
    // For the first request the head time applies.
    let mut first = gateway.connect().await;
    first.send("POST /webhook/open HTTP/1.1\r\n").await;
    sleep(BETWEEN).await;
    first.send("Host: a\r\nContent-Length: 2\r\n\r\n{}").await;
    first.answer().await.expect("the connection was closed").assert_accepted();
}

/// Answers to the gateway's PINGs, and other frames between requests, do not start a head.
#[tokio::test]
async fn an_idle_http2_connection_outlives_the_head_time_whatever_frames_come() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    let mut frames = Frames::connect(gateway.address).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "a")];
    for stream in [1, 3] {
        frames.request(stream, &fields, END_STREAM).await;
        let head = frames.next().await.expect("the connection was closed");
        assert_eq!((head.kind, head.status()), (HEADERS, Some(200)));
        assert_eq!(frames.next().await.unwrap().kind, DATA);
        let until = Instant::now() + BETWEEN;
        while Instant::now() < until {
            frames.ping().await;
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A request that takes longer than both times is not idle.
#[tokio::test]
async fn a_body_that_takes_longer_than_the_head_and_the_idle_time_is_received() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1"), ("IDLE_TIMEOUT_SECONDS", "1")]).await;
    let mut raw = served(&gateway).await;
    raw.send("POST /webhook/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{").await;
    sleep(BETWEEN).await;
    raw.send("}").await;
    raw.answer().await.expect("the connection was closed").assert_accepted();
}
