//! A receiver with all its tasks.

use std::time::Duration;

use tokio::sync::oneshot;
use tower_webhook::dedup::Claims;
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::source::{FileSource, FixedSource};
use tower_webhook::worker::Worker;
use tower_webhook::{Receiver, Registry, reflect};

use crate::support::driven::Silent;
use crate::support::modules::Seen;
use crate::support::{PATIENCE, ask, eventually, post, within};

const ACCEPTED: &str = r#"{"module": "capture", "ack": "accepted"}"#;

const ONCE: &str = r#"{"module": "capture", "dedup": {"header": "x-id"}}"#;

fn source() -> FixedSource {
    FixedSource::new().webhook("shop", "accepted", ACCEPTED).unwrap().webhook("shop", "once", ONCE).unwrap()
}

#[tokio::test]
async fn a_webhook_may_ask_for_what_the_receiver_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, backlog) = DiskQueue::new(folder.path().join("events")).open().unwrap();
    let seen = Seen::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = Receiver::builder(source())
        .registry(seen.registry())
        .worker(Worker::new(backlog))
        .claims(Claims::in_memory())
        .start(async { drop(stopped.await) });
    running.store.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(ask(&running.receiver, post("/shop/accepted", "{}")).await.status, 202);
    eventually("the delivery", async || seen.count() == 1 && queue.status().waiting == 0).await;
    for is_duplicate in [false, true] {
        let mut request = post("/shop/once", "{}");
        request.headers_mut().append("x-id", "1".parse().unwrap());
        let answer = ask(&running.receiver, request).await;
        assert_eq!((answer.status.as_u16(), answer.headers.contains_key("x-duplicate")), (200, is_duplicate));
    }
    // The worker ends because it was asked to, which is not a failure.
    drop(stop);
    within("the worker's end", running.tasks.ended()).await;
    within("no end any more", running.tasks.ended()).await;
}

#[tokio::test]
async fn a_webhook_that_asks_for_more_is_refused() {
    let seen = Seen::default();
    let running = Receiver::builder(source()).registry(seen.registry()).start(std::future::pending());
    running.store.wait_ready(PATIENCE).await.unwrap();
    for (path, word) in [("/shop/accepted", "queue"), ("/shop/once", "store of earlier events")] {
        ask(&running.receiver, post(path, "{}")).await.problem(503);
        let snapshot = running.store.snapshot();
        let id = path.rsplit('/').next().unwrap();
        let refused =
            snapshot.refusals().find(|(key, _)| key.to_string().ends_with(id)).map(|(_, why)| why.reason().to_owned());
        assert!(refused.as_deref().is_some_and(|reason| reason.contains(word)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_source_that_ends_is_reported() {
    let mut running = Receiver::builder(FixedSource::new()).start(std::future::pending());
    let failed = within("the end of the source", running.tasks.failed()).await;
    assert_eq!(failed.to_string(), "the task that follows the configuration has ended");
    // A receiver without a worker does not wait for one.
    within("no end", running.tasks.ended()).await;
}

#[tokio::test]
async fn a_worker_that_was_asked_to_stop_has_not_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, backlog) = DiskQueue::new(folder.path().join("events")).open().unwrap();
    let mut running = Receiver::builder(Silent).worker(Worker::new(backlog)).start(async {});
    let failed = tokio::time::timeout(Duration::from_millis(200), running.tasks.failed()).await;
    assert!(failed.is_err(), "{failed:?}");
    within("its end", running.tasks.ended()).await;
}

#[tokio::test]
async fn the_error_of_a_wait_names_the_file_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name| folder.path().join(name);
    let source = FileSource::new(file("webhooks.json"), file("connections.json"));
    let running = Receiver::builder(source).start(std::future::pending());
    let missing = format!("the source `file` reports: {} does not exist", file("webhooks.json").display());
    eventually("an error that names the file", async || {
        let error = running.store.wait_ready(Duration::from_millis(10)).await.unwrap_err();
        error.to_string() == format!("no configuration was loaded within 10ms: {missing}")
    })
    .await;
    // The reflector goes on trying.
    std::fs::write(file("webhooks.json"), "{}").unwrap();
    running.store.wait_ready(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn the_error_of_a_wait_says_that_the_reflector_was_not_spawned() {
    let (store, reflector) = reflect(FixedSource::new(), Registry::builtin());
    let error = store.wait_ready(Duration::from_millis(10)).await.unwrap_err();
    assert!(error.to_string().contains("spawn the future of `Reflector::run`"), "{error}");
    drop(reflector);
    let error = within("the end", store.wait_ready(PATIENCE)).await.unwrap_err();
    assert!(error.to_string().contains("the reflector has ended"), "{error}");
}
