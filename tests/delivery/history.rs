//! What the history of a real gateway says afterwards: it agrees with what senders and targets have seen.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_webhook::history::sqlite::SqliteHistory;
use tower_webhook::history::{Event, EventQuery, History, Outcome, Row};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{alone, beside_others, eventually, within};

const GUARDED: &str = "/webhook/shop/guarded";
const SENT: &str = "/webhook/shop/sent";
const ACCEPTED: &str = "/webhook/shop/accepted";

/// `shop/sent` and `shop/accepted` send to the target; nobody knows the token of `shop/guarded`.
fn webhooks(target: &Target) -> Value {
    let retry = json!({"enabled": true, "max_attempts": 5, "initial_delay": 0.02, "max_delay": 0.1});
    let webhook = |ack: &str, path: &str| {
        let config = json!({"url": target.url(path)});
        json!({"module": "http_webhook", "ack": ack, "module-config": config, "retry": retry})
    };
    json!({"shop": {
        "sent": webhook("delivered", "/sent"),
        "accepted": webhook("accepted", "/accepted"),
        "guarded": {"module": "discard", "authorization": "Bearer nobody-knows-it"},
    }})
}

fn home(target: &Target) -> Home {
    Home::new(&webhooks(target)).with("HISTORY_DIR", "history").with("RUST_LOG", "warn,gateway=info")
}

/// The history that a gateway has left behind. A copy is opened, since nobody else may have it open.
struct Left {
    history: History,
    _directory: tempfile::TempDir,
}

impl Left {
    fn of(home: &Home) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let status = Command::new("cp").arg("-a").arg(home.path("history")).arg(copy.path()).status().unwrap();
        assert!(status.success());
        let history = SqliteHistory::new(copy.path().join("history")).open();
        Self { history: history.unwrap_or_else(|error| panic!("{error}: {}", home.log())), _directory: copy }
    }

    /// Every event, by its id.
    async fn rows(&self) -> HashMap<String, Row> {
        let mut query = EventQuery { limit: 1000, ..EventQuery::default() };
        let mut rows = HashMap::new();
        loop {
            let page = self.history.events(query.clone()).await.unwrap();
            rows.extend(page.events.into_iter().map(|row| (row.id.to_string(), row)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return rows,
            }
        }
    }

    async fn event(&self, id: &str) -> Event {
        let event = self.history.event(id.parse().unwrap()).await.unwrap();
        event.unwrap_or_else(|| panic!("the history knows nothing of {id}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_event_is_found_by_its_id_with_its_attempts_and_their_answers() {
    let _guard = beside_others().await;
    let target = Target::start(|arrival| match arrival.attempt {
        1 => Reply::status(503),
        2 => Reply::Reset,
        _ => Reply::ok(),
    })
    .await;
    let home = home(&target);
    let gateway = home.start().await;
    let id = gateway.post(ACCEPTED, br#"{"order": 7, "password": "s3cret"}"#).await.accepted();
    eventually("the event to be taken", async || !target.taken().is_empty()).await;
    let refused = gateway.post(GUARDED, b"{}").await;
    assert_eq!(refused.status, 401);
    let shown = async || gateway.admin("GET", &format!("/events/{id}")).await.json();
    eventually("the operator to see it delivered", async || shown().await["outcome"] == "delivered").await;
    let shown = shown().await;
    let answers: Vec<_> = shown["attempts_made"].as_array().unwrap().iter().map(|made| &made["answer"]).collect();
    let answer = |status: u16| json!({"status": status, "body": "ok"});
    assert_eq!(answers, [&answer(503), &Value::Null, &answer(200)], "{shown}");
    // The stop writes the last entries.
    gateway.stop().await;

    let left = Left::of(&home);
    let event = left.event(&id).await;
    assert_eq!((event.row.outcome, event.row.status, event.row.attempts), (Outcome::Delivered, 202, 3));
    assert_eq!((event.row.webhook.to_string(), event.row.is_accepted), ("shop/accepted".to_owned(), true));
    let body = String::from_utf8(event.body.unwrap()).unwrap();
    assert!(body.contains(r#""order": 7"#) && !body.contains("s3cret"), "{body}");
    let attempts: Vec<_> = event
        .attempts
        .iter()
        .map(|attempt| {
            let kind = attempt.error.as_ref().map(|(kind, _)| kind.label());
            (attempt.number, kind, attempt.answer.as_ref().map(|answer| (answer.status, &answer.body[..])))
        })
        .collect();
    assert_eq!(
        attempts,
        [
            (1, Some("unavailable"), Some((503, &b"ok"[..]))),
            (2, Some("connect"), None),
            (3, None, Some((200, &b"ok"[..])))
        ]
    );
    let others: Vec<_> = left.rows().await.into_values().filter(|row| row.id.to_string() != id).collect();
    let [other] = &others[..] else { panic!("{others:?}") };
    assert_eq!((other.outcome, other.kind.as_deref(), other.status), (Outcome::Refused, Some("unauthenticated"), 401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_each_kill_the_history_agrees_with_what_senders_and_targets_have_seen() {
    let _guard = beside_others().await;
    kills(30, 1).await;
}

const SENDERS: u64 = 4;

/// The longest time until an entry is written, on a busy machine.
const UNWRITTEN: Duration = Duration::from_secs(2);

/// The events that were acknowledged, by their ids: the status, and when the answer was read.
type Acknowledged = Mutex<HashMap<String, (u16, Instant)>>;

async fn kills(rounds: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let failures = Mutex::new(fastrand::Rng::with_seed(seed));
    let target = Target::start(move |_| match failures.lock().unwrap().u32(..6) {
        0 => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let home = home(&target);
    let acknowledged = Arc::<Acknowledged>::default();
    let (gateways, now) = watch::channel(None);
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(send(number, Arc::clone(&acknowledged), now.clone()));
    }
    let (mut lost, mut known) = (HashSet::new(), 0);
    for round in 0..rounds {
        let gateway = home.start().await;
        let before = acknowledged.lock().unwrap().len();
        gateways.send_replace(Some(gateway.address));
        eventually("events to be acknowledged", async || acknowledged.lock().unwrap().len() >= before + 20).await;
        tokio::time::sleep(Duration::from_millis(random.u64(300..1000))).await;
        gateways.send_replace(None);
        let killed = Instant::now();
        gateway.kill().await;
        // Answers that were on their way when the gateway was killed.
        tokio::time::sleep(Duration::from_millis(50)).await;

        let rows = Left::of(&home).rows().await;
        let taken: HashSet<_> = target.taken().into_iter().map(|arrival| arrival.event).collect();
        for (id, row) in &rows {
            let is_at_target = row.webhook.id() != "guarded" && row.outcome == Outcome::Delivered;
            assert!(!is_at_target || taken.contains(id), "round {round}: {id} is shown as delivered: {row:?}");
        }
        for (id, (status, at)) in acknowledged.lock().unwrap().iter() {
            if lost.contains(id) {
                continue;
            }
            // Without a status, an attempt was written and the request was not.
            let Some(row) = rows.get(id).filter(|row| row.status != 0) else {
                let age = killed.saturating_duration_since(*at);
                assert!(age < UNWRITTEN, "round {round}: {id} was acknowledged {age:?} before, and is not there");
                lost.insert(id.clone());
                continue;
            };
            let is_true = match status {
                200 => row.outcome == Outcome::Delivered,
                // The attempt that was broken off, and those after a start, may not be there yet.
                _ => matches!(row.outcome, Outcome::Waiting | Outcome::Delivered | Outcome::Failed),
            };
            assert!(is_true, "round {round}: {id} was answered {status}: {row:?}");
        }
        known = rows.len();
    }
    drop(gateways);
    while senders.join_next().await.transpose().unwrap().is_some() {}
    let acknowledged = acknowledged.lock().unwrap().len();
    println!("history: {rounds} kills, {acknowledged} acknowledged, {known} known, {} lost by kills", lost.len());
    // A gateway lives for a second. On a busy machine most of its entries may still wait when it is killed.
    assert!(known > acknowledged / 10, "only {known} of {acknowledged} are known");
    assert!(!home.log().contains("moved aside"), "a kill damages nothing: {}", home.log());
}

/// Sends one event after another to the gateway that runs at the time, until there will be no more gateways.
async fn send(number: u64, acknowledged: Arc<Acknowledged>, mut now: watch::Receiver<Option<SocketAddr>>) {
    let mut client: Option<(SocketAddr, Client)> = None;
    for event in 0_u64.. {
        let Ok(address) = now.wait_for(Option::is_some).await.map(|address| address.unwrap()) else { return };
        if client.as_ref().is_none_or(|(connected, _)| *connected != address) {
            client = Client::connect(address).await.ok().map(|client| (address, client));
        }
        let Some((_, connected)) = &mut client else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let path = [SENT, ACCEPTED, ACCEPTED, GUARDED][event as usize % 4];
        let body = json!({"sender": number, "event": event}).to_string();
        match connected.post(path, body.as_bytes()).await {
            Ok(answer) if answer.status < 300 => {
                acknowledged.lock().unwrap().insert(answer.event_id(), (answer.status, Instant::now()));
            }
            Ok(answer) => assert!(path != ACCEPTED && matches!(answer.status, 401 | 502), "{path}: {answer:?}"),
            // The gateway was killed.
            Err(_) => client = None,
        }
    }
}

/// The time of `count` events that are delivered while their sender waits.
async fn time_of(gateway: &Gateway, count: usize) -> Duration {
    let mut client = gateway.client().await;
    let body = json!({"filler": "x".repeat(8000)}).to_string();
    let began = Instant::now();
    for _ in 0..count {
        assert_eq!(client.post(SENT, body.as_bytes()).await.unwrap().status, 200);
        client.post(ACCEPTED, body.as_bytes()).await.unwrap().accepted();
    }
    began.elapsed()
}

/// A file system of 6 MB for the history.
struct Disk(PathBuf);

impl Disk {
    /// `None` without the right to mount one.
    fn small(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs"]).arg(&path).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    /// Leaves no room.
    fn fill(&self) {
        let _ = std::fs::write(self.0.join("filler"), vec![b'x'; 8 << 20]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_whose_disk_is_full_delays_no_answer() {
    let _guard = alone().await;
    let target = Target::start(|_| Reply::ok()).await;
    let home = home(&target).with("HISTORY_MAX_BYTES", 64 << 20);
    let Some(disk) = Disk::small(home.path("history")) else {
        println!("history: no right to mount a small disk: left out");
        return;
    };
    let gateway = home.start().await;
    time_of(&gateway, 20).await;
    let usual = time_of(&gateway, 200).await;
    disk.fill();
    time_of(&gateway, 200).await;
    let full = time_of(&gateway, 200).await;
    println!("history: 200 events of each kind in {usual:?}, with a full disk in {full:?}");
    assert!(full < 3 * usual + Duration::from_millis(500), "{usual:?} and {full:?}");
    std::fs::remove_file(home.path("history/filler")).unwrap();
    // The stop does not wait for ever, either.
    within("the stop", gateway.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_whose_directory_is_removed_delays_no_answer() {
    let _guard = alone().await;
    let target = Target::start(|_| Reply::ok()).await;
    let home = home(&target);
    let gateway = home.start().await;
    time_of(&gateway, 20).await;
    let usual = time_of(&gateway, 200).await;
    remove(&home.path("history"));
    let without = time_of(&gateway, 200).await;
    println!("history: 200 events of each kind in {usual:?}, without its directory in {without:?}");
    assert!(without < 3 * usual + Duration::from_millis(500), "{usual:?} and {without:?}");
    gateway.stop().await;
}

/// A library that makes the disk of a history slow while the file `slow` exists.
fn slow_disk(home: &Home) -> PathBuf {
    let (source, library) = (home.path("slow_disk.c"), home.path("slow_disk.so"));
    std::fs::write(&source, include_str!("slow_disk.c")).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(status.expect("a C compiler").success());
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_waits_for_a_history_whose_writes_take_a_tenth_of_a_second() {
    const EVENTS: usize = 300;
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::ok()).await;
    let home = home(&target);
    let (slow, count) = (home.path("slow"), home.path("writes"));
    let library = slow_disk(&home).display().to_string();
    let home = home.with("SLOW_WHILE", slow.display()).with("SLOW_COUNT", count.display()).with("LD_PRELOAD", library);
    let gateway = home.start().await;
    std::fs::write(&slow, "").unwrap();
    let writes = || std::fs::metadata(&count).map_or(0, |file| file.len() as usize);
    let mut client = gateway.client().await;
    client.post(SENT, b"{}").await.unwrap();
    eventually("a slow write", async || writes() > 0).await;
    let (before, mut last) = (writes(), String::new());
    for number in 0..EVENTS {
        let answer = client.post(SENT, json!({"number": number}).to_string().as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200);
        last = answer.event_id();
    }
    let during = writes() - before;
    println!("history: {EVENTS} events were answered during {during} writes of 100 ms");
    // Each answer would be one write late, at least, if it waited for its own.
    assert!(during < EVENTS / 2, "{EVENTS} events were answered during {during} writes");
    std::fs::remove_file(&slow).unwrap();
    let shown = async || gateway.admin("GET", &format!("/events/{last}")).await.status;
    eventually("the last event in the history", async || shown().await == 200).await;
    gateway.stop().await;
    assert_eq!(Left::of(&home).rows().await.len(), EVENTS + 1, "nothing is left out");
}

fn remove(directory: &Path) {
    std::fs::remove_dir_all(directory).unwrap();
}
