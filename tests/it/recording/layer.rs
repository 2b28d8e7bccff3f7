//! The layer in an application of one's own.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::post;
use tower::{Layer, ServiceBuilder};
use tower_webhook::history::{Body, Outcome};
use tower_webhook::layers::{
    CollectBodyLayer, LookupWebhookLayer, ProblemJsonLayer, RecordHistoryLayer, RequireAuthLayer, RouteNamespaceLayer,
};

use crate::support::history::InMemory;
use crate::support::{ask, store};

/// A handler of axum behind the guards of the webhook `shop/guarded`.
async fn app(memory: &InMemory, status: StatusCode) -> Router {
    let layers = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RouteNamespaceLayer::fixed("shop", "guarded").unwrap())
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RecordHistoryLayer::new(memory.history()))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new());
    Router::new().route("/orders", post(move |body: String| async move { (status, body) }).layer(layers))
}

#[tokio::test]
async fn a_handler_of_axum_is_reported_with_the_guards_before_it() {
    let memory = InMemory::default();
    let app = app(&memory, StatusCode::ACCEPTED).await;
    let answer = ask(&app, crate::support::post("/orders", "hello")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (202, "hello"));
    let received = memory.only();
    assert_eq!((received.outcome, received.status.as_u16()), (Outcome::Delivered, 202), "the handler has the event");
    assert_eq!(received.body, Body::Whole("hello".into()));
    assert_eq!(&*received.path, "/orders");
    assert_eq!(received.steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["guards", "body", "handler"]);
}

#[tokio::test]
async fn an_error_of_the_handler_is_reported_as_failed() {
    let memory = InMemory::default();
    let app = app(&memory, StatusCode::IM_A_TEAPOT).await;
    assert_eq!(ask(&app, crate::support::post("/orders", "hello")).await.status, 418);
    assert_eq!((memory.only().outcome, memory.only().kind), (Outcome::Failed, None));
}

#[tokio::test]
async fn a_refusal_is_reported_too() {
    let memory = InMemory::default();
    let app = app(&memory, StatusCode::OK).await;
    let request = Request::post("/orders").body(axum::body::Body::from("hello")).unwrap();
    assert_eq!(ask(&app, request).await.status, 401);
    assert_eq!((memory.only().outcome, memory.only().kind), (Outcome::Refused, Some("unauthenticated")));
    assert_eq!(memory.only().reason.as_deref(), Some("`authorization`: missing"));
}

#[tokio::test]
async fn a_history_without_room_is_told_nothing_and_the_request_is_served() {
    let memory = InMemory::default();
    let app = app(&memory, StatusCode::OK).await;
    for (is_full, count) in [(true, 0), (false, 1), (true, 1)] {
        memory.is_full(is_full);
        let answer = ask(&app, crate::support::post("/orders", "hello")).await;
        assert_eq!((answer.status.as_u16(), memory.count()), (200, count));
    }
}

#[tokio::test]
async fn a_request_is_reported_once_although_the_layer_is_there_twice() {
    let memory = InMemory::default();
    let record = RecordHistoryLayer::new(memory.history());
    let app = record.layer(record.layer(tower_webhook::layers::Dispatch::new()));
    let app = LookupWebhookLayer::new(store().await).layer(app);
    let app = CollectBodyLayer::new().layer(RouteNamespaceLayer::fixed("shop", "open").unwrap().layer(app));
    assert_eq!(ask(&app, crate::support::post("/", "{}")).await.status, 500, "there is no guard");
    assert_eq!((memory.only().outcome, memory.only().kind), (Outcome::Refused, Some("misassembled")));
}

#[tokio::test]
async fn a_stack_without_a_lookup_is_refused() {
    let memory = InMemory::default();
    let app = RecordHistoryLayer::new(memory.history()).layer(tower_webhook::layers::Dispatch::new());
    let app = CollectBodyLayer::new().layer(app);
    assert_eq!(ask(&app, crate::support::post("/", "{}")).await.status, 500);
    assert_eq!(memory.count(), 0);
}

/// A request that is routed to another webhook behind the layer: what is found out about that one is not reported as of
/// the first.
#[tokio::test]
async fn a_request_that_is_routed_elsewhere_is_not_followed_there() {
    let memory = InMemory::default();
    let store = store().await;
    let inner = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "guarded").unwrap())
        .layer(LookupWebhookLayer::new(store.clone()))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new())
        .layer(tower_webhook::layers::CheckPayloadLayer::from_webhook())
        .service(tower_webhook::layers::Dispatch::new());
    let app = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "open").unwrap())
        .layer(LookupWebhookLayer::new(store))
        .layer(RecordHistoryLayer::new(memory.history()))
        .service(inner);
    ask(&app, crate::support::post("/", "{}")).await.assert_accepted();
    let received = memory.only();
    assert_eq!((received.webhook.to_string(), received.outcome), ("shop/open".to_owned(), Outcome::Delivered));
    assert_eq!((received.headers.len(), received.steps.len(), memory.attempts().len()), (0, 1, 0));
}
