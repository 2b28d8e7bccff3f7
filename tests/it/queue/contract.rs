//! The contract of every backend.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::sync::oneshot;
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery, EventId, Progress};
use tower_webhook::module::Module;
use tower_webhook::queue::{
    Accepted, Backlog, DeadLetter, DeadLetterQuery, Due, Loaded, Offer, Queue, QueueError, State, StoredEvent, Ticket,
};
use tower_webhook::worker::Worker;
use tower_webhook::{Registry, receiver};

use crate::support::modules::{Nothing, Seen};
use crate::support::{ask, eventually, store_of, within};

/// The storage of a backend. Opening it again simulates the next process.
pub(super) trait Storage {
    async fn open(&self, max_bytes: u64) -> (Queue, Backlog);
}

const ROOM: u64 = 16 << 20;

const PATIENCE: Duration = Duration::from_secs(10);

const HOUR: Duration = Duration::from_secs(3600);

/// An event like those that a receiver makes.
async fn delivery(namespace: &str, id: &str, body: &str) -> Delivery {
    let seen = Seen::default();
    let store = store_of(seen.registry(), &[(namespace, id, r#"{"module": "capture", "data_type": "blob"}"#)]).await;
    let request = Request::post(format!("/{namespace}/{id}")).header("x-a", "1").header("x-a", "2");
    ask(&receiver(store), request.body(Full::<Bytes>::new(body.to_owned().into())).unwrap()).await.assert_accepted();
    seen.take().remove(0)
}

async fn accept(queue: &Queue, delivery: &Delivery) -> Result<Accepted, QueueError> {
    queue.backend().accept(Offer::new(delivery, PATIENCE))?.await
}

/// Puts an event into the queue, and takes its ticket.
async fn put(queue: &Queue, backlog: &mut Backlog, namespace: &str, id: &str, body: &str) -> (Ticket, EventId) {
    let delivery = delivery(namespace, id, body).await;
    assert_eq!(accept(queue, &delivery).await, Ok(Accepted::Stored));
    (take(backlog, 1).await.remove(0).ticket, delivery.id())
}

/// The next `count` events.
async fn take(backlog: &mut Backlog, count: usize) -> Vec<Due> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(within("an event to be handed out", backlog.next()).await.unwrap());
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

async fn assert_nothing_is_handed_out(backlog: &mut Backlog) {
    let handed_out = tokio::time::timeout(Duration::from_millis(100), backlog.next()).await;
    assert!(!matches!(&handed_out, Ok(Some(events)) if !events.is_empty()), "{handed_out:?}");
}

async fn load(queue: &Queue, ticket: &Ticket) -> (StoredEvent, State) {
    let mut loaded = queue.backend().load(std::slice::from_ref(ticket)).await;
    match loaded.remove(0) {
        Loaded::Found(event, state) => (event, state),
        other => panic!("{other:?}"),
    }
}

/// Ends a process that was asked to stop.
async fn stop(queue: Queue, mut backlog: Backlog) {
    backlog.end();
    queue.backend().end().await;
}

fn no() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Permanent, "no")
}

async fn letters(queue: &Queue, query: DeadLetterQuery) -> Vec<EventId> {
    queue.dead_letters(query).await.unwrap().into_iter().map(|letter| letter.id).collect()
}

pub(super) async fn an_event_is_handed_out_as_it_was_received(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let sent = delivery("shop", "a", "{\"\u{e9}\":1}").await;
    accept(&queue, &sent).await.unwrap();
    let due = take(&mut backlog, 1).await.remove(0);
    assert_eq!(due.not_before, None);
    assert_eq!((due.ticket.webhook.namespace(), due.ticket.webhook.id()), ("shop", "a"));
    assert!(due.ticket.bytes as usize >= sent.body().len());
    let (event, state) = load(&queue, &due.ticket).await;
    assert_eq!((event.id, &event.body, &event.headers), (sent.id(), sent.body(), sent.headers()));
    let apart = event.received_at.duration_since(sent.received_at()).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_millis(1), "{apart:?}");
    assert_eq!(state, State::default());
    assert!(!format!("{event:?}").contains("\u{e9}"), "{event:?}");
    assert_eq!((queue.status().waiting, queue.status().dead_letters, queue.status().is_failing), (1, 0, false));
    // An event that need not be read from storage is the same.
    let fresh = queue.backend().take_fresh(std::slice::from_ref(&due.ticket));
    assert!(fresh.iter().flatten().all(|fresh| fresh.id == event.id && fresh.body == event.body));
}

pub(super) async fn events_are_handed_out_in_the_order_of_their_receipt(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let mut sent = Vec::new();
    for n in 0..20 {
        let delivery = delivery("shop", "a", &n.to_string()).await;
        accept(&queue, &delivery).await.unwrap();
        sent.push(delivery.id());
    }
    let tickets: Vec<_> = take(&mut backlog, 20).await.into_iter().map(|due| due.ticket).collect();
    assert!(tickets.is_sorted_by(|a, b| a.sequence < b.sequence), "{tickets:?}");
    let loaded = queue.backend().load(&tickets).await;
    let ids: Vec<_> = loaded
        .into_iter()
        .map(|loaded| match loaded {
            Loaded::Found(event, _) => event.id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, sent);
}

pub(super) async fn unfinished_events_are_there_for_the_next_process(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let mut put_all = Vec::new();
    for body in ["0", "1", "2", "3"] {
        put_all.push(put(&queue, &mut backlog, "shop", "a", body).await);
    }
    queue.backend().finish(&[put_all[0].0.clone(), put_all[2].0.clone()]);
    assert_eq!(queue.status().waiting, 2);
    stop(queue, backlog).await;

    let (queue, mut backlog) = storage.open(ROOM).await;
    assert_eq!(queue.status().waiting, 2);
    let left = take(&mut backlog, 2).await;
    let ids = [load(&queue, &left[0].ticket).await.0.id, load(&queue, &left[1].ticket).await.0.id];
    assert_eq!(ids, [put_all[1].1, put_all[3].1]);
    // Later events come after the existing ones.
    let (later, _) = put(&queue, &mut backlog, "shop", "a", "4").await;
    assert!(later.sequence > left[1].ticket.sequence);
}

pub(super) async fn progress_is_remembered(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let (ticket, _) = put(&queue, &mut backlog, "shop", "a", "x").await;
    queue.backend().note(&ticket, State { attempts: 1, done: progress(1, 0) });
    queue.backend().note(&ticket, State { attempts: 2, done: progress(5, 0) });
    assert_eq!(load(&queue, &ticket).await.1, State { attempts: 2, done: progress(5, 0) });
    assert!(queue.backend().take_fresh(&[ticket]).iter().all(Option::is_none), "something became of it");
    stop(queue, backlog).await;
    let (queue, mut backlog) = storage.open(ROOM).await;
    let due = take(&mut backlog, 1).await.remove(0);
    assert_eq!(load(&queue, &due.ticket).await.1, State { attempts: 2, done: progress(5, 0) });
}

pub(super) async fn an_event_that_was_put_off_waits(storage: &impl Storage) {
    const WAIT: Duration = Duration::from_millis(300);
    let (queue, mut backlog) = storage.open(ROOM).await;
    let (ticket, _) = put(&queue, &mut backlog, "shop", "a", "x").await;
    let state = State { attempts: 1, done: progress(1, 0) };
    let began = Instant::now();
    let ticket = match queue.backend().put_off(ticket.clone(), state.clone(), WAIT) {
        Some(kept) => {
            assert_eq!(kept, ticket);
            assert_nothing_is_handed_out(&mut backlog).await;
            kept
        }
        None => {
            let due = take(&mut backlog, 1).await.remove(0);
            assert!(began.elapsed() >= WAIT && due.not_before.is_none());
            due.ticket
        }
    };
    assert_eq!(load(&queue, &ticket).await.1, state);
    assert_eq!(queue.status().waiting, 1);
}

pub(super) async fn an_event_that_was_put_off_waits_also_in_the_next_process(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let (ticket, _) = put(&queue, &mut backlog, "shop", "a", "x").await;
    let _ = queue.backend().put_off(ticket, State { attempts: 3, done: Progress::default() }, HOUR);
    stop(queue, backlog).await;
    let (queue, mut backlog) = storage.open(ROOM).await;
    assert_eq!(queue.status().waiting, 1);
    // It is either returned later, or with the time of its next attempt.
    if let Ok(Some(due)) = tokio::time::timeout(Duration::from_millis(100), backlog.next()).await {
        let left = due[0].not_before.unwrap().saturating_duration_since(Instant::now());
        assert!(left <= HOUR && left > HOUR - Duration::from_secs(60), "{left:?}");
    }
}

pub(super) async fn a_dead_letter_is_not_handed_out(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let (ticket, id) = put(&queue, &mut backlog, "shop", "a", "x").await;
    queue.backend().bury(ticket, id, State { attempts: 4, done: Progress::default() }, &no());
    assert_eq!((queue.status().waiting, queue.status().dead_letters), (0, 1));
    stop(queue, backlog).await;
    let (queue, mut backlog) = storage.open(ROOM).await;
    assert_nothing_is_handed_out(&mut backlog).await;
    let (letter, event) = queue.dead_letter(id).await.unwrap().unwrap();
    let DeadLetter { id: found, webhook, attempts, kind, reason, .. } = letter;
    assert_eq!((found, webhook.id(), attempts, kind, &*reason), (id, "a", 4, DeliverErrorKind::Permanent, "no"));
    assert_eq!((event.id, &event.body[..]), (id, &b"x"[..]));
}

pub(super) async fn dead_letters_are_found_by_where_they_came_from(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let mut ids = Vec::new();
    for (namespace, webhook) in [("shop", "a"), ("shop", "b"), ("stock", "a")] {
        let (ticket, id) = put(&queue, &mut backlog, namespace, webhook, "x").await;
        queue.backend().bury(ticket, id, State::default(), &no());
        ids.push(id);
    }
    let all = DeadLetterQuery::first(10);
    assert_eq!(letters(&queue, all.clone()).await, ids);
    assert_eq!(letters(&queue, DeadLetterQuery::first(2)).await, ids[..2]);
    assert_eq!(letters(&queue, DeadLetterQuery { after: Some(ids[0]), ..all.clone() }).await, ids[1..]);
    assert_eq!(letters(&queue, DeadLetterQuery { namespace: Some("shop".into()), ..all.clone() }).await, ids[..2]);
    assert_eq!(letters(&queue, DeadLetterQuery { webhook: Some("a".into()), ..all.clone() }).await, [ids[0], ids[2]]);
    let one = DeadLetterQuery { namespace: Some("stock".into()), webhook: Some("a".into()), ..all };
    assert_eq!(letters(&queue, one).await, ids[2..]);
}

/// The progress of an event: bits of the steps that are done, and of those that are given up.
fn progress(done: u32, given_up: u32) -> Progress {
    Progress { done, given_up, owner: *b"its item" }
}

pub(super) async fn a_dead_letter_is_replayed_as_if_it_were_new(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let (ticket, id) = put(&queue, &mut backlog, "shop", "a", "x").await;
    // The first item is done, and the second is given up.
    let state = State { attempts: 4, done: progress(1, 1 << 1) };
    queue.backend().bury(ticket, id, state.clone(), &no());
    assert_eq!(queue.replay(vec![id]).await.unwrap(), 1);
    assert_eq!(queue.replay(vec![id]).await.unwrap(), 0, "it is none any more");
    let due = take(&mut backlog, 1).await.remove(0);
    let (event, found) = load(&queue, &due.ticket).await;
    assert_eq!((event.id, &found), (id, &state.replayed()));
    assert_eq!((found.attempts, found.done), (0, progress(1, 0)), "a step that is done is not repeated");
    assert_eq!((queue.status().waiting, queue.status().dead_letters), (1, 0));
}

pub(super) async fn dead_letters_are_removed(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let (ticket, id) = put(&queue, &mut backlog, "shop", "a", &n.to_string()).await;
        queue.backend().bury(ticket, id, State::default(), &no());
        ids.push(id);
    }
    assert_eq!(queue.backend().expire_dead_letters(HOUR).await.unwrap(), 0);
    assert_eq!(queue.remove_dead_letters(vec![ids[0], ids[0]]).await.unwrap(), 1);
    assert!(queue.dead_letter(ids[0]).await.unwrap().is_none());
    assert_eq!(letters(&queue, DeadLetterQuery::first(10)).await, ids[1..]);
    assert_eq!(queue.backend().expire_dead_letters(Duration::ZERO).await.unwrap(), 2);
    stop(queue, backlog).await;
    let (queue, _backlog) = storage.open(ROOM).await;
    assert_eq!(queue.status().dead_letters, 0);
}

pub(super) async fn a_queue_that_is_full_refuses_and_takes_again(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(1 << 20).await;
    let delivery = delivery("shop", "a", &"x".repeat(50_000)).await;
    let mut taken = 0;
    let refused = loop {
        match accept(&queue, &delivery).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, QueueError::Full);
    assert!(taken > 2, "{taken}");
    let tickets: Vec<_> = take(&mut backlog, taken).await.into_iter().map(|due| due.ticket).collect();
    queue.backend().finish(&tickets);
    eventually("room", async || accept(&queue, &delivery).await.is_ok()).await;
}

pub(super) async fn an_event_that_never_fits_is_refused_as_such(storage: &impl Storage) {
    let (queue, _backlog) = storage.open(256 << 10).await;
    let delivery = delivery("shop", "a", &"x".repeat(300_000)).await;
    assert_eq!(accept(&queue, &delivery).await, Err(QueueError::TooLarge));
    assert_eq!(queue.status().waiting, 0);
}

pub(super) async fn without_a_worker_nothing_is_accepted(storage: &impl Storage) {
    let (queue, backlog) = storage.open(ROOM).await;
    let delivery = delivery("shop", "a", "x").await;
    drop(Worker::new(backlog));
    assert_eq!(accept(&queue, &delivery).await, Err(QueueError::Failed));
}

pub(super) async fn after_a_stop_events_are_accepted_for_the_next_process(storage: &impl Storage) {
    let (queue, backlog) = storage.open(ROOM).await;
    let store = store_of(Registry::builtin(), &[]).await;
    within("the worker's end", Worker::new(backlog).run(store, async {})).await;
    let sent = delivery("shop", "a", "x").await;
    assert_eq!(accept(&queue, &sent).await, Ok(Accepted::Stored));
    queue.backend().end().await;
    drop(queue);
    let (queue, mut backlog) = storage.open(ROOM).await;
    let due = take(&mut backlog, 1).await.remove(0);
    assert_eq!(load(&queue, &due.ticket).await.0.id, sent.id());
}

/// Fails twice and then delivers the event; an event `poison` always fails.
struct Third(Seen);

impl Module for Third {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        if delivery.body() == "poison" {
            return Err(no());
        }
        match delivery.attempt() {
            1 | 2 => Err(DeliverError::new(DeliverErrorKind::Connect, "not yet")),
            _ => {
                self.0.push(delivery);
                Ok(Ack::Delivered)
            }
        }
    }
}

const RETRIED: &str = r#"{"module": "third", "data_type": "blob",
    "retry": {"enabled": true, "max_attempts": 5, "initial_delay": 0.05, "max_delay": 0.1}}"#;

pub(super) async fn the_worker_delivers_retries_and_gives_up(storage: &impl Storage) {
    let (queue, backlog) = storage.open(ROOM).await;
    let seen = Seen::default();
    let module = seen.clone();
    let registry = Registry::builtin().module_fn("third", move |_: Nothing, _| Ok(Third(module.clone())));
    let store = store_of(registry, &[("shop", "a", RETRIED)]).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = tokio::spawn(Worker::new(backlog).run(store, async { drop(stopped.await) }));
    let (good, poison, orphan) =
        (delivery("shop", "a", "good").await, delivery("shop", "a", "poison").await, delivery("gone", "a", "x").await);
    for delivery in [&good, &poison, &orphan] {
        accept(&queue, delivery).await.unwrap();
    }
    eventually("the delivery", async || seen.count() == 1 && queue.status().dead_letters == 2).await;
    eventually("an empty queue", async || queue.status().waiting == 0).await;
    let delivered = seen.take().remove(0);
    assert_eq!((delivered.id(), delivered.attempt(), &delivered.body()[..]), (good.id(), 3, &b"good"[..]));
    assert_eq!(letters(&queue, DeadLetterQuery::first(10)).await, [poison.id(), orphan.id()]);
    drop(stop);
    within("the worker's end", worker).await.unwrap();
}

pub(super) async fn the_worker_leaves_what_it_did_not_do_to_the_next_one(storage: &impl Storage) {
    let seen = Seen::default();
    let webhooks = [("shop", "a", r#"{"module": "capture", "data_type": "blob"}"#)];
    let sent = delivery("shop", "a", "x").await;
    let (queue, backlog) = storage.open(ROOM).await;
    let stop_at_once = Worker::new(backlog).run(store_of(seen.registry(), &webhooks).await, async {});
    accept(&queue, &sent).await.unwrap();
    within("the worker's end", stop_at_once).await;
    drop(queue);
    assert_eq!(seen.count(), 0);
    let (_queue, backlog) = storage.open(ROOM).await;
    let store = store_of(seen.registry(), &webhooks).await;
    let _worker = tokio::spawn(Worker::new(backlog).run(store, std::future::pending()));
    eventually("the delivery", async || seen.count() == 1).await;
    assert_eq!(seen.take()[0].id(), sent.id());
}
