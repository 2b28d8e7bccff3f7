//! The key `retry`, while the sender waits.

use std::time::Duration;

use tokio::time::Instant;
use tower_webhook::Receiver;

use crate::support::scripted::Journal;
use crate::support::{ask, post, store_of};

const DEADLINE: Duration = Duration::from_secs(10);

async fn receiver(journal: &Journal, script: &str, rest: &str) -> Receiver {
    let json = format!(r#"{{"module": "scripted", "module-config": {script} {rest}}}"#);
    let store = store_of(journal.registry(), &[("shop", "a", &json)]).await;
    Receiver::of_store(store).delivery_deadline(DEADLINE).build()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_succeeds_at_the_third_attempt_is_200() {
    let journal = Journal::default();
    let retry = r#", "retry": {"enabled": true, "max_attempts": 3}"#;
    let receiver = receiver(&journal, r#"{"fails": 2}"#, retry).await;
    let answer = ask(&receiver, post("/shop/a", r#"{"n": 1}"#)).await;
    answer.assert_accepted();
    assert_eq!(journal.take(), "a a! a a! a a.");
    let deliveries = journal.deliveries();
    assert_eq!(deliveries.iter().map(|delivery| delivery.attempt()).collect::<Vec<_>>(), [1, 2, 3]);
    for delivery in deliveries {
        assert_eq!(delivery.id().to_string(), answer.header("x-event-id"));
        assert_eq!(delivery.body(), r#"{"n": 1}"#);
        assert_eq!(delivery.headers()["authorization"], crate::support::CREDENTIAL);
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_the_sender_gets_its_error() {
    for (rest, happened) in [
        ("", "a a!"),
        (r#", "retry": {"enabled": false, "max_attempts": 5}"#, "a a!"),
        (r#", "retry": {"enabled": true, "max_attempts": 2}"#, "a a! a a!"),
        (r#", "retry": {"enabled": true, "retryable_errors": ["connect"]}"#, "a a!"),
        (r#", "retry": {"enabled": true, "non_retryable_errors": ["asyncio.TimeoutError"]}"#, "a a!"),
    ] {
        let journal = Journal::default();
        let receiver = receiver(&journal, r#"{"fails": 9, "kind": "timeout"}"#, rest).await;
        ask(&receiver, post("/shop/a", "{}")).await.problem(504);
        assert_eq!(journal.take(), happened, "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_waited_for_beyond_the_deadline() {
    let journal = Journal::default();
    let retry = r#", "retry": {"enabled": true}"#;
    let patient = receiver(&journal, r#"{"fails": 1, "kind": "throttled", "retry_after": 8}"#, retry).await;
    let began = Instant::now();
    ask(&patient, post("/shop/a", "{}")).await.assert_accepted();
    assert!(began.elapsed() >= Duration::from_secs(8));
    journal.take();

    let began = Instant::now();
    let impatient = receiver(&journal, r#"{"fails": 1, "kind": "throttled", "retry_after": 10}"#, retry).await;
    ask(&impatient, post("/shop/a", "{}")).await.problem(502);
    assert_eq!((journal.take().as_str(), began.elapsed()), ("a a!", Duration::ZERO));

    // The time that an attempt took counts too.
    let script = r#"{"fails": 1, "kind": "throttled", "retry_after": 8, "takes": 3000}"#;
    let impatient = receiver(&journal, script, retry).await;
    ask(&impatient, post("/shop/a", "{}")).await.problem(502);
    assert_eq!((journal.take().as_str(), began.elapsed()), ("a a!", Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_an_attempt_whichever_it_is() {
    let journal = Journal::default();
    let retry = r#", "retry": {"enabled": true, "initial_delay": 0}"#;
    let receiver = receiver(&journal, r#"{"fails": 1, "takes": 6000}"#, retry).await;
    let began = Instant::now();
    ask(&receiver, post("/shop/a", "{}")).await.problem(504);
    assert_eq!((journal.take().as_str(), began.elapsed()), ("a a! a", DEADLINE));
}
