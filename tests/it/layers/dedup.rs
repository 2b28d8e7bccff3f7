//! `Dedup` with a rule: the requests that reach the inner service, and the fate of each claim.

use std::convert::Infallible;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_test::mock::{Handle, Spawn, spawn_layer};
use tower_webhook::RejectionKind;
use tower_webhook::dedup::{Claims, DedupRule};
use tower_webhook::event::Receipt;
use tower_webhook::layers::{Dedup, DedupLayer};
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;

use super::contract::Inner;
use crate::support::{Answer, within};

fn layer() -> DedupLayer {
    DedupLayer::new(Claims::in_memory()).rule("test", DedupRule::header("x-id").unwrap())
}

fn event(id: &str) -> Request<Collected> {
    Request::post("/").header("x-id", id).body(Collected::new(Bytes::from_static(b"{}"))).unwrap()
}

fn spawn() -> (Spawn<Dedup<Inner>>, Handle<Request<Collected>, Response<ResponseBody>>) {
    spawn_layer(layer())
}

/// The answer of the layer to a request that must not reach the inner service.
async fn unasked(service: &mut Spawn<Dedup<Inner>>, request: Request<Collected>) -> Answer {
    assert!(service.poll_ready().is_ready());
    Answer::of(within("an answer", service.call(request)).await.unwrap()).await
}

#[tokio::test]
async fn the_service_that_was_ready_is_called_and_a_duplicate_does_not_use_it_up() {
    let (mut service, mut handle) = spawn();
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(2);
    for id in ["1", "2"] {
        assert!(service.poll_ready().is_ready());
        let first = tokio::spawn(service.call(event(id)));
        let (request, respond) = within("the request", handle.next_request()).await.unwrap();
        assert_eq!(request.headers()["x-id"], id);
        assert_eq!(request.body().bytes(), "{}");
        if id == "1" {
            // The inner service's only free place stays free for the next request.
            let refused = unasked(&mut service, event(id)).await;
            assert_eq!(refused.rejection, Some(RejectionKind::InProgress));
            assert_eq!(unasked(&mut service, Request::default()).await.rejection, Some(RejectionKind::MissingEventId));
        }
        respond.send_response(Response::builder().header("x-a", "b").body(ResponseBody::default()).unwrap());
        let answer = within("the answer", first).await.unwrap().unwrap();
        let names: Vec<_> = answer.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!((names, &answer.headers()["x-a"]), (vec!["x-a", "x-event-id"], &"b".parse().unwrap()));
    }
    assert!(handle.poll_request().is_pending());
}

#[tokio::test]
async fn a_duplicate_gets_the_first_status_and_event_id_and_no_body() {
    const ID: &str = "01936b2e-7c4f-7d53-9f3e-2f6a52b1c0de";
    for (status, event_id) in [(200, Some(ID)), (201, None), (202, Some(ID)), (204, None)] {
        let (mut service, mut handle) = spawn();
        assert!(service.poll_ready().is_ready());
        let first = tokio::spawn(service.call(event("1")));
        let mut answer = Response::builder().status(status).header("x-other", "not kept");
        if let Some(id) = event_id {
            answer = answer.header("x-event-id", id);
        }
        let (_, respond) = within("the request", handle.next_request()).await.unwrap();
        respond.send_response(answer.body(ResponseBody::from(Bytes::from_static(b"own words"))).unwrap());
        let first = Answer::of(within("the answer", first).await.unwrap().unwrap()).await;
        assert_eq!(first.text(), "own words");
        assert!(event_id.is_none_or(|id| id == first.header("x-event-id")), "{first:?}");

        let again = unasked(&mut service, event("1")).await;
        assert_eq!((again.status.as_u16(), again.text()), (status, ""));
        assert_eq!(again.header("x-duplicate"), "true");
        assert_eq!(again.header("x-event-id"), first.header("x-event-id"));
        assert_eq!(again.headers.len(), 2, "{again:?}");
    }
}

#[tokio::test]
async fn the_application_renders_the_answer_to_a_duplicate() {
    fn render(receipt: &Receipt) -> Response<Bytes> {
        let words = format!("{} {}", receipt.status(), receipt.event_id().unwrap());
        // The layer sets the status and its own headers.
        let forged = Response::builder().status(500).header("x-duplicate", "no").header("x-event-id", "none");
        forged.header("x-rendered", "1").body(words.into()).unwrap()
    }
    for (status, body) in [(201, "201 Created "), (204, "")] {
        let (mut service, mut handle) = spawn_layer(layer().answer_duplicates(render));
        assert!(service.poll_ready().is_ready());
        let first = tokio::spawn(service.call(event("1")));
        let (_, respond) = within("the request", handle.next_request()).await.unwrap();
        respond.send_response(Response::builder().status(status).body(ResponseBody::default()).unwrap());
        let id = within("the answer", first).await.unwrap().unwrap().headers()["x-event-id"].clone();
        let id = id.to_str().unwrap();

        let again = unasked(&mut service, event("1")).await;
        let has_body = !body.is_empty();
        assert_eq!(again.status.as_u16(), status);
        assert_eq!(again.text(), if has_body { format!("{body}{id}") } else { String::new() });
        assert_eq!((again.header("x-duplicate"), again.header("x-event-id")), ("true", id));
        assert_eq!(again.headers.contains_key("x-rendered"), has_body);
    }
}

#[tokio::test]
async fn an_event_id_that_is_no_uuid_is_not_kept() {
    let (mut service, mut handle) = spawn();
    assert!(service.poll_ready().is_ready());
    let first = tokio::spawn(service.call(event("1")));
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_response(Response::builder().header("x-event-id", "order-7").body(ResponseBody::default()).unwrap());
    assert_eq!(within("the answer", first).await.unwrap().unwrap().headers()["x-event-id"], "order-7");
    assert!(!unasked(&mut service, event("1")).await.headers.contains_key("x-event-id"));
}

#[tokio::test]
async fn anything_but_2xx_releases_the_event() {
    let (mut service, mut handle) = spawn();
    for status in [199, 300, 304, 400, 401, 404, 409, 429, 500, 503, 599] {
        assert!(service.poll_ready().is_ready());
        let answer = tokio::spawn(service.call(event("1")));
        let (_, respond) = within("the request", handle.next_request()).await.unwrap();
        respond.send_response(Response::builder().status(status).body(ResponseBody::default()).unwrap());
        assert_eq!(within("the answer", answer).await.unwrap().unwrap().status(), status);
    }
}

#[tokio::test]
async fn an_error_releases_the_event_and_passes_through() {
    let (mut service, mut handle) = spawn();
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(event("1")));
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    let claims_are_held = unasked(&mut service, event("1")).await;
    assert_eq!(claims_are_held.status, 409);
    respond.send_error("the inner broke");
    let error = within("the answer", answer).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the inner broke");
    assert!(service.poll_ready().is_ready());
    drop(service.call(event("1")));
    within("the request", handle.next_request()).await.unwrap();
}

#[tokio::test]
async fn a_future_that_is_dropped_releases_the_event() {
    let (mut service, mut handle) = spawn();
    for _ in 0..2 {
        assert!(service.poll_ready().is_ready());
        let answer = service.call(event("1"));
        within("the request", handle.next_request()).await.unwrap();
        drop(answer);
    }
}

#[tokio::test]
async fn a_panic_releases_the_event() {
    let claims = Claims::in_memory();
    let panics = service_fn(|request: Request<Collected>| {
        if request.uri().path() == "/at-once" {
            panic!("as it should, before there is a future");
        }
        std::future::poll_fn(|_| -> Poll<Result<Response<ResponseBody>, Infallible>> {
            panic!("as it should, while it runs")
        })
    });
    let layer = DedupLayer::new(claims.clone()).rule("test", DedupRule::header("x-id").unwrap());
    for path in ["/at-once", "/later"] {
        let mut service = layer.layer(panics);
        let mut request = event("1");
        *request.uri_mut() = path.parse().unwrap();
        let panicked = tokio::spawn(async move { service.call(request).await.map(|_| ()) });
        assert!(within("the panic", panicked).await.unwrap_err().is_panic());
        assert_eq!(claims.entries(), 0, "{path}");
    }
}
