//! `CollectBody` with bodies of every kind. The clock is paused unless a body waits.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use tokio::time::Instant;
use tower::Service;
use tower_test::mock::{Handle, Spawn, spawn_layer};
use tower_webhook::RejectionKind;
use tower_webhook::RejectionKind::*;
use tower_webhook::layers::{CollectBody, CollectBodyLayer};
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;

use super::contract::Inner;
use crate::support::body::{Script, Step, Unread};
use crate::support::{Answer, within};

const DEADLINE: Duration = Duration::from_secs(5);

fn layer() -> CollectBodyLayer {
    CollectBodyLayer::new().max_bytes(10).deadline(DEADLINE)
}

fn spawn() -> (Spawn<CollectBody<Inner>>, Handle<Request<Collected>, Response<ResponseBody>>) {
    spawn_layer(layer())
}

/// The body that the inner service gets for `body`.
async fn collected<B>(body: B) -> Bytes
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    let (mut service, mut handle) = spawn();
    assert!(poll_ready::<B>(&mut service));
    let answer = tokio::spawn(service.call(Request::new(body)));
    let (request, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_response(Response::default());
    assert_eq!(within("the answer", answer).await.unwrap().unwrap().status(), 200);
    request.into_body().bytes().clone()
}

fn poll_ready<B: Body>(service: &mut Spawn<CollectBody<Inner>>) -> bool {
    service.poll_ready::<Request<B>>().is_ready()
}

async fn refused<B: Body>(body: B, kind: RejectionKind) {
    let (mut service, mut handle) = spawn();
    assert!(poll_ready::<B>(&mut service));
    let answer = Answer::of(within("a refusal", service.call(Request::new(body))).await.unwrap()).await;
    assert_eq!(answer.rejection, Some(kind));
    assert_eq!(answer.status, kind.status());
    assert!(answer.body.is_empty());
    assert!(handle.poll_request().is_pending(), "the inner was called");
}

#[tokio::test(start_paused = true)]
async fn a_body_in_many_frames_arrives_in_one_piece() {
    assert_eq!(collected(Script::new("0123456789".chars().map(|c| Step::data(c.to_string())))).await, "0123456789");
    assert_eq!(collected(Script::new([Step::data("01"), Step::data(""), Step::data("2")])).await, "012");
    assert_eq!(collected(Script::new([Step::data(""), Step::data("01"), Step::data("2")])).await, "012");
}

#[tokio::test(start_paused = true)]
async fn a_body_in_one_frame_is_not_copied() {
    let bytes = Bytes::from("0123456789".to_owned());
    let arrived = collected(Script::new([Step::data(bytes.clone())])).await;
    assert_eq!(arrived.as_ptr(), bytes.as_ptr());
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_arrives_as_such() {
    assert_eq!(collected(Empty::<Bytes>::new()).await, "");
    assert_eq!(collected(Script::new([])).await, "");
    assert_eq!(collected(Script::new([Step::data("")])).await, "");
    assert_eq!(collected(Script::new([Step::Trailers])).await, "");
}

#[tokio::test(start_paused = true)]
async fn trailers_are_not_part_of_it() {
    assert_eq!(collected(Script::new([Step::data("01"), Step::Trailers])).await, "01");
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_exact() {
    assert_eq!(collected(Full::new(Bytes::from("0123456789"))).await.len(), 10);
    refused(Full::new(Bytes::from("0123456789a")), BodyTooLarge).await;
    assert_eq!(collected(Script::new([Step::data("01234"), Step::data("56789")])).await.len(), 10);
    refused(Script::new([Step::data("01234"), Step::data("56789"), Step::data("a")]), BodyTooLarge).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_announces_too_much_is_not_read() {
    refused(Unread { announced: Some(11) }, BodyTooLarge).await;
    refused(Unread { announced: Some(u64::MAX) }, BodyTooLarge).await;
}

#[tokio::test(start_paused = true)]
async fn reading_stops_at_the_limit() {
    // Reading beyond the eleventh byte would fail.
    refused(Script::new([Step::data("01234"), Step::data("567890"), Step::Fail]), BodyTooLarge).await;
    refused(Script::new([Step::data("01234567890"), Step::Hang]), BodyTooLarge).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_refused() {
    refused(Script::new([Step::Fail]), BodyIncomplete).await;
    refused(Script::new([Step::data("{}"), Step::Fail]), BodyIncomplete).await;
    refused(Script::new([Step::data("{"), Step::Fail]).announcing(2), BodyIncomplete).await;
}

/// A sender that closes its HTTP/2 connection as soon as it has sent everything.
#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_after_its_announced_length_is_complete() {
    let body = Script::new([Step::data("{"), Step::data("}"), Step::Fail]).announcing(2);
    assert_eq!(collected(body).await, "{}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_refused_at_the_deadline() {
    for steps in [vec![Step::Hang], vec![Step::data("{}"), Step::Hang]] {
        let begin = Instant::now();
        refused(Script::new(steps), BodyTimeout).await;
        assert_eq!(begin.elapsed().as_secs(), DEADLINE.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_trickles_gains_no_time() {
    let steps = (0..10).flat_map(|_| [Step::Wait(Duration::from_secs(1)), Step::data("0")]);
    let begin = Instant::now();
    refused(Script::new(steps), BodyTimeout).await;
    assert_eq!(begin.elapsed().as_secs(), DEADLINE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_just_in_time_is_taken() {
    let steps = (0..4).flat_map(|_| [Step::Wait(Duration::from_millis(1249)), Step::data("0")]);
    assert_eq!(collected(Script::new(steps)).await, "0000");
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_ready_is_called_though_others_were_called_meanwhile() {
    let (mut service, mut handle) = spawn();
    let slow = || Script::new([Step::data("0"), Step::Wait(Duration::from_secs(1)), Step::data("1")]);
    assert!(poll_ready::<Script>(&mut service));
    let first = tokio::spawn(service.call(Request::new(slow())));
    tokio::task::yield_now().await;
    // The mock panics if the layer calls a clone that was never polled ready.
    assert!(poll_ready::<Script>(&mut service));
    let second = tokio::spawn(service.call(Request::new(slow())));
    for _ in 0..2 {
        let (request, respond) = within("the request", handle.next_request()).await.unwrap();
        assert_eq!(request.body().bytes(), "01");
        respond.send_response(Response::default());
    }
    assert_eq!(within("the answer", first).await.unwrap().unwrap().status(), 200);
    assert_eq!(within("the answer", second).await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_inner_is_not_called_before_the_whole_body_is_there() {
    let (mut service, mut handle) = spawn();
    assert!(poll_ready::<Script>(&mut service));
    let steps = [Step::data("0"), Step::Wait(Duration::from_secs(2)), Step::data("1")];
    let answer = tokio::spawn(service.call(Request::new(Script::new(steps))));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(handle.poll_request().is_pending());
    let (_, respond) = within("the request", handle.next_request()).await.unwrap();
    respond.send_response(Response::default());
    within("the answer", answer).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_never_reaches_the_inner() {
    let (mut service, mut handle) = spawn();
    assert!(poll_ready::<Script>(&mut service));
    let answer = tokio::spawn(service.call(Request::new(Script::new([Step::data("0"), Step::Hang]))));
    tokio::task::yield_now().await;
    answer.abort();
    assert!(within("the answer", answer).await.unwrap_err().is_cancelled());
    assert!(handle.poll_request().is_pending());
}

#[tokio::test]
async fn a_collected_body_is_a_body_again() {
    let service = tower::service_fn(|request: Request<Collected>| async move {
        let whole = request.body().bytes().clone();
        let read = Answer::of(Response::new(request.into_body())).await.body;
        assert_eq!(whole, read);
        Ok::<_, std::convert::Infallible>(Response::new(ResponseBody::from(read)))
    });
    let mut twice =
        tower::ServiceBuilder::new().layer(CollectBodyLayer::new()).layer(CollectBodyLayer::new()).service(service);
    let answer = within("an answer", twice.call(Request::new(Full::new(Bytes::from("abc"))))).await.unwrap();
    assert_eq!(Answer::of(answer).await.body, "abc");
}
