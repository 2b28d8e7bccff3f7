//! How an answer is interpreted for the event and for its sender.

use std::time::Duration;

use serde_json::json;
use tower_webhook::event::DeliverErrorKind;

use super::connections::Tls;
use super::target::{OK, Target};
use super::{Hook, event};

/// Asserts that an answer with this head causes an error of this kind, with a wait of this many seconds.
async fn assert_fails(head: &str, kind: DeliverErrorKind, wait: Option<u64>) {
    let target = Target::answering(format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\nno")).await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    let error = hook.fail(kind).await;
    assert_eq!(error.wait(), wait.map(Duration::from_secs), "{head}");
    let text = error.to_string();
    assert!(text.contains(&target.address.to_string()) && text.contains(&head[..3]), "{text}");
}

#[tokio::test]
async fn a_2xx_takes_the_event() {
    for answer in [
        OK,
        "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let target = Target::answering(answer).await;
        Hook::new(json!({"url": target.url()})).await.deliver(event("{}")).await;
    }
}

#[tokio::test]
async fn other_answers_are_errors_of_their_kind() {
    use DeliverErrorKind::{Auth, Permanent, Throttled, Timeout, Unavailable};
    for (head, kind) in [
        ("300 Multiple Choices", Permanent),
        ("304 Not Modified", Permanent),
        ("400 Bad Request", Permanent),
        ("404 Not Found", Permanent),
        ("410 Gone", Permanent),
        ("401 Unauthorized\r\nRetry-After: 5", Auth),
        ("403 Forbidden", Auth),
        ("407 Proxy Authentication Required", Auth),
        ("408 Request Timeout", Timeout),
        ("425 Too Early", Unavailable),
        ("429 Too Many Requests", Throttled),
        ("500 Internal Server Error", Unavailable),
        ("503 Service Unavailable\r\nRetry-After: soon", Unavailable),
    ] {
        assert_fails(head, kind, None).await;
    }
}

#[tokio::test]
async fn retry_after_is_heeded_within_bounds() {
    use DeliverErrorKind::{Throttled, Timeout, Unavailable};
    assert_fails("429 Too Many Requests\r\nRetry-After: 7", Throttled, Some(7)).await;
    assert_fails("503 Service Unavailable\r\nRetry-After: 120", Unavailable, Some(120)).await;
    assert_fails("408 Request Timeout\r\nRetry-After: 1", Timeout, Some(1)).await;
    assert_fails("503 Service Unavailable\r\nRetry-After: 86400", Unavailable, Some(3600)).await;
    assert_fails("503 Service Unavailable\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT", Unavailable, Some(0)).await;
    assert_fails("503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT", Unavailable, Some(3600))
        .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Target::answering(OK).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("{status}\r\nLocation: http://{}/", elsewhere.address);
        assert_fails(&location, DeliverErrorKind::Permanent, None).await;
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_answer_with_many_fields_is_an_answer() {
    for fields in [101, 1000, 4000] {
        let fields: String = (0..fields).map(|number| format!("X-Field-{number}: {number}\r\n")).collect();
        let target = Target::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok")).await;
        Hook::new(json!({"url": target.url()})).await.deliver(event("{}")).await;
        assert_fails(
            &format!("503 Busy\r\nRetry-After: 7\r\n{}", fields.trim_end()),
            DeliverErrorKind::Unavailable,
            Some(7),
        )
        .await;
    }
}

#[tokio::test]
async fn an_answer_over_http_2_with_a_large_head_is_an_answer() {
    let target = Tls::new().await;
    // A field counts as its name, its value, and 32 bytes.
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url("localhost") + "/?fields=2000"})).await;
    hook.deliver(event("{}")).await;
}
