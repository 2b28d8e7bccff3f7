//! The rules of HTTP that hyper does not enforce: `Host`, `Transfer-Encoding`, and lists with empty items.

use crate::support::frames::{END_STREAM, Frames, HEADERS, RST_STREAM};
use crate::support::process::Gateway;
use crate::support::raw::Raw;

/// The status of the answers to a GET and to an event with these lines in the head, which must be equal.
async fn statuses(gateway: &Gateway, target: &str, version: &str, lines: &[&str]) -> Option<u16> {
    let mut both = Vec::new();
    for (method, path) in [("GET", "/health"), ("POST", "/webhook/open")] {
        let mut raw = Raw::connect(gateway.address).await;
        let mut head = format!("{method} {target}{path} HTTP/{version}\r\nContent-Length: 2\r\n");
        lines.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
        raw.send(format!("{head}\r\n{{}}")).await;
        let answer = raw.answer().await?;
        if answer.status == 400 {
            // The answer's text quotes nothing from the request.
            assert!(!answer.problem(400).contains("evil"));
        }
        both.push(answer.status.as_u16());
    }
    assert_eq!(both[0], both[1], "{target} {version} {lines:?}");
    Some(both[0])
}

#[tokio::test]
async fn a_request_without_exactly_one_valid_host_is_400() {
    let gateway = Gateway::start(&[]).await;
    for (lines, status) in [
        (&[][..], 400),
        (&["Host: localhost", "Host: localhost"], 400),
        (&["Host: localhost", "host: evil"], 400),
        (&["Host: a b"], 400),
        (&["Host: evil/path"], 400),
        (&["Host: evil@localhost"], 400),
        (&["Host: http://localhost"], 400),
        (&["Host: localhost:http"], 400),
        (&["Host: localhost:+80"], 400),
        (&["Host: localhost:99999"], 400),
        (&["Host: localhost:80:80"], 400),
        (&["Host: ::1"], 400),
        (&["Host: [::1"], 400),
        (&["Host: [evil]"], 400),
        (&["Host: [::1]a"], 400),
        (&["Host: a%zz"], 400),
        (&["Host: b\u{fc}cher.example"], 400),
        (&["Host: localhost, localhost"], 400),
        (&["Host: localhost"], 200),
        (&["Host: localhost:8000"], 200),
        (&["Host: localhost:"], 200),
        (&["Host: [::1]:8000"], 200),
        (&["Host: [::ffff:10.0.0.1]"], 200),
        (&["Host: 10.0.0.1:80"], 200),
        (&["Host: under_score.example"], 200),
        (&["Host: b%C3%BCcher.example"], 200),
        // Valid for a target without an authority; a default applies (RFC 9112 §3.2, §3.3).
        (&["Host:"], 200),
    ] {
        assert_eq!(statuses(&gateway, "", "1.1", lines).await, Some(status), "{lines:?}");
    }
}

#[tokio::test]
async fn http_1_0_needs_no_host_and_must_not_have_two() {
    let gateway = Gateway::start(&[]).await;
    for (lines, status) in
        [(&[][..], 200), (&["Host: localhost"], 200), (&["Host: a", "Host: a"], 400), (&["Host: a b"], 400)]
    {
        assert_eq!(statuses(&gateway, "", "1.0", lines).await, Some(status), "{lines:?}");
    }
}

/// The target takes precedence over the field, whatever its value (RFC 9112 §3.2.2); the field must exist all the same.
#[tokio::test]
async fn an_absolute_target_wins_over_the_host() {
    let gateway = Gateway::start(&[]).await;
    for (target, lines, status) in [
        ("http://localhost", &["Host: localhost"][..], 200),
        ("http://localhost", &["Host: other.example:1"], 200),
        ("http://localhost", &[], 400),
        ("http://localhost", &["Host: a", "Host: a"], 400),
        ("http://localhost", &["Host: a b"], 400),
        ("http://evil@localhost", &["Host: localhost"], 400),
        ("http://[evil]", &["Host: localhost"], 400),
    ] {
        let mut raw = gateway.connect().await;
        raw.send(format!("GET {target}/health HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"))).await;
        assert_eq!(raw.answer().await.unwrap().status, status, "{target} {lines:?}");
    }
}

#[tokio::test]
async fn in_http2_the_authority_and_the_host_are_one() {
    let gateway = Gateway::start(&[]).await;
    for (fields, status) in [
        (&[(":authority", "localhost")][..], 200),
        (&[("host", "localhost")], 200),
        (&[(":authority", "localhost"), ("host", "LOCALHOST")], 200),
        (&[(":authority", "localhost"), ("host", "localhost:80")], 200),
        (&[(":authority", "localhost"), ("host", "localhost:81")], 400),
        (&[(":authority", "localhost"), ("host", "other.example")], 400),
        (&[(":authority", "localhost"), ("host", "localhost"), ("host", "localhost")], 400),
        (&[("host", "a b")], 400),
        (&[(":authority", "a@localhost")], 400),
        (&[], 400),
    ] {
        let mut frames = Frames::connect(gateway.address).await;
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":path", "/health")];
        all.extend_from_slice(fields);
        frames.request(1, &all, END_STREAM).await;
        let answer = frames.next().await.unwrap();
        assert_eq!((answer.kind, answer.status()), (HEADERS, Some(status)), "{fields:?}: {answer:?}");
    }
    // `Transfer-Encoding` is forbidden too (RFC 9113 §8.2.2).
    let mut frames = Frames::connect(gateway.address).await;
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/webhook/open"), (":authority", "a")];
    frames.request(1, &[&fields[..], &[("transfer-encoding", "chunked")]].concat(), 0).await;
    let reset = frames.next().await.unwrap();
    assert_eq!((reset.kind, reset.stream, reset.code()), (RST_STREAM, 1, 1), "PROTOCOL_ERROR: {reset:?}");
}

#[tokio::test]
async fn a_body_in_another_transfer_coding_is_refused_and_not_passed_on() {
    let gateway = Gateway::start(&[]).await;
    for (version, lines, status) in [
        ("1.1", &["Transfer-Encoding: gzip, chunked"][..], 501),
        ("1.1", &["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], 501),
        ("1.1", &["Transfer-Encoding: identity, chunked"], 501),
        ("1.1", &["Transfer-Encoding: x;q=\"a, chunked"], 501),
        ("1.1", &["Transfer-Encoding: chunked, chunked"], 400),
        ("1.1", &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        ("1.1", &["Transfer-Encoding: chunked, gzip"], 400),
        ("1.1", &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], 400),
        ("1.1", &["Transfer-Encoding: gzip"], 400),
        ("1.1", &["Transfer-Encoding:"], 400),
        ("1.0", &["Transfer-Encoding: chunked"], 400),
        ("1.0", &["Transfer-Encoding: gzip, chunked"], 400),
        ("1.1", &["Transfer-Encoding: Chunked"], 200),
        ("1.1", &["Transfer-Encoding: , chunked"], 200),
    ] {
        // The body is an event only if its chunks are decoded.
        for path in ["/webhook/open", "/nothing"] {
            let mut raw = gateway.connect().await;
            let lines = lines.join("\r\n");
            raw.send(format!("POST {path} HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")).await;
            let expected = if status == 200 && path == "/nothing" { 404 } else { status };
            assert_eq!(raw.answer().await.unwrap().status, expected, "{version} {lines}");
        }
    }
}

/// A proxy before the gateway may have used the length (RFC 9112 §6.3).
#[tokio::test]
async fn with_a_length_and_chunks_the_chunks_count_and_nothing_follows() {
    let gateway = Gateway::start(&[]).await;
    let next = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in ["Content-Length: 40\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 2"]
    {
        let mut raw = gateway.connect().await;
        raw.send(format!("POST /webhook/open HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{next}"))
            .await;
        let answer = raw.answer().await.unwrap();
        answer.assert_accepted();
        assert_eq!(answer.header("connection"), "close", "{lines}");
        assert!(raw.answer().await.is_none(), "{lines}");
    }
}

#[tokio::test]
async fn an_empty_content_encoding_is_none() {
    let gateway = Gateway::start(&[]).await;
    for (lines, status) in [
        ("Content-Encoding:", 200),
        ("Content-Encoding: ,, ,", 200),
        ("Content-Encoding: identity, identity", 200),
        ("Content-Encoding:\r\nContent-Encoding: Identity", 200),
        ("Content-Encoding: , gzip", 415),
        ("Content-Encoding:\r\nContent-Encoding: gzip", 415),
    ] {
        let answer = gateway.request(&["POST /webhook/open HTTP/1.1", lines], "{}").await;
        assert_eq!(answer.status, status, "{lines}");
    }
}
