//! Each layer, and the receiver, in an axum application.

mod guards;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Extension;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Router, body};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tower::{ServiceBuilder, service_fn};
use tower_webhook::Capabilities;
use tower_webhook::auth::Bearer;
use tower_webhook::config::{DataType, Target};
use tower_webhook::dedup::{Claims, DedupRule};
use tower_webhook::event::EventId;
use tower_webhook::layers::{
    CheckPayloadLayer, CollectBodyLayer, DedupLayer, Dispatch, FinishLayer, LookupWebhookLayer, ObserveLayer,
    ProblemJsonLayer, RequireAuthLayer, RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;
use tower_webhook::{Matched, Registry, RejectionKind, receiver};

use crate::support::body::{Script, Step};
use crate::support::schemes::Checksum;
use crate::support::{Answer, CREDENTIAL, ask, eventually, store, store_of, within};

async fn echo(body: Bytes) -> Bytes {
    body
}

fn request(path: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}

async fn send(app: &Router, path: &str, headers: &[(&str, &str)], body: &'static str) -> Answer {
    ask(app, request(path, headers, body)).await
}

const KNOWN: (&str, &str) = ("authorization", CREDENTIAL);

#[tokio::test]
async fn route_namespace_names_the_target() {
    let names = |req: Request<Body>| async move {
        let target = Target::of(req.extensions()).unwrap();
        format!("{}/{}", target.namespace(), target.id())
    };
    let app = Router::new()
        .route("/hooks/{namespace}/{id}", post(names))
        .layer(RouteNamespaceLayer::from_path().prefix("/hooks"))
        .route("/orders", post(names).layer(RouteNamespaceLayer::fixed("shop", "orders").unwrap()));
    assert_eq!(send(&app, "/hooks/a/b", &[], "").await.text(), "a/b");
    assert_eq!(send(&app, "/hooks/a/-b", &[], "").await.status, 400);
    assert_eq!(send(&app, "/orders", &[], "").await.text(), "shop/orders");
}

#[tokio::test]
async fn lookup_webhook_brings_the_configuration_to_the_handler() {
    let module = |Extension(matched): Extension<Matched>| async move { matched.webhook().module_name().to_owned() };
    let guard = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "open").unwrap())
        .layer(LookupWebhookLayer::new(store().await));
    let app = Router::new().route("/a", post(module).layer(guard)).route(
        "/b",
        // Without a route before it.
        post(module).layer(LookupWebhookLayer::new(store().await)),
    );
    assert_eq!(send(&app, "/a", &[], "").await.text(), "discard");
    // With any method that the route accepts.
    let guard = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "open").unwrap())
        .layer(LookupWebhookLayer::new(store().await));
    let any = Router::new().route("/a", axum::routing::any(module).layer(guard));
    for method in ["GET", "PUT", "BREW"] {
        let request = Request::builder().method(method).uri("/a").body(Body::empty()).unwrap();
        assert_eq!(ask(&any, request).await.text(), "discard", "{method}");
    }
    let answer = send(&app, "/b", &[], "").await;
    assert_eq!(
        (answer.status, answer.rejection),
        (StatusCode::INTERNAL_SERVER_ERROR, Some(RejectionKind::Misassembled))
    );
}

#[tokio::test]
async fn require_auth_guards_one_route_and_a_whole_router() {
    let guard = RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap());
    let one = Router::new().route("/guarded", post(echo).layer(guard.clone())).route("/open", post(echo));
    let whole = Router::new().route("/guarded", post(echo)).layer(guard);
    for app in [&one, &whole] {
        let answer = send(app, "/guarded", &[], "abc").await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="webhook""#);
        assert_eq!(send(app, "/guarded", &[KNOWN], "abc").await.text(), "abc");
    }
    assert_eq!(send(&one, "/open", &[], "abc").await.text(), "abc");
}

#[tokio::test]
async fn collect_body_bounds_what_a_handler_gets() {
    let app = Router::new().route("/", post(echo)).layer(CollectBodyLayer::new().max_bytes(3));
    assert_eq!(send(&app, "/", &[], "abc").await.text(), "abc");
    assert_eq!(send(&app, "/", &[], "").await.text(), "");
    assert_eq!(send(&app, "/", &[], "abcd").await.status, 413);
    let chunked = Body::new(Script::new([Step::data("ab"), Step::data("cd")]));
    assert_eq!(ask(&app, Request::post("/").body(chunked).unwrap()).await.status, 413);
    let broken = Body::new(Script::new([Step::data("ab"), Step::Fail]));
    assert_eq!(ask(&app, Request::post("/").body(broken).unwrap()).await.status, 400);
}

#[tokio::test]
async fn verify_body_stands_between_collect_body_and_a_handler() {
    let guard = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Checksum::new(7)).verify_body_follows())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new());
    let app = Router::new().route("/", post(echo).layer(guard));
    let right = Checksum::sign(7, b"abc");
    assert_eq!(send(&app, "/", &[("x-checksum", &right)], "abc").await.text(), "abc");
    assert_eq!(send(&app, "/", &[("x-checksum", &right)], "abd").await.status, 401);
    assert_eq!(send(&app, "/", &[], "abc").await.status, 401);
}

#[tokio::test]
async fn check_payload_stands_between_collect_body_and_a_handler() {
    let guard = ServiceBuilder::new().layer(CollectBodyLayer::new()).layer(CheckPayloadLayer::new(DataType::Json));
    let app = Router::new().route("/", post(echo)).layer(guard);
    assert_eq!(send(&app, "/", &[], "[1]").await.text(), "[1]");
    assert_eq!(send(&app, "/", &[], "[1").await.status, 400);
    assert_eq!(send(&app, "/", &[("content-encoding", "gzip")], "[1]").await.status, 415);
}

#[tokio::test]
async fn dedup_stands_between_collect_body_and_a_handler() {
    let rule = DedupRule::header("x-id").unwrap();
    let guard = ServiceBuilder::new()
        .layer(CollectBodyLayer::new())
        .layer(DedupLayer::new(Claims::in_memory()).rule("orders", rule));
    let app = Router::new().route("/", post(echo).layer(guard));
    assert_eq!(send(&app, "/", &[("x-id", "1")], "abc").await.text(), "abc");
    let answer = send(&app, "/", &[("x-id", "1")], "abc").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, ""));
    assert_eq!(answer.header("x-duplicate"), "true");
    assert_eq!(send(&app, "/", &[("x-id", "2")], "abc").await.text(), "abc");
    assert_eq!(send(&app, "/", &[], "abc").await.rejection, Some(RejectionKind::MissingEventId));
}

#[tokio::test]
async fn a_handler_behind_dedup_reads_the_id_of_the_event() {
    let handler = |request: axum::extract::Request| async move {
        let id = EventId::of(request.extensions()).unwrap();
        match request.headers().contains_key("x-own") {
            true => ([("x-event-id", "own")], id.to_string()).into_response(),
            false => id.to_string().into_response(),
        }
    };
    let webhooks = [("shop", "once", r#"{"module": "discard", "dedup": {"header": "x-id"}}"#)];
    let store = store_of(Registry::builtin().capable_of(Capabilities::none().deduplicating(true)), &webhooks).await;
    let stack = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "once").unwrap())
        .layer(LookupWebhookLayer::new(store))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new())
        .layer(CheckPayloadLayer::from_webhook())
        .layer(DedupLayer::new(Claims::in_memory()));
    let app = Router::new().route("/", post(handler).layer(stack));
    let first = send(&app, "/", &[("x-id", "1")], "{}").await;
    assert_eq!((first.text().len(), first.text()), (36, first.header("x-event-id")));
    let again = send(&app, "/", &[("x-id", "1")], "{}").await;
    assert_eq!((again.header("x-duplicate"), again.header("x-event-id")), ("true", first.text()));
    let own = send(&app, "/", &[("x-id", "2"), ("x-own", "1")], "{}").await;
    assert!(own.header("x-event-id") == "own" && own.text().len() == 36, "{own:?}");
    assert!(!send(&app, "/", &[], "{}").await.headers.contains_key("x-event-id"), "a refusal is not about an event");
    let bare = Router::new().route("/", post(handler_without_dedup));
    assert_eq!(send(&bare, "/", &[], "{}").await.text(), "Misassembled");
}

async fn handler_without_dedup(request: axum::extract::Request) -> String {
    format!("{:?}", EventId::of(request.extensions()).unwrap_err().kind())
}

#[tokio::test]
async fn finish_stands_between_collect_body_and_a_handler() {
    let finish = FinishLayer::new();
    let remainders = finish.remainders();
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let may_end = Arc::new(Semaphore::new(0));
    let handler = {
        let (begun, ended, may_end) = (Arc::clone(&begun), Arc::clone(&ended), Arc::clone(&may_end));
        async move |body: Bytes| {
            begun.fetch_add(1, Ordering::SeqCst);
            let _ = may_end.acquire().await.unwrap();
            ended.fetch_add(1, Ordering::SeqCst);
            body
        }
    };
    let rule = DedupRule::header("x-id").unwrap();
    let guard = ServiceBuilder::new()
        .layer(CollectBodyLayer::new())
        .layer(finish)
        .layer(DedupLayer::new(Claims::in_memory()).rule("orders", rule));
    let app = Router::new().route("/", post(handler).layer(guard));
    let first = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "/", &[("x-id", "1")], "abc").await }
    });
    eventually("the handler to begin", async || begun.load(Ordering::SeqCst) == 1).await;
    first.abort();
    eventually("the event to go on", async || remainders.count() == 1).await;
    let meanwhile = send(&app, "/", &[("x-id", "1")], "abc").await;
    assert_eq!(meanwhile.rejection, Some(RejectionKind::InProgress));
    may_end.add_permits(1);
    within("its end", remainders.ended()).await;
    assert_eq!((begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(send(&app, "/", &[("x-id", "1")], "abc").await.header("x-duplicate"), "true");
    assert_eq!(send(&app, "/", &[("x-id", "2")], "abc").await.text(), "abc");
}

#[tokio::test]
async fn observe_changes_nothing() {
    let app = Router::new().route("/", post(echo)).layer(ObserveLayer::new());
    assert_eq!(send(&app, "/", &[], "abc").await.text(), "abc");
}

#[tokio::test]
async fn problem_json_renders_what_the_layers_within_refuse() {
    // The handler's own answers are not changed.
    let teapot = || async { (StatusCode::IM_A_TEAPOT, "short and stout") };
    let guard = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap()));
    let app = Router::new().route("/", post(teapot).layer::<_, std::convert::Infallible>(guard));
    assert_eq!(send(&app, "/", &[], "").await.problem(401), "Unauthorized");
    let answer = send(&app, "/", &[KNOWN], "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (418, "short and stout"));
}

#[tokio::test]
async fn dispatch_is_a_service_behind_a_users_own_stack() {
    let stack = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new())
        .layer(CheckPayloadLayer::from_webhook())
        .service(Dispatch::new());
    let app = Router::new().nest_service("/in", stack);
    send(&app, "/in/shop/guarded", &[KNOWN], "{}").await.assert_accepted();
    assert_eq!(send(&app, "/in/shop/guarded", &[], "{}").await.status, 401);
}

#[tokio::test]
async fn a_handler_reads_the_webhook_and_the_body_behind_a_whole_stack() {
    let handler = |Extension(matched): Extension<Matched>, body: Bytes| async move {
        format!("{} got {}", matched.webhook().key(), String::from_utf8_lossy(&body))
    };
    let stack = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "guarded").unwrap())
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RequireAuthLayer::from_webhook().verify_body_follows())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new())
        .layer(CheckPayloadLayer::from_webhook());
    let app = Router::new().route("/orders", post(handler).layer(stack));
    assert_eq!(send(&app, "/orders", &[KNOWN], "[1]").await.text(), "shop/guarded got [1]");
    assert_eq!(send(&app, "/orders", &[KNOWN], "[1").await.status, 400);
    assert_eq!(send(&app, "/orders", &[], "[1").await.status, 401);
}

#[tokio::test]
async fn a_service_of_ones_own_takes_the_collected_bytes_themselves() {
    let own = service_fn(|request: Request<Collected>| async move {
        let matched = Matched::of(request.extensions()).unwrap();
        let text = format!("{} got {:?}", matched.webhook().id(), request.body().bytes());
        Ok::<_, std::convert::Infallible>(axum::response::Response::new(Body::from(text)))
    });
    let stack = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new())
        .service(own);
    let app = Router::new().nest_service("/in", stack);
    assert_eq!(send(&app, "/in/shop/open", &[], "abc").await.text(), r#"open got b"abc""#);
}

#[tokio::test]
async fn the_receiver_is_mounted_below_a_path() {
    let app = Router::new().nest_service("/webhook", receiver(store().await));
    send(&app, "/webhook/shop/guarded", &[KNOWN], "{}").await.assert_accepted();
    assert_eq!(send(&app, "/webhook/shop/guarded", &[], "{}").await.problem(401), "Unauthorized");
    assert_eq!(send(&app, "/webhook/shop/nothing", &[], "{}").await.problem(404), "Webhook ID not found");
    for path in ["/webhook", "/webhook/", "/webhook/a/b/c"] {
        assert_eq!(send(&app, path, &[KNOWN], "{}").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_receiver_is_a_route_of_its_own_and_a_fallback() {
    let store = store().await;
    let receiver = tower_webhook::Receiver::of_store(store).prefix("/v1").build();
    let app = Router::new().route_service("/v1/shop/{id}", receiver.clone()).fallback_service(receiver);
    send(&app, "/v1/shop/open", &[], "{}").await.assert_accepted();
    assert_eq!(send(&app, "/v2/shop/open", &[], "{}").await.problem(404), "Not Found");
}

#[tokio::test]
async fn a_receiver_two_routers_deep_sees_the_innermost_path() {
    let inner = Router::new().nest_service("/hooks", receiver(store().await));
    let app = Router::new().nest("/api", inner);
    send(&app, "/api/hooks/shop/open", &[], "{}").await.assert_accepted();
}

#[tokio::test]
async fn axums_own_body_is_what_the_layers_take() {
    let app = Router::new().nest_service("/webhook", receiver(store().await));
    let chunked = Body::new(Script::new([Step::data("{"), Step::data("}")]));
    ask(&app, Request::post("/webhook/shop/open").body(chunked).unwrap()).await.assert_accepted();
    let empty = body::Body::empty();
    assert_eq!(ask(&app, Request::post("/webhook/shop/open").body(empty).unwrap()).await.status, 400);
}
