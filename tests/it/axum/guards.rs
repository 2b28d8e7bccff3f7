//! Each guard alone, in front of a stranger's route.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use tower::ServiceBuilder;
use tower_webhook::RejectionKind;
use tower_webhook::auth::{AnyOf, BasicAuth, HeaderAuth, HmacAlgorithm, HmacAuth, IpAllow, QueryAuth};
use tower_webhook::layers::{CallAuthLayer, CollectBodyLayer, RequireAuthLayer, VerifyBodyLayer};
use tower_webhook::request::{Network, Peer};

use super::{echo, request, send};
use crate::support::ask;
use crate::support::schemes::{Call, Checksum};

#[tokio::test]
async fn header_auth() {
    let guard = RequireAuthLayer::new(HeaderAuth::new("x-api-key", ["one key", "another"]).unwrap());
    let app = Router::new().route("/", post(echo).layer(guard));
    for key in ["one key", "another"] {
        assert_eq!(send(&app, "/", &[("x-api-key", key)], "abc").await.text(), "abc");
    }
    for headers in [&[][..], &[("x-api-key", "One key")], &[("x-api-key", "one key"), ("x-api-key", "one key")]] {
        let answer = send(&app, "/", headers, "abc").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (401, ""), "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), r#"Webhook realm="webhook""#);
    }
}

#[tokio::test]
async fn query_auth() {
    let guard = RequireAuthLayer::new(QueryAuth::new("key", "a key").unwrap());
    let app = Router::new().route("/", post(echo).layer(guard));
    assert_eq!(send(&app, "/?key=a%20key", &[], "abc").await.text(), "abc");
    for path in ["/", "/?key=a%20kez", "/?key=a+key&key=a+key"] {
        assert_eq!(send(&app, path, &[], "abc").await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn hmac() {
    let guard = ServiceBuilder::new()
        .layer(
            RequireAuthLayer::new(HmacAuth::new(HmacAlgorithm::Sha256, "x-code", "hmac_secret").unwrap())
                .verify_body_follows(),
        )
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new());
    let app = Router::new().route("/", post(echo).layer(guard));
    let code = ("x-code", "sha256=55b556180c2df7ecfeaea8a9597275a64bf7c59655948011c001e19824d0e564");
    assert_eq!(send(&app, "/", &[code], r#"{"a":1}"#).await.text(), r#"{"a":1}"#);
    assert_eq!(send(&app, "/", &[code], r#"{"a":2}"#).await.status, 401);
    assert_eq!(send(&app, "/", &[], r#"{"a":1}"#).await.status, 401);
    assert_eq!(send(&app, "/", &[code, code], r#"{"a":1}"#).await.status, 401);
}

#[tokio::test]
async fn ip_allow() {
    let guard = RequireAuthLayer::new(IpAllow::new(Network::parse_list("192.0.2.0/24").unwrap()).unwrap());
    let app = Router::new().route("/", post(echo).layer(guard));
    let from = |address: &str| {
        let mut request: Request = request("/", &[], "abc");
        request.extensions_mut().insert(Peer::new(SocketAddr::new(address.parse().unwrap(), 4711)));
        ask(&app, request)
    };
    assert_eq!(from("192.0.2.7").await.text(), "abc");
    let answer = from("192.0.3.7").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (403, ""));
    assert!(!answer.headers.contains_key("www-authenticate"));
    assert_eq!(send(&app, "/", &[("x-forwarded-for", "192.0.2.7")], "abc").await.status, 403);
}

/// Of `hunter2`, made with bcrypt of Python.
const HASH: &str = "$2b$04$HTjZAQWvQus73sumvr2P5e6XMFHn1RmKQFLTxwUBAm3KNnidZ0kXW";
const HUNTER2: (&str, &str) = ("authorization", "Basic Y2k6aHVudGVyMg==");
const HUNTER3: (&str, &str) = ("authorization", "Basic Y2k6aHVudGVyMw==");

#[tokio::test]
async fn basic_auth_with_a_password() {
    let guard = RequireAuthLayer::new(BasicAuth::new("ci", "hunter2").unwrap());
    let app = Router::new().route("/", post(echo).layer(guard));
    assert_eq!(send(&app, "/", &[HUNTER2], "abc").await.text(), "abc");
    for headers in [&[][..], &[HUNTER3], &[HUNTER2, HUNTER2], &[("authorization", "Bearer hunter2")]] {
        let answer = send(&app, "/", headers, "abc").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (401, ""), "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), r#"Basic realm="webhook", charset="UTF-8""#);
    }
}

#[tokio::test]
async fn basic_auth_with_a_hash_needs_call_auth() {
    let guard = RequireAuthLayer::new(BasicAuth::new("ci", HASH).unwrap());
    let stack = ServiceBuilder::new().layer(guard.clone().call_auth_follows()).layer(CallAuthLayer::new());
    let app = Router::new().route("/", post(echo).layer(stack)).route("/alone", post(echo).layer(guard));
    assert_eq!(send(&app, "/alone", &[HUNTER2], "abc").await.rejection, Some(RejectionKind::Misassembled));
    for _ in 0..2 {
        assert_eq!(send(&app, "/", &[HUNTER2], "abc").await.text(), "abc");
        assert_eq!(send(&app, "/", &[HUNTER3], "abc").await.status, 401);
    }
    assert_eq!(send(&app, "/", &[], "abc").await.status, 401);
    assert_eq!(send(&app, "/alone", &[HUNTER2], "abc").await.text(), "abc", "it is known by then");
}

#[tokio::test]
async fn any_of_them() {
    let schemes = AnyOf::of(BasicAuth::new("ci", HASH).unwrap())
        .or(HmacAuth::new(HmacAlgorithm::Sha256, "x-code", "hmac_secret").unwrap())
        .and(HeaderAuth::new("x-api-key", "a key").unwrap());
    let guard = ServiceBuilder::new()
        .layer(RequireAuthLayer::any_of(schemes).call_auth_follows().verify_body_follows())
        .layer(CallAuthLayer::new())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new());
    let app = Router::new().route("/", post(echo).layer(guard));
    let code = ("x-code", "55b556180c2df7ecfeaea8a9597275a64bf7c59655948011c001e19824d0e564");
    let key = ("x-api-key", "a key");
    let body = r#"{"a":1}"#;
    for headers in [&[HUNTER2][..], &[code, key], &[HUNTER3, code, key], &[HUNTER2, code]] {
        assert_eq!(send(&app, "/", headers, body).await.text(), body, "{headers:?}");
    }
    for headers in [&[][..], &[HUNTER3], &[code], &[key], &[HUNTER3, code]] {
        assert_eq!(send(&app, "/", headers, body).await.status, 401, "{headers:?}");
    }
    assert_eq!(send(&app, "/", &[HUNTER3, code, key], r#"{"a":2}"#).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_made_fails_one_alternative_and_no_other() {
    for calls in [CallAuthLayer::new(), CallAuthLayer::new().max_calls(0)] {
        let guard = ServiceBuilder::new()
            .layer(
                RequireAuthLayer::any_of(AnyOf::of(Call).or(Checksum::new(7)))
                    .call_auth_follows()
                    .verify_body_follows(),
            )
            .layer(calls)
            .layer(CollectBodyLayer::new())
            .layer(VerifyBodyLayer::new());
        let app = Router::new().route("/", post(echo).layer(guard));
        let (call, right) = (("x-call", "never"), Checksum::sign(7, b"abc"));
        assert_eq!(send(&app, "/", &[call, ("x-checksum", &right)], "abc").await.text(), "abc");
        // The alternative that could not be checked might have let in.
        assert_eq!(send(&app, "/", &[call, ("x-checksum", "0")], "abc").await.status, 503);
        assert_eq!(send(&app, "/", &[call], "abc").await.status, 503);
        assert_eq!(send(&app, "/", &[("x-checksum", "0")], "abc").await.status, 401);
    }
}
