//! HTTP/2 connections that are idle and hold memory.

use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS};
use crate::support::process::Gateway;

use super::{IDLE, assert_serves_quickly, may_open};

/// Reads up to the end of the answer on `stream`. Returns `false` if the connection has ended.
async fn is_answered(frames: &mut Frames, stream: u32) -> bool {
    while let Some(frame) = frames.next().await {
        if frame.stream == stream && frame.flags & END_STREAM != 0 {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn ten_thousand_idle_http2_connections_cost_little() {
    may_open(11_000);
    let gateway = Gateway::start(&[("MAX_CONNECTIONS", "12000"), ("IDLE_TIMEOUT_SECONDS", "600")]).await;
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/webhook/open")];
    let mut idle = Vec::new();
    let mut before = 0;
    for n in 0..10_100 {
        if n == 100 {
            before = gateway.resident_kb();
        }
        let mut frames = Frames::connect(gateway.address).await;
        frames.request(1, &post, 0).await;
        frames.send(DATA, END_STREAM, 1, b"{}").await;
        assert!(is_answered(&mut frames, 1).await);
        idle.push(frames);
    }
    let each = gateway.resident_kb().saturating_sub(before) * 1024 / 10_000;
    println!("an idle HTTP/2 connection, open or ended in favour of another, costs {each} bytes");
    assert!(each < IDLE, "{each} bytes");
    assert_serves_quickly(&gateway, before, 0, "10,000 idle HTTP/2 connections").await;
}

/// As much as fits in one frame.
const HEAD: usize = 16_000;

/// A request with a head of [`HEAD`] bytes, whose `:path` enters the table of fields.
fn large_head(path: u32) -> Vec<u8> {
    let path = format!("/{path}");
    // `GET` and `http` of the static table, then `:path` with incremental indexing (RFC 7541 §6.2.1).
    let mut block = vec![0x82, 0x86, 0x44, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    // `:authority` without indexing, and a field that fills the head.
    block.extend_from_slice(b"\x01\x01a\x00\x01x\x7f");
    let length = HEAD - block.len() - 2;
    block.extend_from_slice(&[(length - 127) as u8 | 0x80, ((length - 127) >> 7) as u8]);
    block.resize(HEAD, b'a');
    block
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn tables_that_keep_large_heads_hold_little_memory() {
    may_open(2_000);
    let gateway = Gateway::start(&[("IDLE_TIMEOUT_SECONDS", "600")]).await;
    let before = gateway.resident_kb();
    let mut idle = Vec::new();
    for _ in 0..500 {
        let mut frames = Frames::connect(gateway.address).await;
        for path in 0..107 {
            let stream = 2 * path + 1;
            let is_sent = frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &large_head(path)).await;
            if !is_sent || !is_answered(&mut frames, stream).await {
                break;
            }
        }
        idle.push(frames);
    }
    assert_serves_quickly(&gateway, before, 0, "tables with 107 large heads on each of 500 HTTP/2 connections").await;
}
