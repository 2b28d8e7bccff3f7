//! The contract of every backend.

use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::sync::oneshot;
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery, EventId, Progress};
use tower_webhook::module::Module;
use tower_webhook::queue::{
    Accepted, Backlog, DeadLetter, DeadLetterQuery, Dropped, Due, Handout, Loaded, Matched, Offer, Queue, QueueError,
    State, StoredEvent, Ticket, WaitingQuery,
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
        if let Handout::Due(events) = within("an event to be handed out", backlog.next()).await.unwrap() {
            all.extend(events);
        }
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

async fn assert_nothing_is_handed_out(backlog: &mut Backlog) {
    let handed_out = tokio::time::timeout(Duration::from_millis(100), backlog.next()).await;
    assert!(!matches!(&handed_out, Ok(Some(Handout::Due(events))) if !events.is_empty()), "{handed_out:?}");
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
    if let Ok(Some(Handout::Due(due))) = tokio::time::timeout(Duration::from_millis(100), backlog.next()).await {
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
    let one = DeadLetterQuery { namespace: Some("stock".into()), webhook: Some("a".into()), ..all.clone() };
    assert_eq!(letters(&queue, one).await, ids[2..]);
    let among = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        DeadLetterQuery { namespaces: Some(names), ..all.clone() }
    };
    assert_eq!(letters(&queue, among(&["stock", "none"])).await, ids[2..]);
    assert_eq!(letters(&queue, among(&[])).await, []);
}

/// Makes dead letters with these errors. Returns their ids.
async fn bury(queue: &Queue, backlog: &mut Backlog, errors: &[(DeliverErrorKind, &'static str)]) -> Vec<EventId> {
    let mut ids = Vec::new();
    for (kind, reason) in errors {
        let (ticket, id) = put(queue, backlog, "shop", "a", "x").await;
        queue.backend().bury(ticket, id, State::default(), &DeliverError::new(*kind, *reason));
        ids.push(id);
    }
    ids
}

const ERRORS: [(DeliverErrorKind, &str); 4] = [
    (DeliverErrorKind::Permanent, "no such Table"),
    (DeliverErrorKind::Connect, "refused"),
    (DeliverErrorKind::Permanent, "too large"),
    (DeliverErrorKind::Permanent, "no such Table"),
];

pub(super) async fn dead_letters_are_found_by_why_and_when_they_were_given_up(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let ids = bury(&queue, &mut backlog, &ERRORS).await;
    let all = DeadLetterQuery::first(10);
    let connect = DeadLetterQuery { kind: Some(DeliverErrorKind::Connect), ..all.clone() };
    assert_eq!(letters(&queue, connect).await, [ids[1]]);
    let table = DeadLetterQuery { reason: Some("table".into()), ..all.clone() };
    assert_eq!(letters(&queue, table.clone()).await, [ids[0], ids[3]]);
    assert_eq!(letters(&queue, DeadLetterQuery { limit: 1, after: Some(ids[0]), ..table }).await, [ids[3]]);
    let older = |than| DeadLetterQuery { older_than: Some(than), ..all.clone() };
    assert_eq!(letters(&queue, older(HOUR)).await, []);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(letters(&queue, older(Duration::from_millis(1))).await, ids);
    assert!(queue.dead_letters(all.clone()).await.unwrap().iter().all(|letter| letter.size > 0));

    let groups = queue.dead_letter_groups(all).await.unwrap();
    let found: Vec<_> = groups.groups.iter().map(|group| (&*group.reason, group.kind, group.count)).collect();
    assert_eq!(
        found,
        [
            ("no such Table", DeliverErrorKind::Permanent, 2),
            ("refused", DeliverErrorKind::Connect, 1),
            ("too large", DeliverErrorKind::Permanent, 1)
        ]
    );
    assert!(groups.groups[0].oldest <= groups.groups[0].newest && groups.others == 0);
}

pub(super) async fn all_dead_letters_that_match_are_replayed_or_deleted(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let ids = bury(&queue, &mut backlog, &ERRORS).await;
    let permanent = DeadLetterQuery { kind: Some(DeliverErrorKind::Permanent), ..DeadLetterQuery::first(usize::MAX) };
    let dry = queue.replay_matching(permanent.clone(), true).await.unwrap();
    assert_eq!(dry, Matched { matched: 3, done: 0 });
    assert_eq!(queue.remove_matching(permanent.clone(), true).await.unwrap(), dry);
    assert_eq!(queue.count_dead_letters(permanent.clone()).await.unwrap(), 3);
    assert_eq!(queue.status().dead_letters, 4, "a dry run changes nothing");

    let one = DeadLetterQuery { limit: 1, ..permanent.clone() };
    assert_eq!(queue.replay_matching(one, false).await.unwrap(), Matched { matched: 1, done: 1 });
    let replayed = take(&mut backlog, 1).await.remove(0).ticket;
    assert_eq!(load(&queue, &replayed).await.0.id, ids[0]);
    assert_eq!(queue.remove_matching(permanent, false).await.unwrap(), Matched { matched: 2, done: 2 });
    assert_eq!(letters(&queue, DeadLetterQuery::first(10)).await, [ids[1]]);
    assert_eq!((queue.status().waiting, queue.status().dead_letters), (1, 1));
}

async fn waiting(queue: &Queue, query: WaitingQuery) -> (usize, Vec<EventId>) {
    let page = queue.waiting(query).await.unwrap();
    (page.total, page.events.into_iter().map(|event| event.id).collect())
}

pub(super) async fn waiting_events_are_listed(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    assert_eq!((queue.status().oldest, queue.status().max_bytes), (None, ROOM));
    let mut all = Vec::new();
    for (namespace, webhook) in [("shop", "a"), ("shop", "b"), ("stock", "a"), ("shop", "a")] {
        all.push(put(&queue, &mut backlog, namespace, webhook, "x").await);
    }
    let ids: Vec<_> = all.iter().map(|(_, id)| *id).collect();
    let first = WaitingQuery::first(10);
    assert_eq!(waiting(&queue, first.clone()).await, (4, ids.clone()));
    assert_eq!(waiting(&queue, WaitingQuery::first(2)).await, (4, ids[..2].to_vec()));
    let rest = WaitingQuery { after: Some(ids[1]), ..first.clone() };
    assert_eq!(waiting(&queue, rest).await, (4, ids[2..].to_vec()));
    let shop = WaitingQuery { namespace: Some("shop".into()), limit: 1, ..first.clone() };
    assert_eq!(waiting(&queue, shop).await, (3, ids[..1].to_vec()));
    let stock = WaitingQuery { namespaces: Some(vec!["stock".into()]), ..first.clone() };
    assert_eq!(waiting(&queue, stock).await, (1, vec![ids[2]]));
    let b = WaitingQuery { webhook: Some("b".into()), ..first.clone() };
    assert_eq!(waiting(&queue, b).await, (1, vec![ids[1]]));

    let (oldest, last) = (all[0].0.clone(), all[3].0.clone());
    let _ = queue.backend().put_off(last, State { attempts: 2, done: Progress::default() }, HOUR);
    let page = queue.waiting(first.clone()).await.unwrap();
    let event = &page.events[3];
    assert_eq!((event.attempts, event.under_way), (2, false));
    let left = event.next_attempt.unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left <= HOUR && left > HOUR - Duration::from_secs(60), "{left:?}");
    assert!(page.events[..3].iter().all(|event| event.next_attempt.is_none() && event.size > 0));

    let (event, content) = queue.waiting_event(ids[1]).await.unwrap().unwrap();
    assert_eq!((event.webhook.id(), content.id, &content.body[..]), ("b", ids[1], &b"x"[..]));
    let received = content.received_at.duration_since(ids[1].received_at()).unwrap();
    assert!(received < Duration::from_millis(1), "{received:?}");
    let trying = queue.trying(ids[1]);
    assert!(queue.waiting_event(ids[1]).await.unwrap().unwrap().0.under_way && queue.status().under_way == 1);
    drop(trying);
    assert!(!queue.waiting_event(ids[1]).await.unwrap().unwrap().0.under_way && queue.status().under_way == 0);

    let age = queue.status().oldest.unwrap().duration_since(ids[0].received_at()).unwrap();
    assert!(age < Duration::from_millis(1), "{age:?}");
    queue.backend().finish(&[oldest]);
    assert!(queue.waiting_event(ids[0]).await.unwrap().is_none());
    assert!(queue.status().oldest.unwrap() >= ids[1].received_at());
    queue.backend().bury(all[1].0.clone(), ids[1], State::default(), &no());
    assert_eq!(waiting(&queue, first.clone()).await, (2, ids[2..].to_vec()));
    assert!(queue.waiting_event(ids[1]).await.unwrap().is_none(), "it is a dead letter");
    assert!(queue.status().oldest.unwrap() >= ids[2].received_at());
    // A replayed event is as old as it was.
    queue.replay(vec![ids[1]]).await.unwrap();
    let age = queue.status().oldest.unwrap().duration_since(ids[1].received_at()).unwrap();
    assert!(age < Duration::from_millis(1), "{age:?}");
    stop(queue, backlog).await;
    let (queue, _backlog) = storage.open(ROOM).await;
    assert_eq!(waiting(&queue, first).await, (3, ids[1..].to_vec()));
}

pub(super) async fn a_dropped_event_is_gone_for_good(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(ROOM).await;
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(put(&queue, &mut backlog, "shop", "a", &n.to_string()).await);
    }
    let [waits, delivered, postponed, given_up, dead, left] = &*all else { panic!() };
    queue.backend().bury(dead.0.clone(), dead.1, State::default(), &no());
    let trying = queue.trying(delivered.1);
    let ids: Vec<_> = all[..5].iter().map(|(_, id)| *id).collect();
    assert_eq!(queue.drop_waiting(ids.clone()).await.unwrap(), Dropped { events: 4, under_way: 1 });
    assert_eq!(queue.drop_waiting(ids).await.unwrap(), Dropped::default(), "they are gone");
    drop(trying);
    assert_eq!((queue.status().waiting, queue.status().dead_letters), (1, 1));
    // Whatever the worker does with a ticket that it still holds has no effect.
    assert!(matches!(queue.backend().load(std::slice::from_ref(&waits.0)).await[..], [Loaded::Gone]));
    queue.backend().finish(std::slice::from_ref(&delivered.0));
    queue.backend().note(&postponed.0, State { attempts: 1, done: progress(1, 0) });
    let _ = queue.backend().put_off(postponed.0.clone(), State::default(), Duration::ZERO);
    queue.backend().bury(given_up.0.clone(), given_up.1, State::default(), &no());
    assert_eq!((queue.status().waiting, queue.status().dead_letters), (1, 1));
    // Nothing is asked to be stored any more: the answer alone promises it.
    drop((queue, backlog));
    let (queue, mut backlog) = storage.open(ROOM).await;
    let due = take(&mut backlog, 1).await.remove(0);
    assert_eq!(load(&queue, &due.ticket).await.0.id, left.1);
    assert_nothing_is_handed_out(&mut backlog).await;
    assert_eq!((queue.status().waiting, queue.status().dead_letters), (1, 1));
}

pub(super) async fn the_room_of_dropped_events_is_free_again(storage: &impl Storage) {
    let (queue, mut backlog) = storage.open(1 << 20).await;
    let delivery = delivery("shop", "a", &"x".repeat(50_000)).await;
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let mut taken = 0;
        while accept(&queue, &delivery).await.is_ok() {
            taken += 1;
        }
        rounds.push(taken);
        take(&mut backlog, taken).await;
        let all = waiting(&queue, WaitingQuery::first(100)).await.1;
        queue.drop_waiting(all).await.unwrap();
        assert_eq!(queue.status().waiting, 0);
        eventually("room", async || accept(&queue, &delivery).await.is_ok()).await;
        take(&mut backlog, 1).await;
        queue.drop_waiting(vec![delivery.id()]).await.unwrap();
    }
    assert!(rounds.iter().all(|taken| *taken + 1 >= rounds[0]), "{rounds:?}");
}

const SLOWLY: &str = r#"{"module": "third", "data_type": "blob",
    "retry": {"enabled": true, "max_attempts": 5, "initial_delay": 3600, "max_delay": 3600}}"#;

pub(super) async fn an_operator_ends_the_wait_of_an_event_or_drops_it(storage: &impl Storage) {
    let (queue, backlog) = storage.open(ROOM).await;
    let seen = Seen::default();
    let module = seen.clone();
    let registry = Registry::builtin().module_fn("third", move |_: Nothing, _| Ok(Third(module.clone())));
    let store = store_of(registry, &[("shop", "a", SLOWLY)]).await;
    let _worker = tokio::spawn(Worker::new(backlog).run(store, std::future::pending()));
    let (wanted, other) = (delivery("shop", "a", "good").await, delivery("shop", "a", "good").await);
    for delivery in [&wanted, &other] {
        accept(&queue, delivery).await.unwrap();
    }
    let attempts =
        async |id| queue.waiting_event(id).await.unwrap().map(|(event, _)| (event.attempts, event.next_attempt));
    for n in 1..=2 {
        eventually(
            "a failed attempt",
            async || matches!(attempts(wanted.id()).await, Some((made, Some(_))) if made == n),
        )
        .await;
        assert_eq!(queue.retry_now(vec![wanted.id(), EventId::from_str(&uuid(7)).unwrap()]).await.unwrap(), 1);
    }
    eventually("the delivery", async || seen.count() == 1 && queue.status().waiting == 1).await;
    assert_eq!((seen.take()[0].id(), queue.retry_now(vec![wanted.id()]).await.unwrap()), (wanted.id(), 0));
    assert!(matches!(attempts(other.id()).await, Some((1, Some(_)))), "nobody asked for it");
    assert_eq!(queue.drop_waiting(vec![other.id()]).await.unwrap(), Dropped { events: 1, under_way: 0 });
    assert_eq!(queue.retry_now(vec![other.id()]).await.unwrap(), 0);
    assert_eq!((queue.status().waiting, queue.status().dead_letters, seen.count()), (0, 0, 0));
}

fn uuid(number: u8) -> String {
    format!("00000000-0000-7000-8000-0000000000{number:02}")
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
