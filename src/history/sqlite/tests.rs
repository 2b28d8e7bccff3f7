//! The store with real files.

use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::DataType;
use crate::event::Stamp;
use crate::history::{Action, Attempt, Body, Dedup, Outcome, Received, Step};

mod bounds;
mod erasing;
mod faults;
mod queries;

fn small(folder: &TempDir) -> SqliteHistory {
    SqliteHistory::new(folder.path().join("history"))
}

fn open(folder: &TempDir) -> Store {
    started(&small(folder))
}

fn started(history: &SqliteHistory) -> Store {
    history.store(buffer::Limits::default(), Expiry::Clock(Clock::start()), Arc::new(|| Ok(()))).unwrap()
}

fn received(namespace: &str, webhook: &str) -> Received {
    sample::received(namespace, webhook, Stamp::now())
}

/// A refused request.
fn refused(namespace: &str, webhook: &str) -> Received {
    let (outcome, status) = (Outcome::Refused, StatusCode::UNAUTHORIZED);
    let (kind, reason) = (Some("unauthenticated"), Some("the token is another one".into()));
    Received { outcome, status, kind, reason, ..received(namespace, webhook) }
}

/// An event of an earlier time.
fn at(at: SystemTime, namespace: &str, webhook: &str) -> Received {
    sample::received(namespace, webhook, Stamp::at(at))
}

fn record(store: &Store, received: Received) -> EventId {
    let id = received.id;
    store.record(Entry::Received(Box::new(received)));
    id
}

async fn all(store: &Store, query: EventQuery) -> Vec<EventId> {
    let page = store.events(EventQuery { limit: 1000, ..query }).await.unwrap();
    page.events.into_iter().map(|row| row.id).collect()
}

/// All bytes of the files of a history.
fn raw(directory: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(directory).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.collect::<Vec<_>>().concat()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(20), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_event_is_read_back_with_everything_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let step = Step { name: "guards", at: Duration::from_micros(10), duration: Duration::from_micros(70) };
    let sent = Received {
        dedup: Some(Dedup::First),
        secrets: vec![("bearer", 2)],
        steps: vec![step.clone()],
        outcome: Outcome::Waiting,
        status: StatusCode::ACCEPTED,
        is_accepted: true,
        ..received("shop", "orders")
    };
    let stamp = Stamp { id: sent.id, at: sent.at };
    record(&store, sent.clone());
    let mut attempt = sample::attempt("shop", "orders", stamp, 1, Outcome::Waiting);
    attempt.next = Some(stamp.at + Duration::from_secs(60));
    store.record(Entry::Attempt(Box::new(attempt.clone())));
    let later = stamp.at + Duration::from_secs(1);
    let action = Action { event: sent.id, at: later, what: "retry", by: "ops".into(), outcome: None };
    store.record(Entry::Action(Box::new(action)));

    let event = store.event(sent.id).await.unwrap().unwrap();
    let micros = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_micros();
    assert_eq!(
        (event.row.id, micros(event.row.at), event.row.webhook.to_string()),
        (sent.id, micros(sent.at), "shop/orders".into())
    );
    assert_eq!((event.row.size, event.row.peer, event.row.status), (18, sent.peer, 202));
    assert_eq!(
        (event.row.outcome, event.row.kind.as_deref(), event.row.attempts),
        (Outcome::Waiting, Some("connect"), 1)
    );
    assert_eq!(event.row.next.map(micros), attempt.next.map(micros));
    assert_eq!((&*event.path, event.revision, event.dedup), ("/webhook/shop/orders", 7, Some(Dedup::First)));
    assert_eq!(event.headers, [("content-type".into(), "application/json".into())]);
    assert_eq!(event.body.as_deref(), Some(&br#"{"hello": "world"}"#[..]));
    assert!(event.is_exact);
    assert_eq!((event.secrets, event.steps), (vec![("bearer".into(), 2)], vec![step]));
    let [found] = &event.attempts[..] else { panic!("{:?}", event.attempts) };
    assert_eq!(
        (found.number, &found.error, &found.answer, found.outcome),
        (1, &attempt.error, &attempt.answer, Outcome::Waiting)
    );
    let [found] = &event.actions[..] else { panic!("{:?}", event.actions) };
    assert_eq!((found.what, &*found.by, found.outcome), ("retry", "ops", None));
    assert!(store.event(Stamp::now().id).await.unwrap().is_none());
}

#[tokio::test]
async fn an_attempt_may_be_reported_before_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let stamp = Stamp::now();
    let mut attempt = sample::attempt("shop", "orders", stamp, 1, Outcome::Delivered);
    attempt.at = stamp.at + Duration::from_secs(5);
    store.record(Entry::Attempt(Box::new(attempt)));
    let event = store.event(stamp.id).await.unwrap().unwrap();
    assert_eq!((event.row.status, event.row.outcome, &*event.row.module), (0, Outcome::Delivered, "log"));
    assert!(store.activity(None).await.unwrap().is_empty());
    record(
        &store,
        Received {
            outcome: Outcome::Waiting,
            status: StatusCode::ACCEPTED,
            ..sample::received("shop", "orders", stamp)
        },
    );
    let event = store.event(stamp.id).await.unwrap().unwrap();
    assert_eq!((event.row.status, event.row.outcome, event.row.attempts), (202, Outcome::Delivered, 1));
    assert_eq!(store.activity(None).await.unwrap()[0].minutes[59..].concat().iter().sum::<u64>(), 1);
}

#[tokio::test]
async fn no_secret_reaches_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut ids = Vec::new();
    for (data_type, body) in [
        (
            DataType::Json,
            r#"{"order": "kept-1", "api_key": "hunter2", "deep": [{"password": {"a": "hunter2"}}]}"#.to_owned(),
        ),
        (DataType::Json, format!(r#"{{"order": "kept-2", "token": "hunter2", "long": "{}"}}"#, "x".repeat(100_000))),
        (DataType::Form, "order=kept-3&token=hunter2&payload=%7B%22secret%22%3A%22hunter2%22%7D".to_owned()),
        (DataType::Json, r#"{"token": "hunter2", broken"#.to_owned()),
        (DataType::Form, "token=hunter2&%zz".to_owned()),
    ] {
        let mut sent = Received { data_type, body: Body::Whole(body.into()), ..received("ns", "hook") };
        sent.headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
        sent.headers.insert("cookie", HeaderValue::from_static("hunter2"));
        sent.headers.insert("x-api-key", HeaderValue::from_static("hunter2"));
        let mut attempt = sample::attempt("ns", "hook", Stamp { id: sent.id, at: sent.at }, 1, Outcome::Delivered);
        let answer = Bytes::from_static(br#"{"sent": {"token": "hunter2"}}"#);
        attempt.answer = Some(crate::event::Answer { status: 200, body: answer });
        ids.push(record(&store, sent));
        store.record(Entry::Attempt(Box::new(attempt)));
    }
    let refused = Received { body: Body::Whole(Bytes::from_static(b"hunter2")), ..refused("ns", "hook") };
    ids.push(record(&store, refused));
    store.flush().await.unwrap();
    let bytes = raw(&folder.path().join("history"));
    assert!(!contains(&bytes, "hunter2"));
    for kept in ["kept-1", "kept-2", "kept-3", "***REDACTED***"] {
        assert!(contains(&bytes, kept), "{kept}");
    }
    for id in &ids {
        let event = store.event(*id).await.unwrap().unwrap();
        assert!(!event.is_exact && event.headers.iter().all(|(_, value)| !value.contains("hunter2")));
    }
    assert!(store.event(ids[3]).await.unwrap().unwrap().body.is_none(), "a text that cannot be read is not kept");
    let event = store.event(ids[5]).await.unwrap().unwrap();
    assert_eq!((event.body, event.headers.len(), event.row.size), (None, 0, 7));
}

#[tokio::test]
async fn a_history_is_as_it_was_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let id = record(&store, received("ns", "hook"));
    store.flush().await.unwrap();
    drop(store);
    let store = open(&folder);
    assert_eq!(all(&store, EventQuery::default()).await, [id]);
    assert_eq!(store.activity(None).await.unwrap().len(), 1);
    let text = EventQuery { text: Some("world".into()), ..EventQuery::default() };
    assert_eq!(all(&store, text).await, [id]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = store.status();
    assert_eq!((status.events, status.is_failing, status.max_bytes), (1, false, DEFAULT_MAX_BYTES));
    assert!(status.bytes > 0 && status.oldest.is_some());
}

#[tokio::test]
async fn everything_buffered_is_written_when_the_history_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    for _ in 0..3000 {
        record(&store, received("ns", "hook"));
    }
    drop(store);
    let store = open(&folder);
    let rows = store.summary(EventQuery::default()).await.unwrap();
    assert_eq!((rows.total, rows.is_at_least), (3000, false));
}

#[test]
fn a_bound_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (history, expected) in [
        (small(&folder).max_bytes(1), "expected at least 4194304 bytes for a history, found 1"),
        (small(&folder).days(0), "expected at least one day"),
        (small(&folder).days(3).body_days(4), "found 3 and 4"),
    ] {
        let error = history.open().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Entries of one event in another order give the same event.
#[test]
fn the_order_of_entries_does_not_matter_on_disk() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let stories = (
        prop::collection::vec(prop::sample::select(&Outcome::ALL[..]), 0..4),
        any::<u64>(),
        prop::collection::vec(any::<bool>(), 6),
    );
    proptest!(config, |((outcomes, seed, pauses) in stories)| {
        runtime.block_on(async {
            let mut found = Vec::new();
            for is_mixed in [false, true] {
                let stamp = Stamp::now();
                let mut entries = entries(stamp, &outcomes);
                if is_mixed {
                    fastrand::Rng::with_seed(seed).shuffle(&mut entries);
                }
                for (entry, is_pause) in entries.into_iter().zip(&pauses) {
                    store.record(entry);
                    if *is_pause {
                        store.flush().await.unwrap();
                    }
                }
                let event = store.event(stamp.id).await.unwrap().unwrap();
                let attempts: Vec<_> = event.attempts.iter().map(|attempt| attempt.number).collect();
                let row = event.row;
                found.push((row.outcome, row.status, row.kind, row.reason, row.attempts, attempts, event.body, event.is_exact));
            }
            assert_eq!(found[0], found[1]);
        });
    });
}

fn entries(stamp: Stamp, outcomes: &[Outcome]) -> Vec<Entry> {
    let waiting = Received { outcome: Outcome::Waiting, is_accepted: true, ..sample::received("ns", "hook", stamp) };
    let attempts = (1..).zip(outcomes).map(|(number, outcome)| sample::attempt("ns", "hook", stamp, number, *outcome));
    std::iter::once(Entry::Received(Box::new(waiting)))
        .chain(attempts.map(|attempt: Attempt| Entry::Attempt(Box::new(attempt))))
        .collect()
}
