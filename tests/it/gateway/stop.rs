//! A stop finishes the requests in flight.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::eventually;
use crate::support::frames::{END_STREAM, Frames};
use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::text;

async fn finishes_what_runs(signal: &str) {
    let mut gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", "data")]).await;
    let mut running = gateway.connect().await;
    running
        .send(format!("POST /webhook/save HTTP/1.1\r\nHost: a\r\n{AUTHORIZATION}\r\nContent-Length: 9\r\n\r\n{{\"a\":"))
        .await;
    let mut idle = gateway.connect().await;
    idle.send(text(&["POST /webhook/open HTTP/1.1"], "{}")).await;
    idle.answer().await.unwrap().assert_accepted();

    gateway.signal(signal).await;
    eventually("the stop to begin", async || gateway.err().contains("stopping")).await;
    assert!(idle.is_closed_by_peer().await, "a connection that does nothing is closed");
    eventually("nobody new to be let in", async || TcpStream::connect(gateway.address).await.is_err()).await;
    assert!(!gateway.has_ended(), "a request is running");

    running.send("123}").await;
    running.answer().await.unwrap().assert_accepted();
    assert_eq!(std::fs::read_dir(gateway.path("data/events")).unwrap().count(), 1);
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_finishes_requests_in_flight() {
    finishes_what_runs("TERM").await;
}

#[tokio::test]
async fn sigint_finishes_requests_in_flight() {
    finishes_what_runs("INT").await;
}

/// A request on a connection that was open before the stop.
#[tokio::test]
async fn ready_is_503_or_closed_once_the_stop_has_begun() {
    let gateway = Gateway::start(&[]).await;
    let mut running = gateway.connect().await;
    running.send("POST /webhook/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{").await;
    // Otherwise the stop may close a connection on which nothing has been read.
    gateway.assert_serves().await;
    gateway.signal("TERM").await;
    eventually("the stop to begin", async || gateway.err().contains("stopping")).await;
    running.send("}GET /ready HTTP/1.1\r\nHost: a\r\n\r\n").await;
    running.answer().await.unwrap().assert_accepted();
    assert!(running.answer().await.is_none_or(|answer| answer.status == 503));
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let mut gateway = Gateway::start(&[]).await;
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(gateway.err().contains("stopped"));
}

#[tokio::test]
async fn a_request_that_never_ends_delays_the_stop_only_for_the_grace_time() {
    let mut gateway = Gateway::start(&[("SHUTDOWN_GRACE_SECONDS", "1")]).await;
    let mut running = gateway.connect().await;
    running.send("POST /webhook/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{").await;
    gateway.assert_serves().await;
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(running.is_closed_by_peer().await);
}

#[tokio::test]
async fn a_wait_for_a_revision_does_not_hold_up_the_stop() {
    let mut gateway = Gateway::start(&[]).await;
    let mut waiting = gateway.connect().await;
    waiting.send("GET /ready?min_revision=1000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.assert_serves().await;
    gateway.signal("TERM").await;
    assert_eq!(waiting.answer().await.unwrap().problem(503), "shutting down");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// A peer that never answers the PING at the beginning of the stop does not learn which request is the last.
#[tokio::test]
async fn an_http2_peer_that_sends_on_does_not_hold_up_the_stop() {
    let mut gateway = Gateway::start(&[("SHUTDOWN_GRACE_SECONDS", "60")]).await;
    let mut frames = Frames::connect(gateway.address).await;
    let ask = async |frames: &mut Frames, stream| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/health")];
        frames.request(stream, &fields, END_STREAM).await
    };
    ask(&mut frames, 1).await;
    assert_eq!(frames.next().await.unwrap().status(), Some(200));
    gateway.signal("TERM").await;
    // From here on the peer reads nothing, and so answers no PING.
    let mut stream = 1;
    while !gateway.has_ended() {
        stream += 2;
        assert!(stream < 100, "the stop waits for a peer that sends on: {}", gateway.err());
        ask(&mut frames, stream).await;
        sleep(Duration::from_millis(400)).await;
    }
    assert!(gateway.err().contains("stopped"), "{}", gateway.err());
}

#[tokio::test]
async fn asked_again_it_stops_at_once() {
    let mut gateway = Gateway::start(&[]).await;
    let mut running = gateway.connect().await;
    running.send("POST /webhook/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{").await;
    gateway.assert_serves().await;
    gateway.signal("TERM").await;
    eventually("the stop to begin", async || gateway.err().contains("stopping")).await;
    assert!(!gateway.has_ended(), "a request is running");
    gateway.signal("INT").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(running.is_closed_by_peer().await);
}
