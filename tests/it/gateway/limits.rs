//! Large, slow, many, or vanished senders: the gateway keeps answering others.

use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::text;

const OPEN: &str = "POST /webhook/open HTTP/1.1";
const GUARDED: &str = "POST /webhook/guarded HTTP/1.1";

#[tokio::test]
async fn a_header_of_100_kb_is_431_or_the_end_of_the_connection() {
    let gateway = Gateway::start(&[]).await;
    let long = format!("X-Long: {}", "a".repeat(100_000));
    let many: Vec<_> = (0..2000).map(|n| format!("X-{n}: {}", "a".repeat(50))).collect();
    let path = format!("POST /webhook/{} HTTP/1.1", "a".repeat(100_000));
    let many: Vec<_> = [OPEN].into_iter().chain(many.iter().map(String::as_str)).collect();
    for head in [&[OPEN, &long][..], &many, &[&path]] {
        let mut raw = gateway.connect().await;
        raw.send(text(head, "{}")).await;
        if let Some(answer) = raw.answer().await {
            assert!([431, 414].contains(&answer.status.as_u16()), "{answer:?}");
        }
        gateway.assert_serves().await;
    }
}

#[tokio::test]
async fn a_body_of_a_million_brackets_is_400() {
    let gateway = Gateway::start(&[]).await;
    gateway.post("/webhook/open", "[".repeat(1_000_000)).await.problem(400);
    gateway.post("/webhook/open", "{\"a\":".repeat(200_000)).await.problem(400);
    gateway.assert_serves().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_before_it_is_sent() {
    let gateway = Gateway::start(&[("MAX_BODY_BYTES", "1000")]).await;
    let mut raw = gateway.connect().await;
    raw.send(format!("{OPEN}\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n")).await;
    assert_eq!(raw.answer().await.unwrap().problem(413), "Payload too large");

    let exact = format!("[{}]", " ".repeat(998));
    gateway.post("/webhook/open", exact).await.assert_accepted();
    gateway.post("/webhook/open", format!("[{}]", " ".repeat(999))).await.problem(413);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_413_before_it_ends() {
    let gateway = Gateway::start(&[("MAX_BODY_BYTES", "1000")]).await;
    let mut raw = gateway.connect().await;
    raw.send(format!("{OPEN}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    let chunk = format!("190\r\n{}\r\n", " ".repeat(400));
    for _ in 0..3 {
        raw.send(&chunk).await;
    }
    // The last chunk is never sent.
    assert_eq!(raw.answer().await.unwrap().problem(413), "Payload too large");

    let mut raw = gateway.connect().await;
    raw.send(format!("{OPEN}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}2\r\n{{}}\r\n0\r\n\r\n"))
        .await;
    raw.answer().await.unwrap().assert_accepted();
}

#[tokio::test]
async fn without_a_credential_the_answer_comes_before_the_body() {
    let gateway = Gateway::start(&[]).await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked", "Content-Length: 100\r\nExpect: 100-continue"] {
        let mut raw = gateway.connect().await;
        raw.send(format!("{GUARDED}\r\nHost: localhost\r\n{head}\r\n\r\n")).await;
        // The answer is not `100 Continue`.
        assert_eq!(raw.answer().await.unwrap().problem(401), "Unauthorized", "{head}");
    }
}

#[tokio::test]
async fn a_sender_with_a_credential_that_expects_it_gets_100_continue() {
    let gateway = Gateway::start(&[]).await;
    let mut raw = gateway.connect().await;
    let head = "Content-Length: 2\r\nExpect: 100-continue";
    raw.send(format!("{GUARDED}\r\nHost: localhost\r\n{AUTHORIZATION}\r\n{head}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.unwrap().status, 100);
    raw.send("{}").await;
    raw.answer().await.unwrap().assert_accepted();
}

#[tokio::test]
async fn a_slow_body_is_408_also_when_it_trickles() {
    let gateway = Gateway::start(&[("BODY_TIMEOUT_SECONDS", "1")]).await;
    let mut silent = gateway.connect().await;
    silent.send(format!("{OPEN}\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{")).await;
    let trickle = async {
        let mut raw = gateway.connect().await;
        raw.send(format!("{OPEN}\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")).await;
        for _ in 0..15 {
            raw.send(" ").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        raw.answer().await
    };
    let (silent, trickled) = tokio::join!(silent.answer(), trickle);
    assert_eq!(silent.unwrap().problem(408), "The body did not arrive in time");
    if let Some(answer) = trickled {
        assert_eq!(answer.problem(408), "The body did not arrive in time");
    }
    gateway.assert_serves().await;
}

#[tokio::test]
async fn five_hundred_slow_connections_do_not_keep_others_waiting() {
    let gateway = Gateway::start(&[]).await;
    let mut slow = Vec::new();
    for n in 0..500 {
        let mut raw = gateway.connect().await;
        match n % 3 {
            0 => raw.send("POST /webhook/open HTTP/1.1\r\nHost: loc").await,
            1 => raw.send("POST").await,
            _ => true,
        };
        slow.push(raw);
    }
    for _ in 0..20 {
        let served = tokio::time::timeout(Duration::from_secs(5), gateway.assert_serves()).await;
        assert!(served.is_ok(), "others wait for the slow ones");
    }
    drop(slow);
}

#[tokio::test]
async fn a_connection_whose_head_never_ends_is_closed() {
    let gateway = Gateway::start(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    let mut begun = Vec::new();
    for begin in ["POST /webhook/open HTTP/1.1\r\nHost: loc", "POST", "PRI * HTTP/2.0\r\n", ""] {
        let mut raw = gateway.connect().await;
        raw.send(begin).await;
        begun.push(raw);
    }
    // The same after a first request.
    let mut raw = gateway.connect().await;
    raw.send(text(&[OPEN], "{}")).await;
    raw.answer().await.unwrap().assert_accepted();
    raw.send("POST /webhook/open HTTP/1.1\r\n").await;
    begun.push(raw);
    for raw in &mut begun {
        // It may end with 408 or without an answer.
        raw.drain().await;
    }
    gateway.assert_serves().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_the_others_work() {
    let gateway = Gateway::start(&[("MAX_CONNECTIONS", "3")]).await;
    // The test has closed its own connections, but the gateway counts them until it notices.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut raw = gateway.connect().await;
        raw.send(text(&[OPEN], "{}")).await;
        raw.answer().await.unwrap().assert_accepted();
        kept.push(raw);
    }
    for _ in 0..5 {
        let mut one_too_many = gateway.connect().await;
        assert!(one_too_many.is_closed_by_peer().await);
    }
    for raw in &mut kept {
        raw.send(text(&[OPEN], "{}")).await;
        raw.answer().await.unwrap().assert_accepted();
    }
    drop(kept.pop());
    crate::support::eventually("a place to be free again", async || {
        let mut raw = gateway.connect().await;
        raw.send(text(&[OPEN], "{}")).await && raw.answer().await.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_sender_that_hangs_up_half_way_leaves_nothing_behind() {
    let gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", "data")]).await;
    for _ in 0..20 {
        let mut raw = gateway.connect().await;
        raw.send(format!(
            "POST /webhook/save HTTP/1.1\r\n{AUTHORIZATION}\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{\"a\":"
        ))
        .await;
        drop(raw);
        let mut raw = gateway.connect().await;
        raw.send("POST /webhook/save HT").await;
        drop(raw);
    }
    gateway.assert_serves().await;
    assert!(!gateway.path("data").exists(), "half an event was saved");
    gateway.post_with_credential("/webhook/save", "{}").await.assert_accepted();
    assert_eq!(std::fs::read_dir(gateway.path("data/events")).unwrap().count(), 1);
}

#[tokio::test]
async fn garbage_is_400_or_the_end_of_the_connection() {
    let gateway = Gateway::start(&[]).await;
    for garbage in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /webhook/open\r\n\r\n",
        b"POST /webhook/open HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /webhook/open HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"POST /webhook/open HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /webhook/open HTTP/1.1\r\nA\x00B: c\r\n\r\n",
        b"POST /web\x7fhook HTTP/1.1\r\n\r\n",
    ] {
        let mut raw = gateway.connect().await;
        raw.send(garbage).await;
        if let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, raw.answer()).await {
            assert_eq!(answer.status, 400, "{garbage:?}");
        }
        gateway.assert_serves().await;
    }
}
