pub(crate) mod faulty;
mod model;
mod segments;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderMap;

use self::faulty::{Content, Faulty};
use super::*;
use crate::config::{DataType, WebhookInfo, WebhookKey};
use crate::event::{DeliverErrorKind, Delivery, Progress};

fn webhook(id: &str) -> Arc<WebhookInfo> {
    Arc::new(WebhookInfo::new(WebhookKey::new("ns", id).unwrap(), DataType::Json))
}

fn delivery(id: &str, body: impl Into<Bytes>) -> Delivery {
    let mut headers = HeaderMap::new();
    headers.append("x-a", "1".parse().unwrap());
    headers.append("x-a", "2".parse().unwrap());
    Delivery::new(webhook(id), headers, body)
}

async fn accept(spool: &Spool, delivery: &Delivery) -> Result<(), QueueError> {
    spool.accept(Offer::new(delivery, Duration::from_secs(30)))?.await.map(drop)
}

fn open(disk: &Faulty, max_bytes: u64) -> (Spool, Handouts) {
    Spool::on(Arc::new(disk.clone()), max_bytes).unwrap()
}

fn receive(handouts: &mut Handouts) -> Vec<Ticket> {
    handouts.receive()
}

/// Reads an event and its state from the disk.
fn read(spool: &Spool, ticket: &Ticket) -> io::Result<Option<(StoredEvent, StoredState)>> {
    spool.shared().load(ticket.sequence)
}

fn note(spool: &Spool, ticket: &Ticket, state: StoredState) {
    spool.shared().note(ticket.sequence, state);
}

fn bury(spool: &Spool, id: EventId, ticket: Ticket) {
    spool.shared().bury(id, ticket, death());
}

/// The progress of an event after these steps, one bit each, have succeeded.
fn done(done: u32) -> Progress {
    Progress { done, ..Progress::default() }
}

fn death() -> StoredState {
    let at = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let dead = Some(Box::new(Death { at, instant: None, kind: DeliverErrorKind::Permanent, reason: "no".into() }));
    StoredState { attempts: 3, done: done(1), retry: None, dead }
}

#[tokio::test]
async fn accepted_events_survive_a_power_cut() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    let sent = delivery("a", "{\"\u{e9}\":1}");
    accept(&spool, &sent).await.unwrap();
    accept(&spool, &delivery("b", "second")).await.unwrap();
    assert_eq!(receive(&mut tickets).len(), 2);

    let (spool, mut tickets) = open(&disk.after_power_cut(&mut fastrand::Rng::with_seed(1)), 1 << 20);
    let tickets = receive(&mut tickets);
    assert_eq!(tickets.iter().map(|ticket| ticket.webhook.id()).collect::<Vec<_>>(), ["a", "b"]);
    let (event, state) = read(&spool, &tickets[0]).unwrap().unwrap();
    assert_eq!((event.id, &event.body, &event.headers), (sent.id(), sent.body(), sent.headers()));
    let micros = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_micros();
    assert_eq!(micros(event.received_at), micros(sent.received_at()));
    assert_eq!(state, StoredState::default());
    assert_eq!(spool.status().waiting, 2);
}

#[tokio::test]
async fn the_state_of_an_event_survives_a_restart() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    for id in ["done", "tried", "dead", "new"] {
        accept(&spool, &delivery(id, id)).await.unwrap();
    }
    let given = receive(&mut tickets);
    let tried = StoredState {
        attempts: 2,
        done: done(5),
        retry: Some(Retry { at: UNIX_EPOCH + Duration::from_secs(9), wait: Duration::from_secs(5) }),
        dead: None,
    };
    let (dead, _) = read(&spool, &given[2]).unwrap().unwrap();
    spool.finish(&given[..1]);
    note(&spool, &given[1], tried.clone());
    bury(&spool, dead.id, given[2].clone());
    spool.end().await;

    let (spool, mut tickets) = open(&disk.after_kill(), 1 << 20);
    let left = receive(&mut tickets);
    assert_eq!(left.iter().map(|ticket| ticket.webhook.id()).collect::<Vec<_>>(), ["tried", "new"]);
    assert_eq!(read(&spool, &left[0]).unwrap().unwrap().1, tried);
    let letters = spool.list(&DeadLetterQuery::first(10));
    assert_eq!((letters.len(), letters[0].id, &*letters[0].reason, letters[0].attempts), (1, dead.id, "no", 3));
    assert_eq!(spool.read(dead.id).unwrap().unwrap().1.body, "dead");
    assert_eq!((spool.status().waiting, spool.status().dead_letters), (2, 1));
}

#[tokio::test]
async fn dead_letters_are_replayed_removed_and_expired() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    let mut ids = Vec::new();
    for id in ["x", "y", "z"] {
        let delivery = delivery(id, id);
        ids.push(delivery.id());
        accept(&spool, &delivery).await.unwrap();
    }
    for (ticket, id) in receive(&mut tickets).into_iter().zip(&ids) {
        bury(&spool, *id, ticket);
    }
    assert_eq!(spool.list(&DeadLetterQuery { after: Some(ids[0]), ..DeadLetterQuery::first(1) })[0].id, ids[1]);
    assert!(spool.replay_one(ids[0]) && !spool.replay_one(ids[0]));
    assert!(spool.remove(ids[1]) && !spool.remove(ids[1]));
    let replayed = receive(&mut tickets);
    assert_eq!(replayed.len(), 1);
    let (_, state) = read(&spool, &replayed[0]).unwrap().unwrap();
    assert_eq!((state.attempts, state.done, state.dead), (0, done(1), None), "a step that succeeded is not repeated");
    assert_eq!(spool.expire(Duration::from_secs(60)), 0, "the clock is not trusted yet");
    assert_eq!(spool.expire(Duration::ZERO), 1);
    assert_eq!((spool.status().waiting, spool.status().dead_letters), (1, 0));
    spool.end().await;
    let (spool, _) = open(&disk.after_kill(), 1 << 20);
    assert_eq!((spool.status().waiting, spool.status().dead_letters), (1, 0));
}

#[tokio::test]
#[allow(clippy::await_holding_lock)] // only the writer waits for this lock
async fn requests_that_wait_together_share_a_sync() {
    let disk = Faulty::default();
    let (spool, _tickets) = open(&disk, 1 << 30);
    let held = disk.lock();
    let accepts: Vec<_> = (0..100)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move { accept(&spool, &delivery("a", "x")).await })
        })
        .collect();
    // If the writer has begun already, it waits for the disk.
    tokio::task::yield_now().await;
    while spool.shared().pending().queued < 100 * 50 {
        tokio::task::yield_now().await;
    }
    drop(held);
    for accept in accepts {
        accept.await.unwrap().unwrap();
    }
    assert!(disk.lock().syncs <= 3, "{}", disk.lock().syncs);
}

#[tokio::test]
async fn a_lone_sender_is_not_kept_waiting() {
    let (spool, _tickets) = open(&Faulty::default(), 1 << 30);
    let delivery = delivery("a", "x");
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        accept(&spool, &delivery).await.unwrap();
        times.push(began.elapsed());
    }
    // A sender that had to wait for others would need longer each time. A single fast time proves the contrary, on however
    // busy a machine.
    assert!(times.iter().min() < Some(&crate::base::group::GATHER), "{times:?}");
}

#[tokio::test(start_paused = true)]
#[allow(clippy::await_holding_lock)] // so that the writer hangs
async fn a_disk_that_hangs_keeps_no_sender_longer_than_its_patience() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    let began = tokio::time::Instant::now();
    let held = disk.lock();
    let wait = async |n| {
        tokio::time::sleep(Duration::from_secs(n)).await;
        let outcome = accept(&spool, &delivery("a", "late")).await;
        assert_eq!((outcome, began.elapsed().as_secs()), (Err(QueueError::Failed), 30 + n));
    };
    join_all((0..20).map(wait)).await;
    drop(held);
    tokio::time::resume();
    spool.end().await;
    assert_eq!(receive(&mut tickets).len(), 20, "the events were on their way all the same");
    assert_eq!(accept(&spool, &delivery("a", "x")).await, Ok(()));
}

#[tokio::test]
#[allow(clippy::await_holding_lock)] // so that the writer hangs
async fn senders_that_hang_up_leave_no_other_sender_waiting() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let held = disk.lock();
        let mut accepts: Vec<_> = (0..20)
            .map(|_| {
                let spool = spool.clone();
                tokio::spawn(async move { accept(&spool, &delivery("a", "x")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let hang_up = |accepts: &mut Vec<tokio::task::JoinHandle<_>>, random: &mut fastrand::Rng| {
            (0..5).for_each(|_| accepts.swap_remove(random.usize(..accepts.len())).abort());
        };
        hang_up(&mut accepts, &mut random);
        drop(held);
        // The task that is woken first cannot run on this thread meanwhile, and may be aborted before it is polled.
        while receive(&mut tickets).is_empty() {
            std::thread::yield_now();
        }
        hang_up(&mut accepts, &mut random);
        for accept in accepts {
            tokio::time::timeout(Duration::from_secs(10), accept).await.unwrap().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn fresh_events_fill_their_share_of_memory_and_no_more() {
    let (spool, mut tickets) = open(&Faulty::default(), 64 << 20);
    let fill = async |spool: &Spool| {
        let bodies = (0..800).map(|n: u16| [&n.to_le_bytes()[..], &[7; 8 << 10]].concat());
        let deliveries: Vec<_> = bodies.map(|body| delivery("a", body)).collect();
        join_all(deliveries.iter().map(|delivery| accept(spool, delivery))).await;
        deliveries
    };
    let end: [fn(&Spool, Vec<Ticket>); 4] = [
        |spool, tickets| spool.finish(&tickets),
        |spool, tickets| tickets.iter().for_each(|ticket| note(spool, ticket, StoredState::default())),
        |spool, tickets| {
            let bury =
                |ticket: Ticket| bury(spool, EventId::from_uuid(uuid::Uuid::from_u128(ticket.sequence.into())), ticket);
            tickets.into_iter().for_each(bury);
        },
        |_, _| {},
    ];
    for end in end {
        fill(&spool).await;
        end(&spool, receive(&mut tickets));
    }
    // Events that were neither tried nor finished are still in memory, and there is no room for more.
    fill(&spool).await;
    let given = receive(&mut tickets);
    let all: Vec<_> = spool.shared().ledger().sequences();
    let all: Vec<_> = all.into_iter().map(|sequence| Ticket { sequence, ..given[0].clone() }).collect();
    let fresh: Vec<_> = spool.take_fresh(&all).into_iter().flatten().collect();
    let bytes: usize = fresh.iter().map(|event| event.body.len()).sum();
    // A buffer may be twice as large as its content.
    assert!((2 << 20..=4 << 20).contains(&bytes), "{bytes}");
    // Events that were taken count until they are dropped.
    drop(fresh);
    let sent = fill(&spool).await;
    let given = receive(&mut tickets);
    let fresh = spool.take_fresh(&given);
    assert!(fresh[0].is_some() && spool.take_fresh(&given).iter().all(Option::is_none), "there is room again");
    for (event, ticket) in fresh.into_iter().zip(&given) {
        let (read, _) = read(&spool, ticket).unwrap().unwrap();
        let event = event.unwrap_or(read.clone());
        assert_eq!((event.id, &event.body, &event.headers), (read.id, &read.body, &read.headers));
        assert!(sent.iter().any(|sent| sent.id() == event.id));
    }
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_when_there_is_room() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    let mut waiting = Vec::new();
    let mut refused = BTreeSet::new();
    for n in 0..400 {
        let id = format!("w{}", n % 4);
        match accept(&spool, &delivery(&id, vec![b'x'; 8 << 10])).await {
            Ok(()) => waiting.extend(receive(&mut tickets)),
            Err(error) => {
                assert_eq!(error, QueueError::Full);
                refused.insert(id);
            }
        }
    }
    assert_eq!(refused.len(), 4, "the spool is full for all of them");
    assert!(disk.bytes() <= 1 << 20, "{}", disk.bytes());
    // Nine of ten are delivered; every segment keeps a few events.
    for (n, ticket) in waiting.iter().enumerate() {
        if n % 10 != 0 {
            spool.finish(std::slice::from_ref(ticket));
        }
    }
    spool.end().await;
    for n in 0..2000 {
        let delivery = delivery("w0", vec![b'y'; 8 << 10]);
        let mut accepted = accept(&spool, &delivery).await;
        for _ in 0..100 {
            if accepted.is_ok() {
                break;
            }
            spool.end().await;
            accepted = accept(&spool, &delivery).await;
        }
        accepted.unwrap_or_else(|error| panic!("{error:?} at {n}"));
        spool.finish(&receive(&mut tickets));
    }
    assert!(disk.bytes() <= 1 << 20, "{}", disk.bytes());
    // Compaction has moved those few events many times.
    let (spool, mut tickets) = open(&disk.after_kill(), 1 << 20);
    let left: Vec<_> = receive(&mut tickets).iter().map(|ticket| ticket.sequence).collect();
    let expected: Vec<_> = waiting.iter().step_by(10).map(|ticket| ticket.sequence).collect();
    assert_eq!(left[..expected.len()], expected);
    assert!(read(&spool, &waiting[0]).unwrap().is_some());
}

#[tokio::test]
async fn one_webhook_takes_no_more_than_half() {
    let (spool, _tickets) = open(&Faulty::default(), 1 << 20);
    let mut taken = 0;
    while accept(&spool, &delivery("greedy", vec![b'x'; 8 << 10])).await.is_ok() {
        taken += 1;
    }
    assert!((50..=64).contains(&taken), "{taken}");
    assert_eq!(accept(&spool, &delivery("other", "x")).await, Ok(()));
}

#[tokio::test]
async fn a_failing_disk_refuses_and_loses_nothing() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    accept(&spool, &delivery("a", "before")).await.unwrap();
    for (fail, name) in [(0, "append"), (1, "sync"), (2, "create"), (3, "append and truncate")] {
        {
            let mut contents = disk.lock();
            (contents.fail_append, contents.fail_truncate) = (fail == 0 || fail == 3, fail == 3);
            (contents.fail_sync, contents.fail_create) = (fail == 1, fail == 2);
        }
        if fail == 2 {
            // A failed append makes the writer close its segment, so that it needs a new one.
            disk.lock().fail_append = true;
        }
        assert_eq!(accept(&spool, &delivery("a", "refused")).await, Err(QueueError::Failed), "{name}");
        assert_eq!(accept(&spool, &delivery("a", "refused")).await, Err(QueueError::Failed), "{name}");
        {
            let mut contents = disk.lock();
            (contents.fail_append, contents.fail_truncate) = (false, false);
            (contents.fail_sync, contents.fail_create) = (false, false);
        }
        accept(&spool, &delivery("a", "after")).await.unwrap();
    }
    let given = receive(&mut tickets);
    assert_eq!(given.len(), 5);
    spool.finish(&given[..1]);
    spool.end().await;
    let (spool, mut tickets) = open(&disk.after_power_cut(&mut fastrand::Rng::with_seed(3)), 1 << 20);
    let bodies: Vec<_> = receive(&mut tickets)
        .iter()
        .map(|ticket| read(&spool, ticket).unwrap().unwrap().0.body)
        .filter(|body| body != "refused")
        .collect();
    assert_eq!(bodies, ["after"; 4]);
}

#[tokio::test]
async fn notes_wait_for_a_failing_disk() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    accept(&spool, &delivery("a", "x")).await.unwrap();
    disk.lock().fail_append = true;
    spool.finish(&receive(&mut tickets));
    assert_eq!(accept(&spool, &delivery("a", "y")).await, Err(QueueError::Failed));
    disk.lock().fail_append = false;
    accept(&spool, &delivery("a", "z")).await.unwrap();
    spool.end().await;
    let (spool, mut tickets) = open(&disk.after_kill(), 1 << 20);
    let left = receive(&mut tickets);
    assert_eq!(left.len(), 1);
    assert_eq!(read(&spool, &left[0]).unwrap().unwrap().0.body, "z");
}

#[tokio::test]
async fn damage_costs_the_event_it_hits() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    for body in ["one", "two", "three"] {
        accept(&spool, &delivery("a", body)).await.unwrap();
    }
    let given = receive(&mut tickets);
    let (place, _) = spool.shared().ledger().find(given[1].sequence).unwrap();
    let copy = disk.after_kill();
    copy.lock().segments.get_mut(&place.segment).unwrap().bytes[place.offset as usize + 30] ^= 1;
    let (spool, mut tickets) = open(&copy, 1 << 20);
    let left = receive(&mut tickets);
    assert_eq!(left.iter().map(|ticket| ticket.sequence).collect::<Vec<_>>(), [given[0].sequence, given[2].sequence]);
    assert!(read(&spool, &left[1]).unwrap().is_some());

    // The same damage while the queue is open: the worker gets an error, not another event.
    let (spool, mut tickets) = open(&disk, 1 << 20);
    let ticket = receive(&mut tickets).remove(1);
    let (place, _) = spool.shared().ledger().find(ticket.sequence).unwrap();
    disk.lock().segments.get_mut(&place.segment).unwrap().bytes[place.offset as usize + 30] ^= 1;
    let ticket = [ticket];
    assert!(matches!(spool.load(&ticket).await[..], [Loaded::Lost(_)]));
    assert!(matches!(spool.load(&ticket).await[..], [Loaded::Gone]));
}

#[tokio::test]
#[allow(clippy::await_holding_lock)] // so that the writer hangs
async fn a_disk_that_hangs_is_failing() {
    let disk = Faulty::default();
    let (spool, _tickets) = open(&disk, 1 << 20);
    accept(&spool, &delivery("a", "x")).await.unwrap();
    // The writer clears the mark after it has answered the sender.
    let is_marked_busy = async |expected: bool| {
        let reached = async {
            while spool.shared().busy_since().is_some() != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
    };
    is_marked_busy(false).await;
    let held = disk.lock();
    let waiting = tokio::spawn({
        let spool = spool.clone();
        async move { accept(&spool, &delivery("a", "x")).await }
    });
    is_marked_busy(true).await;
    let since = spool.shared().busy_since().unwrap();
    assert!(!spool.shared().is_failing_at(since + shared::HANGS));
    assert!(spool.shared().is_failing_at(since + shared::HANGS + Duration::from_millis(1)));
    drop(held);
    waiting.await.unwrap().unwrap();
    is_marked_busy(false).await;
    assert!(!spool.shared().is_failing_at(since + 2 * shared::HANGS));
}

#[tokio::test]
async fn events_read_at_the_start_are_synced_before_an_older_copy_may_go() {
    let disk = Faulty::default();
    let (spool, _tickets) = open(&disk, 1 << 20);
    accept(&spool, &delivery("a", "first")).await.unwrap();
    {
        let mut contents = disk.lock();
        (contents.fail_sync, contents.fail_truncate) = (true, true);
    }
    // Written, but not synced.
    assert_eq!(accept(&spool, &delivery("a", "second")).await, Err(QueueError::Failed));
    let disk = disk.after_kill();
    let is_synced = |disk: &Faulty| disk.lock().segments.values().all(|content| content.synced == content.bytes);
    assert!(!is_synced(&disk));
    let (spool, _tickets) = open(&disk, 1 << 20);
    assert_eq!(spool.status().waiting, 2);
    assert!(is_synced(&disk));
}

#[tokio::test]
async fn a_spool_full_of_live_events_is_not_compacted_for_ever() {
    let disk = Faulty::default();
    let (spool, mut tickets) = open(&disk, 1 << 20);
    let mut n = 0;
    while accept(&spool, &delivery(["a", "b", "c"][n % 3], vec![b'x'; 200])).await.is_ok() {
        n += 1;
    }
    for attempts in 1..4 {
        let tried = StoredState { attempts, done: done(1), ..StoredState::default() };
        receive(&mut tickets).iter().for_each(|ticket| note(&spool, ticket, tried.clone()));
    }
    let newest = || disk.lock().segments.keys().last().copied();
    let mut quiet = 0;
    for _ in 0..2000 {
        let before = newest();
        spool.end().await;
        quiet = if newest() == before { quiet + 1 } else { 0 };
        if quiet == 50 {
            assert!(disk.bytes() <= 1 << 20, "{}", disk.bytes());
            return;
        }
    }
    panic!("compaction does not end");
}

#[test]
fn a_segment_without_its_head_stops_the_start() {
    let disk = Faulty::default();
    disk.lock().segments.insert(1, Content::synced(vec![7; 100]));
    let error = Spool::on(Arc::new(disk.clone()), 1 << 20).err().unwrap();
    assert!(error.to_string().contains("segment 1"), "{error}");
    // A power cut just after the creation leaves a segment without a head, and without events.
    for left in [vec![], vec![0; 4096], b"TWSP".to_vec()] {
        let disk = Faulty::default();
        disk.lock().segments.insert(1, Content::synced(left));
        assert!(Spool::on(Arc::new(disk), 1 << 20).is_ok());
    }
}

#[test]
fn a_directory_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/here");
    let (queue, backlog) = DiskQueue::new(&path).open().unwrap();
    let error = DiskQueue::new(&path).open().err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    drop((queue, backlog));
}
