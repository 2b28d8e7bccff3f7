//! A sender that is refused while it sends sees the answer, and cannot use this to occupy the gateway.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::frames::{DATA, END_STREAM, Frames, HEADERS, RST_STREAM};
use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::{Raw, text};
use crate::support::{Answer, PATIENCE, eventually, within};

const GUARDED: &str = "POST /webhook/guarded HTTP/1.1\r\nHost: a\r\n";
const OPEN: &str = "POST /webhook/open HTTP/1.1\r\nHost: a\r\n";

/// Far more than the buffers of a connection hold.
const LARGE: usize = 12 << 20;

fn sized(head: &str, length: usize) -> Vec<u8> {
    let mut request = format!("{head}Content-Length: {length}\r\n\r\n").into_bytes();
    request.resize(request.len() + length, b' ');
    request
}

fn chunked(head: &str, chunks: usize, size: usize) -> Vec<u8> {
    let mut request = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..chunks {
        request.extend_from_slice(format!("{size:x}\r\n{}\r\n", " ".repeat(size)).as_bytes());
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// Sends the whole request piece by piece, like a client library, and reads the answer only then.
async fn answer_to(gateway: &Gateway, request: &[u8]) -> Answer {
    let mut raw = gateway.connect().await;
    for piece in request.chunks(request.len().div_ceil(100)) {
        assert!(raw.send(piece).await, "the connection is reset");
        tokio::task::yield_now().await;
    }
    let answer = raw.answer().await.expect("the connection is reset");
    assert_eq!(answer.header("connection"), "close", "{answer:?}");
    assert!(raw.is_closed_by_peer().await);
    answer
}

/// A sender that is refused, and neither continues nor hangs up.
async fn lingering(gateway: &Gateway) -> Raw {
    let mut raw = gateway.connect().await;
    raw.send(format!("{GUARDED}Content-Length: 1000000\r\n\r\n")).await;
    assert_eq!(raw.answer().await.unwrap().status, 401);
    raw
}

/// Waits until the gateway no longer takes what is sent.
async fn is_gone(raw: &mut Raw) {
    within("the connection to be closed", async {
        while raw.send(" ").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_sender_of_a_large_body_sees_why_it_is_refused() {
    let gateway = Gateway::start(&[]).await;
    for (status, request) in [
        (401, sized(GUARDED, LARGE)),
        (401, chunked(GUARDED, 120, 100_000)),
        (401, chunked(GUARDED, 2, 500)),
        (401, sized(&format!("{GUARDED}Expect: 100-continue\r\n"), LARGE)),
        (404, sized("POST /webhook/nothing HTTP/1.1\r\nHost: a\r\n", LARGE)),
        (404, chunked("POST /nothing HTTP/1.1\r\nHost: a\r\n", 120, 100_000)),
        (405, sized("PUT /webhook/open HTTP/1.1\r\nHost: a\r\n", LARGE)),
        (400, sized("POST /webhook/open HTTP/1.1\r\n", LARGE)),
        (413, sized(OPEN, (25 << 20) + 1000)),
        (413, chunked(OPEN, 264, 100_000)),
    ] {
        assert_eq!(answer_to(&gateway, &request).await.status, status, "{}", String::from_utf8_lossy(&request[..100]));
    }
    gateway.assert_serves().await;
}

#[tokio::test]
async fn a_sender_of_invalid_http_sees_the_answer_too() {
    let gateway = Gateway::start(&[]).await;
    let long = format!("X-Long: {}\r\n", "a".repeat(3 << 20));
    for (status, begin) in [
        (431, format!("{OPEN}{long}")),
        (400, format!("{OPEN}no colon\r\n\r\n{long}")),
        (400, format!("{OPEN}Transfer-Encoding: gzip\r\n\r\n{long}")),
        (400, format!("{OPEN}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{long}")),
    ] {
        let mut raw = gateway.connect().await;
        assert!(raw.send(&begin).await, "{status}: the connection is reset");
        assert_eq!(raw.answer().await.expect("the connection is reset").status, status, "{}", &begin[..100]);
    }
    // A pipelining sender that has announced which request is its last.
    let mut raw = gateway.connect().await;
    let last = text(&["POST /webhook/open HTTP/1.1", "Connection: close"], "{}");
    assert!(raw.send([&last[..], &sized(OPEN, LARGE)].concat()).await, "the connection is reset");
    raw.answer().await.expect("the connection is reset").assert_accepted();
    assert!(raw.is_closed_by_peer().await);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408_for_its_sender_too() {
    let gateway = Gateway::start(&[("BODY_TIMEOUT_SECONDS", "1")]).await;
    let mut raw = gateway.connect().await;
    raw.send(format!("{OPEN}Content-Length: 1000\r\n\r\n")).await;
    for _ in 0..25 {
        assert!(raw.send(" ").await, "the connection is reset");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = raw.answer().await.expect("the connection is reset");
    assert_eq!(answer.problem(408), "The body did not arrive in time");
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn over_tls_a_sender_of_a_large_body_sees_why_it_is_refused() {
    let (cert, key) = (super::protocols::fixture("localhost.pem"), super::protocols::fixture("localhost.key"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), crate::support::process::webhooks().to_string()).unwrap();
    let gateway = Gateway::start_in(directory, &[("TLS_CERT", &cert), ("TLS_KEY", &key)]).await;
    eventually("the configuration", async || gateway.err().contains("configuration loaded")).await;
    let address = gateway.address;
    let exchange = tokio::task::spawn_blocking(move || {
        for request in [sized(GUARDED, LARGE), chunked(GUARDED, 120, 100_000)] {
            let mut stream = super::protocols::tls(address, &[b"http/1.1"]);
            stream.write_all(&request).expect("the connection is reset");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("the connection is reset, or ends without a word of TLS");
            assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
        }
    });
    within("the exchange over TLS", exchange).await.unwrap();
}

#[tokio::test]
async fn a_small_body_that_is_there_already_is_read_and_the_connection_goes_on() {
    let gateway = Gateway::start(&[]).await;
    let mut raw = gateway.connect().await;
    for path in ["/webhook/guarded", "/nothing", "/webhook/nothing"] {
        raw.send(sized(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n"), 100)).await;
        let answer = raw.answer().await.unwrap();
        assert!(answer.status.is_client_error() && !answer.headers.contains_key("connection"), "{answer:?}");
    }
    raw.send(text(&["POST /webhook/open HTTP/1.1"], "{}")).await;
    raw.answer().await.unwrap().assert_accepted();
}

#[tokio::test]
async fn a_refused_sender_that_says_nothing_more_is_closed() {
    let gateway = Gateway::start(&[]).await;
    let mut raw = lingering(&gateway).await;
    // Longer than the gateway waits for the next byte.
    tokio::time::sleep(Duration::from_secs(6)).await;
    is_gone(&mut raw).await;
}

#[tokio::test]
async fn a_refused_sender_that_never_ends_is_closed() {
    let gateway = Gateway::start(&[("MAX_BODY_BYTES", "100000")]).await;
    let mut raw = lingering(&gateway).await;
    let endless = async { while raw.send([b' '; 1 << 16]).await {} };
    tokio::time::timeout(PATIENCE, endless).await.expect("it is read for ever");
}

#[tokio::test]
async fn refused_senders_take_no_more_than_half_of_the_connections() {
    let gateway = Gateway::start(&[("MAX_CONNECTIONS", "4")]).await;
    let mut raws = Vec::new();
    for _ in 0..20 {
        // Beyond the limit the connection is closed at once, and its place is free.
        within("a place", async {
            loop {
                let mut raw = gateway.connect().await;
                raw.send(format!("{GUARDED}Content-Length: 1000000\r\n\r\n")).await;
                let answer = raw.answer().await;
                raws.push(raw);
                if answer.is_some_and(|answer| answer.status == 401) {
                    return;
                }
            }
        })
        .await;
    }
    let served = async {
        let mut raw = gateway.connect().await;
        raw.send(text(&["POST /webhook/open HTTP/1.1"], "{}")).await && raw.answer().await.is_some()
    };
    // Before the lingering connections are closed.
    let served = tokio::time::timeout(Duration::from_secs(3), served).await;
    assert!(served.expect("others wait"), "the refused senders shut others out");
}

#[tokio::test]
async fn a_sender_whose_request_was_read_completely_is_not_waited_for() {
    let gateway = Gateway::start(&[("MAX_CONNECTIONS", "1")]).await;
    let head = ["POST /webhook/guarded HTTP/1.1", AUTHORIZATION, "Connection: close"];
    // Each sender keeps its end open.
    let mut kept = Vec::new();
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(3), async {
            loop {
                let mut raw = gateway.connect().await;
                raw.send(text(&head, "{}")).await;
                let answer = raw.answer().await;
                kept.push(raw);
                if answer.is_some_and(|answer| answer.status == 200) {
                    return;
                }
            }
        })
        .await
        .expect("the connection before it is still open");
    }
}

#[tokio::test]
async fn a_lingering_connection_does_not_hold_up_the_stop() {
    let mut gateway = Gateway::start(&[]).await;
    let mut raws = [lingering(&gateway).await, lingering(&gateway).await];
    gateway.signal("TERM").await;
    let end = tokio::time::timeout(Duration::from_secs(4), gateway.ended());
    assert_eq!(end.await.expect("the stop waits").code(), Some(0));
    for raw in &mut raws {
        is_gone(raw).await;
    }
}

/// RFC 9113 §8.1: the complete answer is followed by a reset that is not an error; later frames of the stream do no
/// harm.
#[tokio::test]
async fn in_http2_an_early_answer_resets_its_stream_alone_and_without_an_error() {
    let gateway = Gateway::start(&[]).await;
    let mut frames = Frames::connect(gateway.address).await;
    let post = |path: &'static str| [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")];
    for stream in (1..800).step_by(2) {
        frames.request(stream, &post(if stream % 4 == 1 { "/webhook/guarded" } else { "/nothing" }), 0).await;
        let mut kinds = Vec::new();
        loop {
            let frame = frames.next().await.expect("the connection has ended");
            if frame.stream != stream {
                // The frame answers data for a stream that the gateway has forgotten since.
                assert_eq!(frame.kind, RST_STREAM, "{frame:?}");
                continue;
            }
            kinds.push(frame.kind);
            if frame.kind == RST_STREAM {
                assert_eq!(frame.code(), 0, "NO_ERROR");
                break;
            }
        }
        assert_eq!(kinds, [HEADERS, DATA, RST_STREAM], "stream {stream}");
        // These frames are on their way already. In sum they exceed the connection's window, which must be given back.
        assert!(frames.send(DATA, 0, stream, &[b' '; 8 << 10]).await);
    }
    frames.request(1001, &[&post("/webhook/open")[..], &[("content-length", "2")]].concat(), 0).await;
    frames.send(DATA, END_STREAM, 1001, b"{}").await;
    let answer = loop {
        let frame = frames.next().await.expect("the connection has ended");
        if frame.stream == 1001 {
            break frame;
        }
    };
    assert_eq!(answer.status(), Some(200));
}
