//! Requests whose senders hang up.

use futures_util::FutureExt;
use http::Request;
use tower_webhook::Receiver;
use tower_webhook::history::{Body, Outcome};

use crate::support::body::{Script, Step};
use crate::support::history::InMemory;
use crate::support::modules::{Broken, Gate};
use crate::support::{ask, eventually, post, receiver_of, within};

async fn receiver(memory: &InMemory, gate: &Gate) -> Receiver {
    let broken = r#"{"module": "broken", "module-config": {"how": "panic"}}"#;
    let webhooks = [("shop", "a", r#"{"module": "gate"}"#), ("shop", "broken", broken)];
    receiver_of(gate.registry().module::<Broken>(), &webhooks, |builder| builder.history(memory.history())).await
}

/// Sends an event, and hangs up once the module has it.
async fn send_and_go(receiver: &Receiver, gate: &Gate) {
    let sender = tokio::spawn({
        let receiver = receiver.clone();
        async move { ask(&receiver, post("/shop/a", "{}")).await }
    });
    gate.was_called(1).await;
    sender.abort();
    assert!(sender.await.is_err());
}

#[tokio::test]
async fn an_event_that_continues_without_its_sender_is_reported_when_it_ends() {
    for is_taken in [true, false] {
        let (memory, gate) = (InMemory::default(), Gate::default());
        let receiver = receiver(&memory, &gate).await;
        send_and_go(&receiver, &gate).await;
        assert_eq!(memory.received().len(), 0, "it is not known yet how it ends");
        if is_taken {
            gate.take_all()
        } else {
            gate.refuse_all()
        }
        within("the event to end", receiver.remainders().ended()).await;
        let received = memory.only();
        let expected = if is_taken { (Outcome::Delivered, 200) } else { (Outcome::Failed, 502) };
        assert_eq!((received.outcome, received.status.as_u16()), expected);
        let reason = if is_taken { "the sender hung up before the answer" } else { "as told" };
        assert_eq!(received.reason.as_deref(), Some(reason));
        assert_eq!(received.body, Body::Whole("{}".into()));
    }
}

#[tokio::test]
async fn an_event_that_must_not_continue_is_reported_as_aborted() {
    let (memory, gate) = (InMemory::default(), Gate::default());
    let receiver = receiver(&memory, &gate).await;
    receiver.remainders().close();
    send_and_go(&receiver, &gate).await;
    eventually("the entry", async || memory.received().len() == 1).await;
    let received = memory.only();
    assert_eq!((received.outcome, received.status.as_u16()), (Outcome::Failed, 499));
    assert_eq!(received.kind, Some("aborted"));
}

#[tokio::test]
async fn a_sender_that_leaves_before_its_body_has_arrived_is_reported_as_refused() {
    let (memory, gate) = (InMemory::default(), Gate::default());
    let mut receiver = receiver(&memory, &gate).await;
    let request = Request::post("/shop/a").body(Script::new([Step::data("{"), Step::Hang])).unwrap();
    let mut answer = Box::pin(tower::Service::call(&mut receiver, request));
    assert!((&mut answer).now_or_never().is_none());
    assert_eq!(memory.count(), 0);
    drop(answer);
    let received = memory.only();
    assert_eq!((received.outcome, received.status.as_u16()), (Outcome::Refused, 499));
    assert_eq!((received.kind, received.headers.len()), (Some("aborted"), 0));
}
