//! The keys `chain` and `chain-config`, while the sender waits.

use std::time::Duration;

use tokio::time::Instant;
use tower_webhook::{Receiver, receiver};

use crate::support::scripted::Journal;
use crate::support::{Answer, ask, post, store_of};

/// An item: its script without braces, and further keys.
fn item(script: &str, rest: &str) -> String {
    format!(r#"{{"module": "scripted", "module-config": {{{script}}} {rest}}}"#)
}

fn named(name: &str) -> String {
    item(&format!(r#""name": "{name}""#), "")
}

async fn chain(journal: &Journal, items: &[String], rest: &str) -> Receiver {
    let json = format!(r#"{{"chain": [{}] {rest}}}"#, items.join(","));
    receiver(store_of(journal.registry(), &[("shop", "a", &json)]).await)
}

async fn send(receiver: &Receiver) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = ask(receiver, post("/shop/a", r#"{"n": 1}"#)).await;
    (answer, began.elapsed())
}

const STOP: &str = r#", "chain-config": {"continue_on_error": false}"#;
const PARALLEL: &str = r#", "chain-config": {"execution": "parallel"}"#;
const PARALLEL_STOP: &str = r#", "chain-config": {"execution": "parallel", "continue_on_error": false}"#;

#[tokio::test(start_paused = true)]
async fn every_item_gets_the_same_event() {
    for rest in ["", PARALLEL] {
        let journal = Journal::default();
        let receiver = chain(&journal, &[named("a"), named("b"), named("c")], rest).await;
        let (answer, _) = send(&receiver).await;
        answer.assert_accepted();
        let deliveries = journal.deliveries();
        assert_eq!(deliveries.len(), 3);
        for delivery in deliveries {
            assert_eq!(delivery.id().to_string(), answer.header("x-event-id"));
            assert_eq!(delivery.body(), r#"{"n": 1}"#);
            assert_eq!(delivery.headers()["authorization"], crate::support::CREDENTIAL);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn items_are_done_one_after_another_or_all_at_once() {
    let items = [item(r#""name": "a", "takes": 300"#, ""), item(r#""name": "b", "takes": 200"#, "")];
    for (rest, happened, took) in [("", "a a. b b.", 500), (PARALLEL, "a b b. a.", 300)] {
        let journal = Journal::default();
        let (answer, elapsed) = send(&chain(&journal, &items, rest).await).await;
        answer.assert_accepted();
        assert_eq!((journal.take().as_str(), elapsed), (happened, Duration::from_millis(took)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_item_that_fails_is_no_200() {
    let items =
        [item(r#""name": "a", "takes": 100, "fails": 9"#, ""), item(r#""name": "b", "takes": 300"#, ""), named("c")];
    for (rest, happened) in [
        ("", "a a! b b. c c."),
        (STOP, "a a!"),
        (PARALLEL, "a b c c. a! b."),
        // The items that were running when the first one failed are dropped.
        (PARALLEL_STOP, "a b c c. a!"),
    ] {
        let journal = Journal::default();
        let (answer, _) = send(&chain(&journal, &items, rest).await).await;
        assert_eq!(answer.problem(502), "The event could not be delivered");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(journal.take(), happened, "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_sender_gets_the_error_of_the_first_item_that_failed() {
    let items = [
        named("a"),
        item(r#""name": "b", "fails": 9, "kind": "timeout", "takes": 50"#, ""),
        item(r#""name": "c", "fails": 9, "kind": "io""#, ""),
    ];
    for rest in ["", PARALLEL] {
        let journal = Journal::default();
        send(&chain(&journal, &items, rest).await).await.0.problem(504);
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_acts_in_both_ways() {
    let items = [
        named("a"),
        item(r#""name": "b", "takes": 1500"#, ""),
        item(r#""name": "c", "takes": 1000"#, ""),
        item(r#""name": "d", "takes": 3000"#, ""),
    ];
    for (execution, happened) in [("sequential", "a a. b b. c"), ("parallel", "a a. b c d c. b.")] {
        let journal = Journal::default();
        let rest = format!(r#", "chain-config": {{"execution": "{execution}", "timeout": 2}}"#);
        let (answer, elapsed) = send(&chain(&journal, &items, &rest).await).await;
        answer.problem(504);
        assert_eq!((journal.take().as_str(), elapsed), (happened, Duration::from_secs(2)), "{execution}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_items_that_failed_are_tried_again() {
    let retry = r#", "retry": {"enabled": true, "max_attempts": 4}"#;
    let items = [named("a"), item(r#""name": "b", "fails": 2"#, retry), named("c")];
    for (rest, happened) in [("", "a a. b b! c c. b b! b b."), (STOP, "a a. b b! b b! b b. c c.")] {
        let journal = Journal::default();
        let (answer, _) = send(&chain(&journal, &items, rest).await).await;
        answer.assert_accepted();
        assert_eq!(journal.take(), happened, "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_webhooks_retry_is_for_items_without_their_own() {
    let journal = Journal::default();
    let own = r#", "retry": {"enabled": true, "max_attempts": 2}"#;
    let items = [item(r#""name": "a", "fails": 9"#, own), item(r#""name": "b", "fails": 2, "kind": "io""#, "")];
    let webhooks = r#", "retry": {"enabled": true, "max_attempts": 3}"#;
    let (answer, _) = send(&chain(&journal, &items, webhooks).await).await;
    answer.problem(502);
    assert_eq!(journal.take(), "a a! b b! a a! b b! b b.", "the first one is given up, and decides the answer");
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_of_the_failed_items_applies() {
    let journal = Journal::default();
    let retry = r#", "retry": {"enabled": true, "initial_delay": 0}"#;
    let asks =
        |name: &str, seconds: u32| item(&format!(r#""name": "{name}", "fails": 1, "retry_after": {seconds}"#), retry);
    let (answer, elapsed) = send(&chain(&journal, &[asks("a", 3), asks("b", 7), asks("c", 5)], PARALLEL).await).await;
    answer.assert_accepted();
    assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_panics_fails_alone() {
    for rest in ["", PARALLEL] {
        let journal = Journal::default();
        let registry = journal.registry().module::<crate::support::modules::Broken>();
        let panics = r#"{"module": "broken", "module-config": {"how": "panic"}}"#;
        let json = format!(r#"{{"chain": [{panics}, {}] {rest}}}"#, named("b"));
        let receiver = receiver(store_of(registry, &[("shop", "a", &json)]).await);
        send(&receiver).await.0.problem(502);
        assert_eq!(journal.take(), "b b.");
    }
}
