//! The answers of the targets of `http_webhook`.

use tower_webhook::event::{Answer, DeliverErrorKind};
use tower_webhook::history::{Attempt, Outcome};
use tower_webhook::module::Egress;
use tower_webhook::{Receiver, Registry};

use crate::http_webhook::target::Target;
use crate::support::history::InMemory;
use crate::support::{ask, eventually, post, receiver_of};

async fn receiver(memory: &InMemory, url: String) -> Receiver {
    let egress = Egress::new("127.0.0.0/8".parse().unwrap());
    let webhook = format!(r#"{{"module": "http_webhook", "module-config": {{"url": "{url}", "timeout": 5}}}}"#);
    receiver_of(Registry::builtin().egress(&egress), &[("shop", "a", &webhook)], |builder| {
        builder.history(memory.history())
    })
    .await
}

/// The one attempt at an event that a target answers with `answer`.
async fn attempt(answer: impl Into<String>) -> Attempt {
    let (memory, target) = (InMemory::default(), Target::answering(answer).await);
    ask(&receiver(&memory, target.url()).await, post("/shop/a", "{}")).await;
    eventually("the attempt", async || !memory.attempts().is_empty()).await;
    let mut attempts = memory.attempts();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    attempts.remove(0)
}

#[tokio::test]
async fn the_answer_of_a_target_is_reported_whether_it_took_the_event_or_not() {
    let delivered = attempt("HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\ntaken").await;
    assert_eq!((delivered.outcome, delivered.error), (Outcome::Delivered, None));
    assert_eq!(delivered.answer, Some(Answer::new(201, b"taken")));

    let failed = attempt("HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 8\r\n\r\nno such \r\n").await;
    assert_eq!(failed.outcome, Outcome::Failed);
    assert_eq!(failed.error.unwrap().0, DeliverErrorKind::Permanent);
    assert_eq!(failed.answer, Some(Answer::new(422, b"no such ")));

    let empty = attempt("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(empty.answer, Some(Answer::new(204, b"")));
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_reported() {
    for length in [1023, 1024, 1025, 70_000] {
        let body = "x".repeat(length);
        let long = attempt(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        assert_eq!(long.answer.unwrap().body.len(), length.min(1024));
    }
}

#[tokio::test]
async fn a_target_that_trickles_its_answer_delays_neither_the_sender_nor_the_attempts_outcome() {
    let memory = InMemory::default();
    let target = Target::serving(|mut connection| async move {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin").await;
        connection.hung_up().await;
    })
    .await;
    let began = std::time::Instant::now();
    ask(&receiver(&memory, target.url()).await, post("/shop/a", "{}")).await.assert_accepted();
    assert!(began.elapsed() < std::time::Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(memory.only().outcome, Outcome::Delivered);
    // After a second the rest is given up, and the part that arrived is reported.
    eventually("the attempt", async || memory.attempts().len() == 1).await;
    assert_eq!(memory.attempts()[0].answer, Some(Answer::new(200, b"begin")));
}

#[tokio::test]
async fn an_attempt_without_an_answer_has_none() {
    let memory = InMemory::default();
    let target = Target::serving(|connection| async move { drop(connection) }).await;
    ask(&receiver(&memory, target.url()).await, post("/shop/a", "{}")).await.problem(502);
    let attempts = memory.attempts();
    assert_eq!(attempts[0].answer, None);
    assert_eq!(attempts[0].error.as_ref().unwrap().0, DeliverErrorKind::Connect);
    assert!(!attempts[0].error.as_ref().unwrap().1.contains("s3cret"), "no part of the URL's path");
}
