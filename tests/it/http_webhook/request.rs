//! The requests that a target receives.

use serde_json::{Value, json};

use super::target::{OK, Received, Target};
use super::{Hook, event, event_with};

/// The request that a webhook with these options sends for an event with these fields.
async fn sent(mut options: Value, headers: &[(&str, &str)]) -> Received {
    let mut target = Target::answering(OK).await;
    options["url"] = target.url().into();
    Hook::new(options).await.deliver(event_with(headers, "{}")).await;
    target.received().await
}

const ALWAYS: [&str; 7] =
    ["content-length", "host", "user-agent", "x-attempt", "x-event-id", "x-received-at", "x-webhook-hops"];

/// Asserts that these fields are sent in addition to [`ALWAYS`], and no others.
fn assert_fields(received: &Received, expected: &[&str]) {
    let mut all: Vec<_> = ALWAYS.iter().chain(expected).copied().collect();
    all.sort_unstable();
    assert_eq!(received.names(), all);
}

#[tokio::test]
async fn the_body_goes_on_byte_for_byte() {
    let mut target = Target::answering(OK).await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for (body, content_type) in [
        (binary, "application/octet-stream"),
        (br#" {"b" : 1.0, "a":"\u00e9"} "#.to_vec(), "application/json; charset=utf-8"),
        (b"\x1f\x8b\x08\0".to_vec(), "multipart/form-data; boundary=\"x y\""),
        (Vec::new(), "text/plain"),
    ] {
        let request = event_with(&[("content-type", content_type), ("content-encoding", "gzip")], body.clone());
        hook.deliver(request).await;
        let received = target.received().await;
        assert!(received.body == body, "{content_type}");
        assert_eq!(received.one("content-type"), content_type);
        assert_eq!(received.one("content-encoding"), "gzip");
        assert_eq!(received.one("content-length"), body.len().to_string());
    }
}

#[tokio::test]
async fn a_request_identifies_its_event() {
    let mut target = Target::answering(OK).await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    let answer = hook.deliver(event("{}")).await;
    let received = target.received().await;
    assert_fields(&received, &[]);
    assert_eq!(received.line, "POST /s3cret?token=s3cret HTTP/1.1");
    assert_eq!(received.one("host"), target.address.to_string());
    assert_eq!(received.one("user-agent"), concat!("tower-webhook/", env!("CARGO_PKG_VERSION")));
    assert_eq!(received.one("x-event-id"), answer.header("x-event-id"));
    assert_eq!(received.one("x-attempt"), "1");
    assert_eq!(received.one("x-webhook-hops"), "1");
    let at = received.one("x-received-at");
    assert!(at.ends_with('Z') && at.len() == "2026-11-23T05:14:34.123Z".len(), "{at}");
    let at: jiff::Timestamp = at.parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(at).as_secs_f64();
    assert!((0.0..60.0).contains(&age), "{age}");
}

#[tokio::test]
async fn the_method_is_the_configured_one() {
    for method in ["POST", "PUT", "PATCH"] {
        assert!(sent(json!({"method": method}), &[]).await.line.starts_with(&format!("{method} /")));
        assert!(sent(json!({"method": method.to_lowercase()}), &[]).await.line.starts_with(&format!("{method} /")));
    }
}

#[tokio::test]
async fn received_fields_are_sent_on_only_if_so_configured() {
    let received = [("x-a", "1"), ("x-b", "2"), ("X-A", "3"), ("accept", "*/*"), ("webhook-signature", "v1,x")];
    assert_fields(&sent(json!({}), &received).await, &[]);
    let all = sent(json!({"forward_headers": true}), &received).await;
    assert_fields(&all, &["accept", "webhook-signature", "x-a", "x-a", "x-b"]);
    assert_eq!(all.all("x-a"), ["1", "3"]);
    let some = sent(json!({"forward_headers": true, "allowed_headers": ["X-A", "x-none"]}), &received).await;
    assert_fields(&some, &["x-a", "x-a"]);
    assert_fields(&sent(json!({"forward_headers": true, "allowed_headers": []}), &received).await, &[]);
}

#[tokio::test]
async fn connection_fields_are_never_sent_on() {
    let received = [
        ("connection", "keep-alive, X-Mine"),
        ("connection", "x-other"),
        ("x-mine", "1"),
        ("x-other", "1"),
        ("x-kept", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
        ("expect", "100-continue"),
        ("host", "elsewhere.example"),
    ];
    let all = sent(json!({"forward_headers": true}), &received).await;
    assert_fields(&all, &["x-kept"]);
    assert!(all.one("host").starts_with("127.0.0.1:"));
    let named = ["x-mine", "x-kept", "X-Other"];
    assert_fields(&sent(json!({"forward_headers": true, "allowed_headers": named}), &received).await, &["x-kept"]);
}

#[tokio::test]
async fn an_invalid_byte_voids_only_one_name_in_a_connection_field() {
    let mut target = Target::answering(OK).await;
    let mut hook = Hook::new(json!({"url": target.url(), "forward_headers": true})).await;
    let mut request = event_with(&[("x-mine", "1"), ("x-other", "1"), ("x-kept", "1")], "{}");
    let list = http::HeaderValue::from_bytes(b"x-mine, \xff,\tX-Other").unwrap();
    request.headers_mut().insert("connection", list);
    hook.deliver(request).await;
    assert_fields(&target.received().await, &["x-kept"]);
}

#[tokio::test]
async fn credentials_are_sent_on_only_by_name() {
    let received = [("authorization", "Bearer s3cret"), ("cookie", "a=1"), ("proxy-authorization", "Basic eA==")];
    let everything = json!({"forward_headers": true});
    assert_fields(&sent(everything, &received).await, &[]);
    let named = ["authorization", "cookie", "proxy-authorization"];
    let by_name = sent(json!({"forward_headers": true, "allowed_headers": named}), &received).await;
    assert_fields(&by_name, &named);
    let one = sent(json!({"forward_headers": true, "allowed_headers": ["cookie"]}), &received).await;
    assert_fields(&one, &["cookie"]);
}

#[tokio::test]
async fn a_sender_cannot_set_the_fields_that_identify_the_event() {
    let received = [("x-event-id", "forged"), ("x-attempt", "99"), ("x-received-at", "never")];
    let all = sent(json!({"forward_headers": true}), &received).await;
    assert_fields(&all, &[]);
    assert!(all.one("x-event-id").len() == 36 && all.one("x-attempt") == "1", "{all:?}");
    assert!(all.one("x-received-at") != "never", "{all:?}");
}

#[tokio::test]
async fn the_senders_user_agent_is_forwarded_with_the_other_fields() {
    let own = concat!("tower-webhook/", env!("CARGO_PKG_VERSION"));
    let of_the_sender = [("user-agent", "GitHub-Hookshot/044aadd"), ("accept", "*/*")];
    for (options, user_agent, others) in [
        (json!({"forward_headers": true}), "GitHub-Hookshot/044aadd", &["accept"][..]),
        (json!({"forward_headers": true, "allowed_headers": ["User-Agent"]}), "GitHub-Hookshot/044aadd", &[]),
        (json!({"forward_headers": true, "allowed_headers": ["accept"]}), own, &["accept"]),
        (json!({"forward_headers": false}), own, &[]),
        (json!({"forward_headers": true, "headers": {"User-Agent": "mine"}}), "mine", &["accept"]),
    ] {
        let sent = sent(options.clone(), &of_the_sender).await;
        assert_fields(&sent, others);
        assert_eq!(sent.one("user-agent"), user_agent, "{options}");
    }
    // For a sender without a `User-Agent`, the gateway's own is sent.
    assert_eq!(sent(json!({"forward_headers": true}), &[]).await.one("user-agent"), own);
}

#[tokio::test]
async fn configured_fields_take_precedence() {
    let configured =
        json!({"X-Key": "k3y", "content-type": "text/x-mine", "User-Agent": "mine", "authorization": "Basic x"});
    let received =
        [("x-key", "1"), ("x-key", "2"), ("content-type", "application/json"), ("authorization", "Bearer s3cret")];
    let named = ["x-key", "authorization"];
    for options in [
        json!({"headers": configured}),
        json!({"headers": configured, "forward_headers": true}),
        json!({"headers": configured, "forward_headers": true, "allowed_headers": named}),
    ] {
        let sent = sent(options, &received).await;
        assert_fields(&sent, &["authorization", "content-type", "x-key"]);
        assert_eq!(sent.one("x-key"), "k3y");
        assert_eq!(sent.one("content-type"), "text/x-mine");
        assert_eq!(sent.one("user-agent"), "mine");
        assert_eq!(sent.one("authorization"), "Basic x");
    }
}

#[tokio::test]
async fn a_valid_trace_is_sent_on_and_no_other() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for options in
        [json!({}), json!({"forward_headers": true}), json!({"forward_headers": true, "allowed_headers": []})]
    {
        let valid = sent(options.clone(), &[("traceparent", parent), ("tracestate", "a=1")]).await;
        assert_fields(&valid, &["traceparent", "tracestate"]);
        assert_eq!((valid.one("traceparent"), valid.one("tracestate")), (parent, "a=1"));
        let wrong = parent.replace("00f067aa0ba902b7", "0000000000000000");
        assert_fields(&sent(options, &[("traceparent", &wrong), ("tracestate", "a=1")]).await, &[]);
    }
}
