//! The contract of every layer with its inner service.

use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body::Body;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_test::mock::{Mock, spawn_layer};
use tower_webhook::auth::Bearer;
use tower_webhook::config::DataType;
use tower_webhook::dedup::Claims;
use tower_webhook::handshake::Handshake;
use tower_webhook::layers::{
    CallAuthLayer, ChallengeLayer, CheckPayloadLayer, CollectBodyLayer, DedupLayer, FinishLayer, HandshakeLayer,
    LookupWebhookLayer, ObserveLayer, ProblemJsonLayer, RecordHistoryLayer, RequireAuthLayer, RequirePostLayer,
    RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;

use crate::support::history::InMemory;
use crate::support::schemes::{Call, Checksum, HeaderKey};
use crate::support::{CREDENTIAL, routed, store, target, within};

pub(super) type Inner = Mock<Request<Collected>, Response<ResponseBody>>;

/// An extension that an application's own layer adds to a request.
#[derive(Clone, Debug, PartialEq)]
struct Mark(u8);

/// A request that every layer lets through.
fn good() -> Request<Collected> {
    let request = Request::post("http://example.org/shop/guarded?a=1&a=%32#x")
        .version(Version::HTTP_2)
        .header("authorization", CREDENTIAL)
        .header("x-key", "k")
        .header("x-call", "right")
        .header("x-checksum", Checksum::sign(7, b" {\"a\": 1}\n"))
        .header("x-twice", "1")
        .header("x-twice", "2")
        .extension(Mark(7))
        .body(Collected::new(Bytes::from_static(b" {\"a\": 1}\n")))
        .unwrap();
    routed(request, "shop", "guarded")
}

async fn readiness_is_that_of_the_inner_service<L>(layer: L)
where
    L: Layer<Inner>,
    L::Service: Service<Request<Collected>, Error = BoxError>,
{
    let (mut service, mut handle) = spawn_layer(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending(), "the inner is not ready");
    handle.allow(1);
    assert!(service.is_woken(), "a task that waits for the inner service is woken");
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))), "the inner is ready");

    handle.send_error("the inner broke");
    match service.poll_ready() {
        Poll::Ready(Err(error)) => assert_eq!(error.to_string(), "the inner broke"),
        other => panic!("{other:?}"),
    }
}

async fn the_request_arrives_unchanged<L, B>(layer: L)
where
    L: Layer<Inner>,
    L::Service: Service<Request<Collected>, Response = Response<B>, Error = BoxError>,
    B: Body<Error: std::fmt::Debug> + Send + 'static,
    <L::Service as Service<Request<Collected>>>::Future: Send + 'static,
{
    let (mut service, mut handle) = spawn_layer(layer);
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(good()));
    let (request, respond) = within("the request", handle.next_request()).await.unwrap();

    let expected = good();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), expected.uri());
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers(), expected.headers());
    assert_eq!(request.body().bytes(), expected.body().bytes());
    assert_eq!(request.extensions().get(), Some(&Mark(7)));

    // The answer is passed on unchanged too.
    let answer_of_inner = Response::builder().status(418).header("x-a", "b");
    respond.send_response(answer_of_inner.body(ResponseBody::from(Bytes::from_static(b"short and stout"))).unwrap());
    let answer = within("the answer", answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 418);
    let names: Vec<_> = answer.headers().keys().map(|name| name.as_str()).collect();
    // `Dedup` adds the event's id.
    assert!(names == ["x-a"] || names == ["x-a", "x-event-id"], "{names:?}");
    assert_eq!(answer.headers()["x-a"], "b");
    assert_eq!(crate::support::Answer::of(answer).await.body, "short and stout");
}

async fn an_error_passes_through<L, B>(layer: L)
where
    L: Layer<Inner>,
    L::Service: Service<Request<Collected>, Response = Response<B>, Error = BoxError>,
    B: Body<Error: std::fmt::Debug> + Send + 'static,
    <L::Service as Service<Request<Collected>>>::Future: Send + 'static,
{
    let (mut service, mut handle) = spawn_layer(layer);
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(good()));
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_error("the inner broke");
    let error = within("the answer", answer).await.unwrap().map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the inner broke");
}

/// The mock panics unless the service that was polled ready is the one that is called.
async fn the_service_that_was_ready_is_called<L, B>(layer: L)
where
    L: Layer<Inner>,
    L::Service: Service<Request<Collected>, Response = Response<B>, Error = BoxError>,
    B: Body<Error: std::fmt::Debug> + Send + 'static,
    <L::Service as Service<Request<Collected>>>::Future: Send + 'static,
{
    let (mut service, mut handle) = spawn_layer(layer);
    for _ in 0..3 {
        assert!(service.poll_ready().is_ready());
        let answer = tokio::spawn(service.call(good()));
        let (_, respond) = within("the request", handle.next_request()).await.unwrap();
        respond.send_response(Response::default());
        within("the answer", answer).await.unwrap().unwrap();
    }
}

macro_rules! every_layer_keeps_the_contract {
    ($($name:ident: $layer:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn readiness_is_that_of_the_inner_service() {
                super::readiness_is_that_of_the_inner_service($layer).await;
            }

            #[tokio::test]
            async fn the_request_arrives_unchanged() {
                super::the_request_arrives_unchanged($layer).await;
            }

            #[tokio::test]
            async fn an_error_passes_through() {
                super::an_error_passes_through($layer).await;
            }

            #[tokio::test]
            async fn the_service_that_was_ready_is_called() {
                super::the_service_that_was_ready_is_called($layer).await;
            }
        }
    )*};
}

every_layer_keeps_the_contract! {
    route_namespace: RouteNamespaceLayer::from_path();
    route_namespace_fixed: RouteNamespaceLayer::fixed("shop", "guarded").unwrap();
    route_namespace_from_fn: RouteNamespaceLayer::from_fn(|_| Ok(target("shop", "guarded")));
    require_post: RequirePostLayer::new();
    lookup_webhook: LookupWebhookLayer::new(store().await);
    handshake: HandshakeLayer::new(Handshake::named("dropbox").unwrap());
    challenge: ChallengeLayer::new(Handshake::named("slack").unwrap());
    require_auth: RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap());
    require_auth_that_needs_the_body: RequireAuthLayer::new(Checksum::new(7)).verify_body_follows();
    require_auth_from_webhook: ServiceBuilder::new()
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RequireAuthLayer::from_webhook())
        .into_inner();
    call_auth: ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Call).call_auth_follows())
        .layer(CallAuthLayer::new())
        .into_inner();
    call_auth_that_has_nothing_to_do: ServiceBuilder::new()
        .layer(RequireAuthLayer::new(HeaderKey::new("k")))
        .layer(CallAuthLayer::new())
        .into_inner();
    collect_body: CollectBodyLayer::new();
    verify_body: ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Checksum::new(7)).verify_body_follows())
        .layer(VerifyBodyLayer::new())
        .into_inner();
    verify_body_that_has_nothing_to_do: ServiceBuilder::new()
        .layer(RequireAuthLayer::new(HeaderKey::new("k")))
        .layer(VerifyBodyLayer::new())
        .into_inner();
    check_payload: CheckPayloadLayer::new(DataType::Json);
    check_payload_of_any_bytes: CheckPayloadLayer::new(DataType::Blob);
    check_payload_from_webhook: ServiceBuilder::new()
        .layer(LookupWebhookLayer::new(store().await))
        .layer(CheckPayloadLayer::from_webhook())
        .into_inner();
    dedup_without_a_rule: ServiceBuilder::new()
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RequireAuthLayer::from_webhook())
        .layer(DedupLayer::new(Claims::in_memory()))
        .into_inner();
    finish: FinishLayer::new();
    record_history: ServiceBuilder::new()
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RecordHistoryLayer::new(InMemory::default().history()))
        .into_inner();
    observe: ObserveLayer::new();
    problem_json: ProblemJsonLayer::new();
}

/// A wrong layer, which calls a clone of the service that was polled ready.
#[derive(Clone)]
struct CallsAClone(Inner);

impl Service<Request<Collected>> for CallsAClone {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = <Inner as Service<Request<Collected>>>::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Collected>) -> Self::Future {
        self.0.clone().call(request)
    }
}

#[tokio::test]
#[should_panic(expected = "service not ready; poll_ready must be called first")]
async fn a_layer_that_broke_the_contract_would_be_found() {
    the_service_that_was_ready_is_called(tower::layer::layer_fn(CallsAClone)).await;
}
