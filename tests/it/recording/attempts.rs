//! One entry for each attempt of a module.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tower_webhook::Receiver;
use tower_webhook::event::DeliverErrorKind as Kind;
use tower_webhook::history::{Attempt, Outcome};
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::queue::{DeadLetterQuery, Queue};
use tower_webhook::source::{FixedSource, LiveHandle};
use tower_webhook::worker::Worker;

use crate::support::history::InMemory;
use crate::support::modules::{Broken, Gate};
use crate::support::scripted::Journal;
use crate::support::{PATIENCE, ask, eventually, post, receiver_of};

/// The facts about an attempt that a test compares.
fn facts(attempt: &Attempt) -> (u32, &str, Option<u32>, Option<Kind>, Outcome) {
    let kind = attempt.error.as_ref().map(|(kind, _)| *kind);
    (attempt.number, &attempt.module, attempt.item, kind, attempt.outcome)
}

async fn receiver(memory: &InMemory, webhook: &str) -> Receiver {
    receiver_of(Journal::default().registry().module::<Broken>(), &[("shop", "a", webhook)], |builder| {
        builder.history(memory.history()).delivery_deadline(Duration::from_secs(5))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn each_attempt_while_the_sender_waits_is_reported() {
    let memory = InMemory::default();
    let webhook = r#"{"module": "scripted", "module-config": {"fails": 2, "takes": 0}, "retry": {"enabled": true}}"#;
    let answer = ask(&receiver(&memory, webhook).await, post("/shop/a", "{}")).await;
    answer.assert_accepted();
    let attempts = memory.attempts();
    assert_eq!(
        attempts.iter().map(facts).collect::<Vec<_>>(),
        [
            (1, "scripted", None, Some(Kind::Connect), Outcome::Waiting),
            (2, "scripted", None, Some(Kind::Connect), Outcome::Waiting),
            (3, "scripted", None, None, Outcome::Delivered),
        ]
    );
    for attempt in &attempts {
        assert_eq!(attempt.event.to_string(), answer.header("x-event-id"));
        assert_eq!(attempt.webhook.to_string(), "shop/a");
        assert_eq!(attempt.next.is_some(), attempt.number < 3);
    }
    assert_eq!(attempts[0].error.as_ref().unwrap().1.as_ref(), "as the script says");
    assert_eq!(memory.outcome(memory.only().id), Some(Outcome::Delivered));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_reported_as_failed() {
    let memory = InMemory::default();
    let webhook = r#"{"module": "broken", "module-config": {"how": "hang"}}"#;
    ask(&receiver(&memory, webhook).await, post("/shop/a", "{}")).await.problem(504);
    assert_eq!(
        memory.attempts().iter().map(facts).collect::<Vec<_>>(),
        [(1, "broken", None, Some(Kind::Timeout), Outcome::Failed)]
    );
    assert_eq!(memory.attempts()[0].error.as_ref().unwrap().1.as_ref(), "no answer in time");
}

#[tokio::test]
async fn each_item_of_a_chain_is_reported() {
    let memory = InMemory::default();
    let webhook = r#"{"chain": [
        {"module": "scripted", "module-config": {"name": "a"}},
        {"module": "broken", "module-config": {"how": "fail"}},
        {"module": "scripted", "module-config": {"name": "b"}}
    ]}"#;
    ask(&receiver(&memory, webhook).await, post("/shop/a", "{}")).await.problem(502);
    let attempts = memory.attempts();
    assert_eq!(
        attempts.iter().map(facts).collect::<Vec<_>>(),
        [
            (1, "scripted", Some(0), None, Outcome::Failed),
            (1, "broken", Some(1), Some(Kind::Connect), Outcome::Failed),
            (1, "scripted", Some(2), None, Outcome::Failed),
        ]
    );
    assert_eq!(attempts[1].error.as_ref().unwrap().1.as_ref(), "an-internal-reason");
    assert_eq!(memory.only().reason.as_deref(), Some("chain.1 broken: an-internal-reason"));
}

#[tokio::test]
async fn an_attempt_that_a_sender_breaks_off_is_reported_as_failed() {
    let (memory, gate) = (InMemory::default(), Gate::default());
    let receiver = receiver_of(gate.registry(), &[("shop", "a", r#"{"module": "gate"}"#)], |builder| {
        builder.history(memory.history())
    })
    .await;
    receiver.remainders().close();
    let mut answer = Box::pin(ask(&receiver, post("/shop/a", "{}")));
    assert!((&mut answer).now_or_never().is_none());
    drop(answer);
    let attempts = memory.attempts();
    assert_eq!(
        attempts.iter().map(facts).collect::<Vec<_>>(),
        [(1, "gate", None, Some(Kind::Timeout), Outcome::Failed)]
    );
    assert!(attempts[0].error.as_ref().unwrap().1.contains("the sender hung up"));
}

/// A receiver with a queue on disk and a worker, and what it is made of.
struct Accepting {
    receiver: Receiver,
    queue: Queue,
    webhooks: LiveHandle,
    memory: InMemory,
    gate: Gate,
    _directory: tempfile::TempDir,
}

impl Accepting {
    async fn start(webhook: &str) -> Self {
        let (memory, gate, directory) = (InMemory::default(), Gate::default(), tempfile::tempdir().unwrap());
        let events = DiskQueue::new(directory.path().join("events"));
        let (queue, backlog) = tokio::task::spawn_blocking(move || events.open()).await.unwrap().unwrap();
        let (source, webhooks) = FixedSource::new().webhook("shop", "a", webhook.to_owned()).unwrap().live();
        let running = Receiver::builder(source)
            .registry(gate.registry().module::<Broken>())
            .worker(Worker::new(backlog))
            .history(memory.history())
            .start(std::future::pending());
        running.store.wait_ready(PATIENCE).await.unwrap();
        Self { receiver: running.receiver, queue, webhooks, memory, gate, _directory: directory }
    }

    async fn send(&self) {
        let answer = ask(&self.receiver, post("/shop/a", r#"{"n": 1}"#)).await;
        assert_eq!(answer.status, 202);
        let received = self.memory.only();
        assert_eq!(received.id.to_string(), answer.header("x-event-id"));
        assert_eq!((received.outcome, received.is_accepted), (Outcome::Waiting, true));
        assert_eq!(received.steps.last().unwrap().name, "queue");
    }

    async fn until(&self, outcome: Outcome) {
        let id = self.memory.only().id;
        let what = format!("the outcome {}", outcome.label());
        eventually(&what, async || self.memory.outcome(id) == Some(outcome)).await;
    }
}

const ACCEPTED: &str = r#"{"module": "gate", "ack": "accepted",
    "retry": {"enabled": true, "max_attempts": 2, "initial_delay": 0.01, "max_delay": 0.01}}"#;

#[tokio::test]
async fn an_accepted_event_waits_until_the_worker_has_delivered_it() {
    let accepting = Accepting::start(ACCEPTED).await;
    accepting.send().await;
    accepting.gate.was_called(1).await;
    assert_eq!(accepting.memory.attempts().len(), 0);
    accepting.gate.take_all();
    accepting.until(Outcome::Delivered).await;
    assert_eq!(
        accepting.memory.attempts().iter().map(facts).collect::<Vec<_>>(),
        [(1, "gate", None, None, Outcome::Delivered)]
    );
}

#[tokio::test]
async fn a_dead_letter_has_failed_and_is_delivered_when_it_is_replayed() {
    let accepting = Accepting::start(ACCEPTED).await;
    accepting.gate.refuse_all();
    accepting.send().await;
    accepting.until(Outcome::Failed).await;
    let attempts = accepting.memory.attempts();
    assert_eq!(
        attempts.iter().map(facts).collect::<Vec<_>>(),
        [
            (1, "gate", None, Some(Kind::Connect), Outcome::Waiting),
            (2, "gate", None, Some(Kind::Connect), Outcome::Failed),
        ]
    );
    assert!(attempts[0].next.unwrap() <= SystemTime::now());
    assert_eq!(attempts[1].next, None);
    let dead = async || accepting.queue.dead_letters(DeadLetterQuery::first(9)).await.unwrap();
    eventually("the dead letter", async || dead().await.len() == 1).await;
    accepting.gate.take_all();
    accepting.queue.replay(vec![dead().await[0].id]).await.unwrap();
    accepting.until(Outcome::Delivered).await;
    assert_eq!(accepting.memory.attempts().len(), 3);
}

#[tokio::test]
async fn an_event_whose_webhook_is_removed_has_failed() {
    let accepting = Accepting::start(ACCEPTED).await;
    accepting.send().await;
    accepting.gate.was_called(1).await;
    accepting.webhooks.remove_webhook("shop", "a").await.unwrap();
    accepting.gate.refuse_all();
    accepting.until(Outcome::Failed).await;
    let attempts = accepting.memory.attempts();
    assert_eq!(
        attempts.iter().map(facts).collect::<Vec<_>>(),
        [(1, "gate", None, Some(Kind::Connect), Outcome::Waiting), (2, "", None, Some(Kind::Config), Outcome::Failed),]
    );
    assert_eq!(attempts[1].error.as_ref().unwrap().1.as_ref(), "the webhook is not configured any more");
}

#[tokio::test]
async fn attempts_are_kept_as_the_webhook_says() {
    let none = ACCEPTED.replacen('{', r#"{"history": "none", "#, 1);
    let accepting = Accepting::start(&none).await;
    accepting.gate.take_all();
    assert_eq!(ask(&accepting.receiver, post("/shop/a", "{}")).await.status, 202);
    accepting.gate.was_called(1).await;
    eventually("the delivery", async || accepting.queue.status().waiting == 0).await;
    assert_eq!(accepting.memory.count(), 0);
}
