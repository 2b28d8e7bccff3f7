//! Writes one change after another, each exactly once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::log::Log;
use crate::support::etcd::PREFIX;
use crate::support::{PATIENCE, stamped};

const KEYS: usize = 40;

/// A key that every write changes, and which is not a webhook: it shows which write was the last.
const MARKER: &str = "/cwm/soak/marker";

/// A key outside of the prefix: writing it makes revisions that only a proof can report.
const ELSEWHERE: &str = "/elsewhere";

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Put,
    Bad,
    Delete,
}

#[derive(Debug)]
pub struct Write {
    pub kind: Kind,
    pub keys: Vec<String>,
    pub stamp: u64,
}

pub struct Writer {
    pub log: Arc<Mutex<Log>>,
    /// The request to the writer, and whether it has been met.
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
    pub fn start(endpoint: String, seed: u64) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let (asked, asks) = watch::channel(Ask::Write { history: 0 });
        let (rests, resting) = watch::channel(false);
        let task = tokio::spawn(write_on(endpoint, seed, Arc::clone(&log), asks, rests));
        Self { log, asked, resting, task }
    }

    /// Waits until the write in progress is settled.
    pub async fn pause(&self) {
        self.asked.send_modify(|ask| {
            let (Ask::Write { history } | Ask::Rest { history }) = *ask;
            *ask = Ask::Rest { history };
        });
        timeout(PATIENCE, self.resting.clone().wait_for(|resting| *resting)).await.expect("a write hangs").unwrap();
    }

    pub fn resume(&self, new_history: bool) {
        self.asked.send_modify(|ask| {
            let (Ask::Write { history } | Ask::Rest { history }) = *ask;
            *ask = Ask::Write { history: history + u32::from(new_history) };
        });
    }

    pub fn stop(self) -> Log {
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
        if random.u32(..50) == 0 {
            for _ in 0..random.u32(1..20) {
                write_elsewhere(&endpoint).await;
                sleep(Duration::from_millis(20)).await;
            }
        }
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

/// This write may happen twice, or not at all.
async fn write_elsewhere(endpoint: &str) {
    let attempt = async { Client::connect([endpoint], None).await?.put(ELSEWHERE, "x", None).await };
    let _ = timeout(Duration::from_secs(2), attempt).await;
}

/// Writes exactly once, however often the answer is lost. Returns the revision.
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
        // The change was written, and the answer was lost.
        let [TxnOpResponse::Get(marker)] = &answer.op_responses()[..] else { panic!("{answer:?}") };
        let marker = marker.kvs().first().expect("the marker is gone");
        assert_eq!(marker.value_str().unwrap(), write.stamp.to_string());
        return marker.mod_revision().unsigned_abs();
    }
}
