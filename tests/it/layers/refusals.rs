//! A refusal is an answer, and the request does not reach the inner service.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_test::mock::spawn_layer;
use tower_webhook::RejectionKind;
use tower_webhook::RejectionKind::*;
use tower_webhook::auth::Bearer;
use tower_webhook::config::DataType;
use tower_webhook::layers::{
    CallAuthLayer, CheckPayloadLayer, CollectBodyLayer, LookupWebhookLayer, ProblemJsonLayer, RequireAuthLayer,
    RequirePostLayer, RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;
use tower_webhook::{OnInvalid, Registry};

use super::contract::Inner;
use crate::support::driven::Driver;
use crate::support::schemes::{Call, Checksum, Forgetful, ForgetfulCall};
use crate::support::{Answer, routed, store, within};

fn request(path: &str) -> Request<Collected> {
    Request::post(path).body(Collected::new(Bytes::from_static(b"{}"))).unwrap()
}

fn with_body(body: &'static [u8]) -> Request<Collected> {
    Request::post("/").body(Collected::new(Bytes::from_static(body))).unwrap()
}

fn with_header(name: &'static str, value: &'static str) -> Request<Collected> {
    let mut request = with_body(b"{}");
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

fn with_target(namespace: &str, id: &str) -> Request<Collected> {
    routed(request("/anything"), namespace, id)
}

async fn refused<L, B>(layer: L, request: Request<Collected>, kind: RejectionKind) -> Answer
where
    L: Layer<Inner>,
    L::Service: Service<Request<Collected>, Response = Response<B>, Error = BoxError>,
    B: Body<Error: std::fmt::Debug>,
{
    let shown = format!("{request:?}");
    let (mut service, mut handle) = spawn_layer(layer);
    assert!(service.poll_ready().is_ready());
    let answer = Answer::of(within("a refusal", service.call(request)).await.unwrap()).await;
    assert_eq!(answer.rejection, Some(kind), "{shown}");
    assert_eq!(answer.status, kind.status());
    assert!(handle.poll_request().is_pending(), "the inner got a refused request: {shown}");
    answer
}

#[tokio::test]
async fn route_namespace_refuses_other_paths() {
    for path in ["/", "/a/", "/a/b/c", "//a", "/a//b", "*"] {
        refused(RouteNamespaceLayer::from_path(), request(path), NoRoute).await;
    }
    for path in ["/..", "/a%2Fb", "/a/%00", "/-a", "/a/health", &format!("/{}", "a".repeat(65))] {
        refused(RouteNamespaceLayer::from_path(), request(path), InvalidName).await;
    }
    refused(RouteNamespaceLayer::from_path().prefix("/hooks"), request("/shop/a"), NoRoute).await;
    let own = RouteNamespaceLayer::from_fn(|_| Err(UnknownWebhook.into()));
    refused(own, request("/shop/a"), UnknownWebhook).await;
}

#[tokio::test]
async fn lookup_webhook_refuses_unknown_webhooks() {
    let layer = LookupWebhookLayer::new(store().await);
    refused(layer.clone(), with_target("shop", "nothing"), UnknownWebhook).await;
    refused(layer.clone(), with_target("nowhere", "open"), UnknownWebhook).await;
    refused(layer.clone(), with_target("shop", "broken"), Misconfigured).await;
    refused(layer.clone(), request("/shop/open"), Misassembled).await;
}

#[tokio::test]
async fn require_post_refuses_every_other_method() {
    for method in ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "BREW", "post"] {
        let mut request = request("/anything");
        *request.method_mut() = method.parse().unwrap();
        let answer = refused(RequirePostLayer::new(), request, MethodNotAllowed).await;
        assert_eq!(answer.header("allow"), "POST");
    }
}

#[tokio::test]
async fn lookup_webhook_refuses_while_nothing_is_loaded() {
    let driver = Driver::new(Registry::builtin(), OnInvalid::Keep);
    let answer = refused(LookupWebhookLayer::new(driver.store.clone()), with_target("shop", "open"), NotReady).await;
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn require_auth_refuses_without_the_right_credential() {
    let layer = RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap());
    let answer = refused(layer.clone(), request("/"), Unauthenticated).await;
    assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="webhook""#);
    for value in ["Bearer wrong", "Bearer ", "Basic s3cret-token", "s3cret-token", "Bearer s3cret-token,"] {
        refused(layer.clone(), with_header("authorization", value), Unauthenticated).await;
    }
    let mut twice = with_header("authorization", "Bearer s3cret-token");
    twice.headers_mut().append("authorization", "Bearer s3cret-token".parse().unwrap());
    refused(layer, twice, Unauthenticated).await;
    refused(RequireAuthLayer::from_webhook(), request("/"), Misassembled).await;
    // Without `verify_body_follows` it must assume that no `VerifyBody` follows.
    let unverified = RequireAuthLayer::new(Checksum::new(7));
    refused(unverified, with_header("x-checksum", "1"), Misassembled).await;
}

#[tokio::test]
async fn verify_body_refuses_an_unproved_request() {
    refused(VerifyBodyLayer::new(), request("/"), Misassembled).await;
    let layer = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Checksum::new(7)).verify_body_follows())
        .layer(VerifyBodyLayer::new())
        .into_inner();
    let answer = refused(layer.clone(), with_header("x-checksum", "1"), Unauthenticated).await;
    assert_eq!(answer.header("www-authenticate"), "Checksum");
    refused(layer, request("/"), Unauthenticated).await;
    let forgetful = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Forgetful).verify_body_follows())
        .layer(VerifyBodyLayer::new())
        .into_inner();
    refused(forgetful, request("/"), Unauthenticated).await;
}

fn call_auth(scheme: impl tower_webhook::auth::Scheme) -> tower::layer::util::Stack<CallAuthLayer, RequireAuthLayer> {
    let require = RequireAuthLayer::new(scheme).call_auth_follows();
    tower::layer::util::Stack::new(CallAuthLayer::new(), require)
}

#[tokio::test(start_paused = true)]
async fn call_auth_refuses_an_unconfirmed_request() {
    let wrong = refused(call_auth(Call), with_header("x-call", "wrong"), Unauthenticated).await;
    assert_eq!(wrong.header("www-authenticate"), "Call");
    refused(call_auth(Call), request("/"), Unauthenticated).await;
    refused(call_auth(Call), with_header("x-call", "again"), Unauthenticated).await;
    refused(call_auth(ForgetfulCall), request("/"), Unauthenticated).await;
    let forbidden = refused(call_auth(Call), with_header("x-call", "forbidden"), Forbidden).await;
    assert!(!forbidden.headers.contains_key("www-authenticate"));
    let away = refused(call_auth(Call), with_header("x-call", "away"), AuthUnavailable).await;
    assert_eq!(away.header("retry-after"), "5");
}

#[tokio::test(start_paused = true)]
async fn call_auth_refuses_at_its_deadline() {
    let begin = tokio::time::Instant::now();
    let slow = refused(call_auth(Call), with_header("x-call", "never"), AuthUnavailable).await;
    assert_eq!(slow.header("retry-after"), "5");
    assert_eq!(begin.elapsed().as_secs(), CallAuthLayer::DEFAULT_DEADLINE.as_secs());
}

#[tokio::test]
async fn call_auth_refuses_a_request_that_no_guard_has_checked() {
    refused(CallAuthLayer::new(), request("/"), Misassembled).await;
    // Without `call_auth_follows`.
    refused(RequireAuthLayer::new(Call), with_header("x-call", "right"), Misassembled).await;
    let without_verify_body = with_header("x-call", "body");
    refused(call_auth(Call), without_verify_body, Misassembled).await;
    let too_late = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Call).call_auth_follows().verify_body_follows())
        .layer(VerifyBodyLayer::new())
        .layer(CallAuthLayer::new())
        .into_inner();
    refused(too_late, with_header("x-call", "right"), Misassembled).await;
}

#[tokio::test]
async fn call_auth_leaves_the_body_to_verify_body() {
    let layer = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Call).call_auth_follows().verify_body_follows())
        .layer(CallAuthLayer::new())
        .layer(VerifyBodyLayer::new())
        .into_inner();
    let request = |checksum: u64| {
        let mut request = with_header("x-call", "body");
        request.headers_mut().insert("x-checksum", Checksum::sign(checksum, b"{}").parse().unwrap());
        request
    };
    refused(layer.clone(), request(8), Unauthenticated).await;
    let (mut service, mut handle) = spawn_layer(layer);
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(request(7)));
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_response(Response::<ResponseBody>::default());
    assert_eq!(within("the answer", answer).await.unwrap().unwrap().status(), 200);
}

/// A request whose call hangs occupies a permit; one whose sender has gone does not.
#[tokio::test(start_paused = true)]
async fn call_auth_refuses_more_calls_than_it_may_make() {
    let layer = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Call).call_auth_follows())
        .layer(CallAuthLayer::new().max_calls(1))
        .into_inner();
    let (mut service, mut handle) = spawn_layer::<_, Response<ResponseBody>, _>(layer);
    let mut hanging = Vec::new();
    // Requests without a webhook share four permits.
    for _ in 0..4 {
        assert!(service.poll_ready().is_ready());
        hanging.push(tokio::spawn(service.call(with_header("x-call", "never"))));
        tokio::task::yield_now().await;
    }
    assert!(service.poll_ready().is_ready());
    let begin = tokio::time::Instant::now();
    let refused = within("a refusal", service.call(with_header("x-call", "right"))).await.unwrap();
    assert_eq!((refused.status().as_u16(), begin.elapsed().as_secs()), (503, 0));

    hanging.pop().unwrap().abort();
    tokio::task::yield_now().await;
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(with_header("x-call", "right")));
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_response(Response::default());
    assert_eq!(within("the answer", answer).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn check_payload_refuses_a_body_that_is_not_json() {
    let layer = CheckPayloadLayer::new(DataType::Json);
    for body in [&b""[..], b" ", b"{", b"{} {}", b"\"\xff\"", b"a=b", b"\xef\xbb\xbf{}"] {
        refused(layer, with_body(body), MalformedPayload).await;
    }
    for value in ["gzip", "br", "identity, gzip", "x"] {
        refused(layer, with_header("content-encoding", value), UnsupportedEncoding).await;
    }
    refused(CheckPayloadLayer::from_webhook(), with_body(b"{}"), Misassembled).await;
}

#[tokio::test]
async fn check_payload_refuses_what_is_no_form() {
    let layer = CheckPayloadLayer::new(DataType::Form);
    let form = |body: &'static [u8]| {
        let mut request = with_body(body);
        request.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        request
    };
    for body in [&b"a=%"[..], b"a=%zz", b"a=%ff", b"\xff=1", "a=1&".repeat(1001).leak().as_bytes()] {
        refused(layer, form(body), MalformedPayload).await;
    }
    refused(layer, with_body(b"a=1"), UnexpectedContentType).await;
    for wrong in ["application/json", "multipart/form-data; boundary=a", "application/x-www-form-urlencoded2", ""] {
        let mut request = form(b"a=1");
        request.headers_mut().insert("content-type", wrong.parse().unwrap());
        refused(layer, request, UnexpectedContentType).await;
    }
    let mut twice = form(b"a=1");
    twice.headers_mut().append("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    refused(layer, twice, UnexpectedContentType).await;
    let mut encoded = form(b"a=1");
    encoded.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    refused(layer, encoded, UnsupportedEncoding).await;
}

#[tokio::test]
async fn collect_body_refuses_a_body_that_is_too_large() {
    refused(CollectBodyLayer::new().max_bytes(1), with_body(b"{}"), BodyTooLarge).await;
}

#[tokio::test]
async fn problem_json_renders_the_refusals_of_the_layers_within() {
    let layer = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap()))
        .into_inner();
    let answer = refused(layer, request("/"), Unauthenticated).await;
    assert_eq!(answer.problem(401), "Unauthorized");
    assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="webhook""#);
}

#[tokio::test]
async fn a_refusal_has_no_body_of_its_own() {
    let answer = refused(CheckPayloadLayer::new(DataType::Json), with_body(b"{"), MalformedPayload).await;
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn a_refusal_leaves_the_inner_ready_for_the_next() {
    let (mut service, mut handle) =
        spawn_layer::<Request<Collected>, Response<ResponseBody>, _>(CheckPayloadLayer::new(DataType::Json));
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    assert_eq!(within("a refusal", service.call(with_body(b"{"))).await.unwrap().status(), 400);
    assert!(service.poll_ready().is_ready(), "the inner's readiness was not used up");
    let answer = tokio::spawn(service.call(with_body(b"{}")));
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_response(Response::default());
    assert_eq!(within("the answer", answer).await.unwrap().unwrap().status(), 200);
}
