//! Senders that do not wait for the answer.

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::Full;
use tower_webhook::dedup::Claims;
use tower_webhook::{Receiver, Registry};

use crate::support::body::{Script, Step};
use crate::support::modules::{Broken, Gate};
use crate::support::{Answer, ask, post, receiver_of, within};

async fn receiver(registry: Registry, claims: &Claims) -> Receiver {
    let gated = r#"{"module": "gate", "dedup": {"header": "x-id"}}"#;
    let broken = r#"{"module": "broken", "module-config": {"how": "panic"}, "dedup": {"header": "x-id"}}"#;
    let webhooks = [("shop", "a", gated), ("shop", "broken", broken)];
    receiver_of(registry.module::<Broken>(), &webhooks, |builder| builder.claims(claims.clone())).await
}

fn event(path: &str) -> Request<Full<Bytes>> {
    let mut request = post(path, "{}");
    request.headers_mut().append("x-id", "1".parse().unwrap());
    request
}

/// Sends an event, and hangs up once the module has it.
async fn send_and_go(receiver: &Receiver, gate: &Gate) {
    let before = gate.calls();
    let sender = tokio::spawn({
        let receiver = receiver.clone();
        async move { ask(&receiver, event("/shop/a")).await }
    });
    gate.was_called(before + 1).await;
    sender.abort();
    assert!(sender.await.is_err());
}

fn is_duplicate(answer: &Answer) -> bool {
    answer.headers.contains_key("x-duplicate")
}

#[tokio::test]
async fn an_event_whose_sender_is_gone_is_processed_once_whoever_sends_it_again() {
    let (gate, claims) = (Gate::default(), Claims::in_memory());
    let receiver = receiver(gate.registry(), &claims).await;
    send_and_go(&receiver, &gate).await;
    assert_eq!((receiver.remainders().count(), claims.entries()), (1, 1));

    let meanwhile = ask(&receiver, event("/shop/a")).await;
    assert_eq!(meanwhile.status, 409);
    assert!(meanwhile.headers.contains_key("retry-after"));
    gate.take_all();
    within("the event to be taken", receiver.remainders().ended()).await;
    let afterwards = ask(&receiver, event("/shop/a")).await;
    afterwards.assert_accepted();
    assert!(is_duplicate(&afterwards));
    assert_eq!(gate.calls(), 1);
}

#[tokio::test]
async fn an_event_that_is_not_taken_after_its_sender_is_gone_is_processed_when_it_comes_again() {
    let (gate, claims) = (Gate::default(), Claims::in_memory());
    let receiver = receiver(gate.registry(), &claims).await;
    send_and_go(&receiver, &gate).await;
    gate.refuse_all();
    within("the event to be refused", receiver.remainders().ended()).await;
    assert_eq!(claims.entries(), 0);
    gate.take_all();
    let again = ask(&receiver, event("/shop/a")).await;
    again.assert_accepted();
    assert!(!is_duplicate(&again));
    assert_eq!(gate.calls(), 2);
}

#[tokio::test]
async fn a_panic_after_the_sender_is_gone_leaves_nothing_behind() {
    let (gate, claims) = (Gate::default(), Claims::in_memory());
    let receiver = receiver(gate.registry(), &claims).await;
    let mut sender = Box::pin(ask(&receiver, event("/shop/broken")));
    assert!((&mut sender).now_or_never().is_none());
    assert_eq!(claims.entries(), 1);
    drop(sender);
    assert_eq!(receiver.remainders().count(), 1);
    within("its end", receiver.remainders().ended()).await;
    assert_eq!(claims.entries(), 0);
}

#[tokio::test]
async fn a_stop_that_has_waited_long_enough_breaks_off_what_is_dropped_later() {
    let (gate, claims) = (Gate::default(), Claims::in_memory());
    let receiver = receiver(gate.registry(), &claims).await;
    receiver.remainders().close();
    send_and_go(&receiver, &gate).await;
    assert_eq!((receiver.remainders().count(), claims.entries()), (0, 0));
}

#[tokio::test]
async fn an_event_of_which_a_part_is_missing_is_not_processed() {
    let (gate, claims) = (Gate::default(), Claims::in_memory());
    let receiver = receiver(gate.registry(), &claims).await;
    let request = event("/shop/a").map(|_| Script::new([Step::data("{"), Step::Hang]));
    let sender = tokio::spawn({
        let receiver = receiver.clone();
        async move { ask(&receiver, request).await }
    });
    tokio::task::yield_now().await;
    sender.abort();
    assert!(sender.await.is_err());
    assert_eq!((receiver.remainders().count(), claims.entries(), gate.calls()), (0, 0, 0));
}

/// The end of the runtime drops requests too.
#[test]
fn a_request_that_is_dropped_without_a_runtime_is_broken_off() {
    let (gate, claims) = (Gate::default(), Claims::in_memory());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let receiver = runtime.block_on(receiver(gate.registry(), &claims));
    let mut request = Box::pin(tower::ServiceExt::oneshot(receiver.clone(), event("/shop/a")));
    runtime.block_on(async { assert!((&mut request).now_or_never().is_none()) });
    assert_eq!((gate.calls(), claims.entries()), (1, 1));
    drop(request);
    assert_eq!((receiver.remainders().count(), claims.entries()), (0, 0));

    let mut request = Box::pin(tower::ServiceExt::oneshot(receiver.clone(), event("/shop/a")));
    runtime.block_on(async { assert!((&mut request).now_or_never().is_none()) });
    runtime.block_on(async { drop(request) });
    assert_eq!(receiver.remainders().count(), 1);
    drop(runtime);
    assert_eq!((receiver.remainders().count(), claims.entries()), (0, 0));
}
