//! `kill -9` at random moments under load, again and again: every event that was answered 202 is delivered in the end.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::gateway::Home;
use crate::support::target::{Reply, Target};
use crate::support::{beside_others, within};

const SENDERS: u64 = 6;

/// A webhook that is configured only in some lives of the gateway: its events stay in the oldest segments, and must be
/// copied before those can be freed.
const STUCK: &str = "/webhook/shop/stuck";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_events_survive_kills() {
    let _guard = beside_others().await;
    Kills::new(8, 1).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "as long as one likes: make test-kills ROUNDS=200 SEED=7"]
async fn acknowledged_events_survive_many_kills() {
    let number = |name: &str| {
        std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse::<u64>().expect(name))
    };
    let seed = number("KILL_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    Kills::new(number("KILL_ROUNDS").unwrap_or(200), seed).run().await;
}

/// A kill during a write. Whatever is torn had not been accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_is_no_damage_and_costs_nothing() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Silence).await;
    let home = Home::new(&webhooks(&target, false));
    let gateway = home.start().await;
    let event = gateway.post("/webhook/staging/sent", b"{}").await.accepted();
    gateway.kill().await;
    let segment = home.path(&format!("spool/events/{:010}.log", home.segments().last().unwrap()));
    let mut torn = std::fs::read(&segment).unwrap();
    torn.extend_from_within(16..30);
    std::fs::write(&segment, torn).unwrap();
    for _ in 0..3 {
        let gateway = home.start().await;
        gateway.post("/webhook/one", b"{}").await.accepted();
        gateway.kill().await;
    }
    target.now(|_| Reply::ok());
    let gateway = home.start().await;
    within("the event before the torn end", async {
        while !target.taken().iter().any(|arrival| arrival.event == event) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    gateway.stop().await;
    assert!(!home.log().contains("damaged"), "{}", home.log());
}

/// A kill in the middle of `save_to_disk`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_kill_left_half_written_costs_no_attempt() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Silence).await;
    let once = |module: &str, config: Value| {
        json!({"default": {"once": {
            "module": module, "ack": "accepted", "module-config": config, "retry": {"enabled": false}
        }}})
    };
    let home = Home::new(&once("http_webhook", json!({"url": target.url("/")})));
    let gateway = home.start().await;
    let event = gateway.post("/webhook/once", b"{}").await.accepted();
    gateway.kill().await;
    home.configure(&once("save_to_disk", json!({"path": "once"})));
    let folder = home.path("data/once");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!(".{event}.tmp")), "{").unwrap();

    let gateway = home.start().await;
    gateway.drained().await;
    assert!(gateway.dead_letters().await.is_empty(), "{}", gateway.log());
    assert_eq!(std::fs::read(folder.join(format!("{event}.json"))).unwrap(), b"{}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "what was left is gone");
    gateway.stop().await;
}

struct Kills {
    rounds: u64,
    seed: u64,
    random: fastrand::Rng,
    book: Arc<Book>,
}

/// What the senders know about their events.
#[derive(Default)]
struct Book {
    sent: Mutex<HashSet<Vec<u8>>>,
    /// By the event's id: the path it was sent to, and its body.
    acknowledged: Mutex<HashMap<String, (&'static str, Vec<u8>)>>,
    refused: Mutex<HashMap<u16, u64>>,
}

impl Kills {
    fn new(rounds: u64, seed: u64) -> Self {
        println!("kills: {rounds} rounds, seed {seed}");
        Self { rounds, seed, random: fastrand::Rng::with_seed(seed), book: Arc::default() }
    }

    async fn run(mut self) {
        // One in four requests fails, so that some events are always being retried.
        let random = Mutex::new(fastrand::Rng::with_seed(self.seed));
        let target = Target::start(move |_| match random.lock().unwrap().u32(..8) {
            0 => Reply::status(500),
            1 => Reply::Reset,
            _ => Reply::ok(),
        });
        let target = target.await;
        // The smallest spool has segments of 64 KiB, which are filled, copied and freed all the time.
        let home = Home::new(&webhooks(&target, false))
            .with("SPOOL_MAX_BYTES", 1 << 20)
            .with("RUST_LOG", "warn,gateway=info,tower_webhook::queue=info");
        let (gateways, now) = watch::channel(None);
        let mut senders = JoinSet::new();
        for number in 0..SENDERS {
            let seed = self.seed.wrapping_mul(1000) + number;
            senders.spawn(send(number, seed, Arc::clone(&self.book), now.clone()));
        }
        let mut longest_start = Duration::from_millis(100);
        for round in 0..self.rounds {
            home.configure(&webhooks(&target, round % 4 != 1));
            if round % 3 == 2 {
                // The kill may hit while the gateway starts: before, during or after it reads the spool.
                let gateway = home.spawn();
                tokio::time::sleep(longest_start.mul_f64(self.random.f64())).await;
                gateway.kill().await;
            }
            let began = Instant::now();
            let gateway = home.listening().await;
            longest_start = longest_start.max(began.elapsed()).min(Duration::from_secs(2));
            gateways.send_replace(Some(gateway.address));
            let acknowledged = self.book.acknowledged.lock().unwrap().len();
            // Without this wait, a slow machine would only ever kill an idle gateway.
            within("anything to be acknowledged", async {
                while self.book.acknowledged.lock().unwrap().len() < acknowledged + 20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            tokio::time::sleep(Duration::from_millis(self.random.u64(..500))).await;
            gateways.send_replace(None);
            gateway.kill().await;
        }
        drop(gateways);
        within("the senders to end", async { while senders.join_next().await.transpose().unwrap().is_some() {} }).await;

        home.configure(&webhooks(&target, false));
        let gateway = home.start().await;
        let outcome = self.settled(&home, &target).await;
        gateway.drained().await;
        assert!(gateway.dead_letters().await.is_empty(), "every failure here passes: {}", home.log());
        gateway.stop().await;
        self.check(&home, outcome);
    }

    /// Waits until everything that was acknowledged is delivered. Returns each body by its event's id, and how often it
    /// was delivered.
    async fn settled(&self, home: &Home, target: &Target) -> Outcome {
        let mut seen = (0, Instant::now());
        loop {
            let outcome = Outcome::of(home, target);
            let missing = self.missing(&outcome);
            if missing.is_empty() {
                return outcome;
            }
            if outcome.delivered.len() != seen.0 {
                seen = (outcome.delivered.len(), Instant::now());
            }
            // Longer than any wait between two attempts.
            if seen.1.elapsed() > Duration::from_secs(60) {
                let few = &missing[..missing.len().min(5)];
                panic!("{} were acknowledged and are lost: {few:?} ...\n{}", missing.len(), home.log());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Acknowledged events that were not delivered, with the path that each was sent to.
    fn missing(&self, outcome: &Outcome) -> Vec<(String, &'static str)> {
        let acknowledged = self.book.acknowledged.lock().unwrap();
        let missing = acknowledged.iter().filter(|(id, _)| !outcome.delivered.contains_key(*id));
        missing.map(|(id, (path, _))| (id.clone(), *path)).collect()
    }

    fn check(&self, home: &Home, outcome: Outcome) {
        let acknowledged = self.book.acknowledged.lock().unwrap();
        let sent = self.book.sent.lock().unwrap();
        for (id, (path, body)) in &*acknowledged {
            assert_eq!(&outcome.delivered[id], body, "{id}, sent to {path}");
        }
        for (id, body) in &outcome.delivered {
            assert!(sent.contains(body), "{id} was delivered, and nobody has sent it");
        }
        let log = home.log();
        for word in ["damaged", "cannot be read", "panicked", "is a dead letter"] {
            assert!(!log.contains(word), "a kill damages nothing: {log}");
        }
        let segments = home.segments();
        let copied = segments.first().is_none_or(|first| *first > 3);
        assert!(copied, "no segment was freed: {segments:?}");
        println!(
            "kills: {} rounds, seed {}: {} sent, {} acknowledged, refused {:?}, {} delivered, {} of the {} to the target twice or more, {} segments written",
            self.rounds,
            self.seed,
            sent.len(),
            acknowledged.len(),
            self.book.refused.lock().unwrap(),
            outcome.delivered.len(),
            outcome.again,
            outcome.to_target,
            segments.last().unwrap_or(&0),
        );
    }
}

struct Outcome {
    delivered: HashMap<String, Vec<u8>>,
    /// The number of events sent to the target, and how many of them it answered 200 more than once.
    to_target: usize,
    again: usize,
}

impl Outcome {
    fn of(home: &Home, target: &Target) -> Self {
        let mut delivered = HashMap::new();
        for directory in ["one", "two", "stuck"] {
            delivered.extend(home.saved(directory).into_iter().map(|(id, path)| (id, std::fs::read(path).unwrap())));
        }
        let mut taken = HashMap::<_, usize>::new();
        for arrival in target.taken() {
            *taken.entry(arrival.event.clone()).or_default() += 1;
            let before = delivered.insert(arrival.event.clone(), arrival.body.clone());
            assert!(before.is_none_or(|before| before == arrival.body), "two bodies of {}", arrival.event);
        }
        let again = taken.values().filter(|times| **times > 1).count();
        Self { delivered, to_target: taken.len(), again }
    }
}

fn webhooks(target: &Target, stuck: bool) -> Value {
    let save = |path: &str| json!({"module": "save_to_disk", "ack": "accepted", "module-config": {"path": path}});
    let mut last = save("stuck");
    if stuck {
        last["modul"] = json!("a key that nobody knows");
    }
    json!({
        "default": {"one": save("one")},
        "shop": {"two": save("two"), "stuck": last},
        "staging": {"sent": {
            "module": "http_webhook",
            "ack": "accepted",
            "module-config": {"url": target.url("/sent")},
            "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 0.02, "max_delay": 0.5},
        }},
    })
}

/// Sends one event after another to the gateway that runs at the time, until there will be no more gateways.
async fn send(number: u64, seed: u64, book: Arc<Book>, mut now: watch::Receiver<Option<SocketAddr>>) {
    let mut random = fastrand::Rng::with_seed(seed);
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
        let size = if random.u32(..10) == 0 { random.usize(..20_000) } else { random.usize(..1000) };
        let filler: String = std::iter::repeat_with(|| random.alphanumeric()).take(size).collect();
        let body = json!({"sender": number, "event": event, "filler": filler}).to_string().into_bytes();
        let path = match random.u32(..12) {
            0 => STUCK,
            1..4 => "/webhook/one",
            4..7 => "/webhook/shop/two",
            _ => "/webhook/staging/sent",
        };
        book.sent.lock().unwrap().insert(body.clone());
        match connected.post(path, &body).await {
            Ok(answer) if answer.status == 202 => {
                book.acknowledged.lock().unwrap().insert(answer.event_id(), (path, body));
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{path}: {answer:?}");
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                *book.refused.lock().unwrap().entry(answer.status).or_default() += 1;
                // A misconfigured webhook refuses at once, and would be tried in a tight loop.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // The gateway was killed: it is unknown whether it accepted the event.
            Err(_) => client = None,
        }
    }
}
