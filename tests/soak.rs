//! Faults at random, for as long as one likes, with every state that was ever served held against what was written.
//!
//! `make soak SECONDS=600 SEED=7`. One writer changes webhooks, one write after another, each exactly once: it goes on from
//! the last with a comparison, so that an answer that got lost is no doubt. A reader notes each state that is served, with
//! its revision. In the end each of them must be the state that etcd had at that revision, whole; revisions must never
//! have gone back within a history; and what is served last must be what etcd holds.

#![allow(missing_docs, unreachable_pub, dead_code, unused_macros, unused_imports)] // the harness has more than is used here
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "etcd/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower_webhook::source::EtcdOptions;
use tower_webhook::{ListReason, Snapshot, Store, Webhook};

use crate::support::etcd::{Etcd, PREFIX, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{PATIENCE, follow_fenced, live, ready, stamped, until};

const KEYS: usize = 40;

/// Changed by every write, and no webhook: it tells which write was the last.
const MARKER: &str = "/cwm/soak/marker";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_short_soak_ends_with_what_etcd_holds() {
    soak(Version::V35, 10, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "as long as one likes: make soak SECONDS=600 SEED=7"]
async fn soak_for_seconds() {
    let number = |name: &str| {
        std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse::<u64>().expect(name))
    };
    let seconds = number("SOAK_SECONDS").unwrap_or(60);
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let version = if seed % 2 == 0 { Version::V34 } else { Version::V35 };
    soak(version, seconds, seed).await;
}

async fn soak(version: Version, seconds: u64, seed: u64) {
    println!("soak: {seconds} s, seed {seed}, {version:?}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    let options = EtcdOptions::new([proxy.endpoint(), proxy.endpoint()]).saved_copy(directory.path());
    let writer = Writer::start(etcd.endpoint(), seed);
    let mut observations = Vec::new();
    let (mut store, mut following) = follow_fenced(options.clone());
    ready(&store).await;
    let mut reader = Reader::start(store.clone());

    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut faults, mut wipes) = (BTreeMap::<&str, u32>::new(), 0);
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(50..1500))).await;
        let moment = Duration::from_millis(random.u64(1..3000));
        let fault = random.u32(..100);
        let name = match fault {
            0..30 => {
                proxy.set(Mode::Cut);
                sleep(moment / 4).await;
                proxy.set(Mode::Pass);
                "cut"
            }
            30..45 => {
                etcd.kill();
                sleep(moment / 2).await;
                etcd.run().await;
                "kill -9"
            }
            45..60 => {
                etcd.signal("-STOP");
                sleep(moment).await;
                etcd.signal("-CONT");
                "freeze"
            }
            60..63 => {
                proxy.set(Mode::BlackHole);
                sleep(moment * 6).await;
                proxy.set(Mode::Pass);
                "black hole"
            }
            63..75 => {
                writer.pause().await;
                let revision = writer.log.lock().unwrap().revision();
                if revision > 1 {
                    etcd.compact(revision).await;
                }
                writer.resume(false);
                "compaction"
            }
            75..80 => {
                // A compaction of what is missed meanwhile.
                proxy.set(Mode::Cut);
                sleep(moment / 2).await;
                writer.pause().await;
                let revision = writer.log.lock().unwrap().revision();
                if revision > 1 {
                    let _ = etcd.client().await.compact(revision as i64, None).await;
                }
                proxy.set(Mode::Pass);
                writer.resume(false);
                "compaction behind a cut"
            }
            80..95 => {
                drop(following);
                observations.push(reader.stop().await);
                sleep(moment / 2).await;
                (store, following) = follow_fenced(options.clone());
                ready(&store).await;
                reader = Reader::start(store.clone());
                "restart of ours"
            }
            _ if seconds >= 60 && wipes * 60 < seconds => {
                writer.pause().await;
                etcd.kill();
                etcd.wipe();
                etcd.run().await;
                writer.resume(true);
                wipes += 1;
                "wipe"
            }
            _ => continue,
        };
        *faults.entry(name).or_default() += 1;
    }

    writer.pause().await;
    live(&store).await;
    assert!(timeout(PATIENCE, store.wait_fresh()).await.unwrap());
    let log = writer.stop();
    until("the end is not what etcd holds", &store, |store| hash_of(&state_of(&store.snapshot())) == log.now()).await;
    observations.push(reader.stop().await);

    let seen: usize = observations.iter().map(Vec::len).sum();
    for run in &observations {
        log.check(run, seed);
    }
    let report = store.status().report;
    if wipes == 0 {
        assert_eq!((report.epoch, report.anomalies), (0, 0), "seed {seed}");
        assert_eq!(report.lists.get(&ListReason::LostEvents), None, "seed {seed}");
    }
    println!("soak: {} writes, {seen} states seen, faults {faults:?}, wipes {wipes}: all true", log.writes());
}

/// What was written: per history, after which revision the state had which hash.
#[derive(Default)]
struct Log {
    histories: Vec<Vec<(u64, u64)>>,
    /// What each key serves.
    state: State,
    /// All states there ever were, to tell what is wrong with one that was served.
    states: BTreeMap<(usize, u64), State>,
}

impl Log {
    fn begin(&mut self) {
        self.histories.push(vec![(0, 0)]);
        self.state.clear();
    }

    fn revision(&self) -> u64 {
        self.histories.last().and_then(|history| history.last()).map_or(0, |(revision, _)| *revision)
    }

    fn now(&self) -> u64 {
        self.histories.last().and_then(|history| history.last()).map_or(0, |(_, hash)| *hash)
    }

    fn writes(&self) -> usize {
        self.histories.iter().map(|history| history.len() - 1).sum()
    }

    fn note(&mut self, revision: u64, write: &Write) {
        for key in &write.keys {
            match write.kind {
                Kind::Put => {
                    self.state.insert(key.clone(), write.stamp);
                }
                // Nothing serves in its place.
                Kind::Bad | Kind::Delete => {
                    self.state.remove(key);
                }
            }
        }
        let hash = hash_of(&self.state);
        self.histories.last_mut().unwrap().push((revision, hash));
        self.states.insert((self.histories.len() - 1, revision), self.state.clone());
    }

    /// Each state that one run of ours has served must be one that etcd had, at that revision, in an order that makes
    /// sense.
    fn check(&self, run: &[Seen], seed: u64) {
        let (mut history, mut last) = (0, 0);
        for seen in run {
            let found = (history..self.histories.len()).find(|&at| {
                let states = &self.histories[at];
                let then = states.partition_point(|(revision, _)| *revision <= seen.revision);
                states[then - 1].1 == seen.hash && (at > history || seen.revision >= last)
            });
            let Some(found) = found else {
                let then = self.states.range(..=(history, seen.revision)).next_back().map(|(_, state)| state);
                let differences: Vec<_> = then
                    .into_iter()
                    .flat_map(|then| then.keys().chain(seen.state.keys()).map(move |key| (key, then.get(key))))
                    .filter(|(key, then)| *then != seen.state.get(*key))
                    .map(|(key, then)| (key, then, seen.state.get(key)))
                    .collect();
                panic!(
                    "seed {seed}: what was served at {} was not the state of etcd then (key, etcd, served): \
                     {differences:?}; before it revision {last} of history {history}",
                    seen.revision
                );
            };
            (history, last) = (found, seen.revision);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Bad,
    Delete,
}

#[derive(Debug)]
struct Write {
    kind: Kind,
    keys: Vec<String>,
    stamp: u64,
}

struct Writer {
    log: Arc<Mutex<Log>>,
    /// What it is asked to do; and whether it has.
    asked: watch::Sender<Ask>,
    resting: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Write { history: u32 },
    Rest { history: u32 },
}

impl Writer {
    fn start(endpoint: String, seed: u64) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let (asked, asks) = watch::channel(Ask::Write { history: 0 });
        let (rests, resting) = watch::channel(false);
        let task = tokio::spawn(write_on(endpoint, seed, Arc::clone(&log), asks, rests));
        Self { log, asked, resting, task }
    }

    /// Waits until the write that is under way is settled.
    async fn pause(&self) {
        self.asked.send_modify(|ask| {
            let (Ask::Write { history } | Ask::Rest { history }) = *ask;
            *ask = Ask::Rest { history };
        });
        timeout(PATIENCE, self.resting.clone().wait_for(|resting| *resting)).await.expect("a write hangs").unwrap();
    }

    fn resume(&self, new_history: bool) {
        self.asked.send_modify(|ask| {
            let (Ask::Write { history } | Ask::Rest { history }) = *ask;
            *ask = Ask::Write { history: history + u32::from(new_history) };
        });
    }

    fn stop(self) -> Log {
        self.task.abort();
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

async fn write_on(
    endpoint: String,
    seed: u64,
    log: Arc<Mutex<Log>>,
    mut asks: watch::Receiver<Ask>,
    rests: watch::Sender<bool>,
) {
    let mut random = fastrand::Rng::with_seed(seed ^ 1);
    let (mut stamp, mut before, mut in_history) = (0, None, None);
    loop {
        let ask = *asks.borrow_and_update();
        let (Ask::Write { history } | Ask::Rest { history }) = ask;
        if in_history != Some(history) {
            (in_history, before) = (Some(history), None);
            log.lock().unwrap().begin();
        }
        if matches!(ask, Ask::Rest { .. }) {
            rests.send_replace(true);
            asks.changed().await.unwrap();
            continue;
        }
        rests.send_replace(false);
        stamp += 1;
        let kind = match random.u32(..10) {
            0..7 => Kind::Put,
            7 => Kind::Bad,
            _ => Kind::Delete,
        };
        let many = if random.u32(..10) == 0 { 20 } else { 1 };
        let mut keys: Vec<_> =
            (0..many).map(|_| format!("ns{}/webhooks/w{}", random.u32(..3), random.usize(..KEYS))).collect();
        keys.sort();
        keys.dedup();
        let write = Write { kind, keys, stamp };
        let revision = write_once(&endpoint, &write, before).await;
        before = Some(stamp);
        log.lock().unwrap().note(revision, &write);
        sleep(Duration::from_millis(random.u64(0..15))).await;
    }
}

/// Writes exactly once, however often the answer gets lost. Returns the revision.
async fn write_once(endpoint: &str, write: &Write, before: Option<u64>) -> u64 {
    let value = |stamp: u64| match write.kind {
        Kind::Bad => format!(r#"{{"modul": {stamp}}}"#),
        _ => stamped(stamp),
    };
    let mut operations = vec![TxnOp::put(MARKER, write.stamp.to_string(), None)];
    operations.extend(write.keys.iter().map(|key| match write.kind {
        Kind::Delete => TxnOp::delete(format!("{PREFIX}{key}"), None),
        _ => TxnOp::put(format!("{PREFIX}{key}"), value(write.stamp), None),
    }));
    let is_next = match before {
        Some(before) => Compare::value(MARKER, CompareOp::Equal, before.to_string()),
        None => Compare::version(MARKER, CompareOp::Equal, 0),
    };
    let txn = Txn::new().when([is_next]).and_then(operations).or_else([TxnOp::get(MARKER, None)]);
    loop {
        let attempt = async { Client::connect([endpoint], None).await?.txn(txn.clone()).await };
        let Ok(Ok(answer)) = timeout(Duration::from_secs(2), attempt).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        if answer.succeeded() {
            return answer.header().unwrap().revision().unsigned_abs();
        }
        // It was written, and the answer was lost.
        let [TxnOpResponse::Get(marker)] = &answer.op_responses()[..] else { panic!("{answer:?}") };
        let marker = marker.kvs().first().expect("the marker is gone");
        assert_eq!(marker.value_str().unwrap(), write.stamp.to_string());
        return marker.mod_revision().unsigned_abs();
    }
}

/// A state that was served.
struct Seen {
    revision: u64,
    hash: u64,
    state: State,
}

/// Notes every state it can catch.
struct Reader {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Seen>>,
}

impl Reader {
    fn start(store: Store) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::task::spawn_blocking(move || {
            let mut run: Vec<Seen> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let snapshot = store.snapshot();
                let state = state_of(&snapshot);
                let seen = Seen { revision: snapshot.revision(), hash: hash_of(&state), state };
                if run.last().is_none_or(|last| (last.revision, last.hash) != (seen.revision, seen.hash)) {
                    run.push(seen);
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            run
        });
        Self { stop, task }
    }

    async fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// What each key serves.
type State = BTreeMap<String, u64>;

fn state_of(snapshot: &Snapshot) -> State {
    let stamp = |webhook: &Webhook| webhook.metadata().and_then(serde_json::Value::as_u64).unwrap_or_default();
    let key = |webhook: &Webhook| format!("{}/webhooks/{}", webhook.namespace(), webhook.id());
    snapshot.webhooks().map(|webhook| (key(webhook), stamp(webhook))).collect()
}

fn hash_of(state: &State) -> u64 {
    state.iter().fold(0, |hash, (key, stamp)| hash ^ entry_hash(key, *stamp))
}

fn entry_hash(key: &str, stamp: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, stamp).hash(&mut hasher);
    hasher.finish()
}
