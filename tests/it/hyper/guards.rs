//! Each guard alone, over a socket.

use std::net::SocketAddr;

use http::Request;
use hyper::body::Incoming;
use tower::{ServiceBuilder, service_fn};
use tower_webhook::auth::{AnyOf, BasicAuth, Bearer, HeaderAuth, HmacAlgorithm, HmacAuth, IpAllow, QueryAuth};
use tower_webhook::layers::{CallAuthLayer, CollectBodyLayer, RequireAuthLayer, VerifyBodyLayer};
use tower_webhook::request::{Network, Peer};

use super::{assert_status, ok, serve};

#[tokio::test]
async fn header_auth() {
    let guard = RequireAuthLayer::new(HeaderAuth::new("x-api-key", "a key").unwrap());
    let address = serve(ServiceBuilder::new().layer(guard).service(service_fn(ok))).await;
    let right = ("x-api-key", "a key");
    assert_status(address, "/", &[right], "", 200).await;
    for headers in [&[][..], &[("x-api-key", "A key")], &[("x-api-key", "")], &[right, right]] {
        assert_status(address, "/", headers, "", 401).await;
    }
}

#[tokio::test]
async fn query_auth() {
    let guard = RequireAuthLayer::new(QueryAuth::new("key", "a/key").unwrap());
    let address = serve(ServiceBuilder::new().layer(guard).service(service_fn(ok))).await;
    assert_status(address, "/a?key=a%2Fkey", &[], "", 200).await;
    assert_status(address, "/a?x&key=a/key", &[], "", 200).await;
    for path in ["/", "/a?key=a", "/a?key=a%2Fkey&key=a", "/a?key=%"] {
        assert_status(address, path, &[], "", 401).await;
    }
}

#[tokio::test]
async fn hmac() {
    let scheme = HmacAuth::new(HmacAlgorithm::Sha1, "x-code", "hmac_secret").unwrap();
    let service = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(scheme).verify_body_follows())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new())
        .service(service_fn(ok));
    let address = serve(service).await;
    let code = ("x-code", "75df3788b0f5ad81805cbff16f506e94554c0939");
    assert_status(address, "/", &[code], r#"{"a":1}"#, 200).await;
    assert_status(address, "/", &[code], r#"{"a":1} "#, 401).await;
    assert_status(address, "/", &[("x-code", "75df")], r#"{"a":1}"#, 401).await;
}

#[tokio::test]
async fn ip_allow() {
    let from = |address: SocketAddr| {
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer::new(address));
                request
            })
            .layer(RequireAuthLayer::new(IpAllow::new(Network::parse_list("2001:db8::/32").unwrap()).unwrap()));
        serve(service.service(service_fn(ok)))
    };
    assert_status(from("[2001:db8::7]:4711".parse().unwrap()).await, "/", &[], "", 200).await;
    assert_status(from("[2001:db9::7]:4711".parse().unwrap()).await, "/", &[], "", 403).await;
}

#[tokio::test]
async fn basic_auth() {
    // Of `hunter2`, made with argon2-cffi of Python.
    let hash = "$argon2id$v=19$m=64,t=1,p=1$DjA2W7z6q1McXH6VNTyifw$GBAmlrc3lOCQhvsKvhlRzACM7SDDVv33vqcSD3o5Fj4";
    let guard = RequireAuthLayer::new(BasicAuth::of_users([("ci", hash), ("cj", "plain")]).unwrap());
    let service =
        ServiceBuilder::new().layer(guard.call_auth_follows()).layer(CallAuthLayer::new()).service(service_fn(ok));
    let address = serve(service).await;
    for right in ["Basic Y2k6aHVudGVyMg==", "Basic Y2o6cGxhaW4="] {
        assert_status(address, "/", &[("authorization", right)], "", 200).await;
    }
    for wrong in ["Basic Y2k6cGxhaW4=", "Basic Y2o6aHVudGVyMg==", "Basic eHg6aHVudGVyMg==", "Basic Y2k6aHVudGVyMg"] {
        assert_status(address, "/", &[("authorization", wrong)], "", 401).await;
    }
    assert_status(address, "/", &[], "", 401).await;
}

#[tokio::test]
async fn any_of_them() {
    let schemes = AnyOf::of(Bearer::new("a token").unwrap())
        .and(HeaderAuth::new("x-sender", "cron").unwrap())
        .or(HeaderAuth::new("x-api-key", "a key").unwrap());
    let address = serve(ServiceBuilder::new().layer(RequireAuthLayer::any_of(schemes)).service(service_fn(ok))).await;
    let (token, sender, key) = (("authorization", "Bearer a token"), ("x-sender", "cron"), ("x-api-key", "a key"));
    for headers in [&[token, sender][..], &[key], &[token, key], &[token, sender, key]] {
        assert_status(address, "/", headers, "", 200).await;
    }
    for headers in [&[][..], &[token], &[sender], &[("x-api-key", "another"), token]] {
        assert_status(address, "/", headers, "", 401).await;
    }
}
