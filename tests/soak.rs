//! Random faults, for any length of time, and every state that was served compared with what was written.
//!
//! `make soak SECONDS=600 SEED=7`. One writer changes webhooks, one write after another, each exactly once: each write
//! is conditional on the one before, so that a lost answer leaves no doubt. A reader records each state that is served,
//! with its revision and its staleness. In the end each of them must be the complete state that etcd had at that
//! revision, and no older than its staleness said; revisions must never have gone back within a history; and the last
//! state must be the one in etcd. Meanwhile a task waits at the barriers, which must never open too early.

#![allow(missing_docs, unreachable_pub, dead_code, unused_macros, unused_imports)] // the harness has more than is used here
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "soak/log.rs"]
mod log;
#[path = "soak/reader.rs"]
mod reader;
#[path = "etcd/support/mod.rs"]
mod support;
#[path = "soak/writer.rs"]
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::ListReason;

use crate::log::{hash_of, state_of};
use crate::reader::Reader;
use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{PATIENCE, follow_fenced, live, ready, until};
use crate::writer::Writer;

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
    let mut reader = Reader::start(store.clone(), Arc::clone(&writer.log));

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
                // The changes that are missed meanwhile are compacted.
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
                assert_calm(&store, wipes, seed);
                drop(following);
                observations.push(reader.stop().await);
                sleep(moment / 2).await;
                (store, following) = follow_fenced(options.clone());
                ready(&store).await;
                reader = Reader::start(store.clone(), Arc::clone(&writer.log));
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
    assert_calm(&store, wipes, seed);
    println!("soak: {} writes, {seen} states seen, faults {faults:?}, wipes {wipes}: all true", log.writes());
}

/// Asserts that every event followed from the known state, and that no audit or proof found a difference.
fn assert_calm(store: &Store, wipes: u64, seed: u64) {
    let report = store.status().report;
    if wipes == 0 {
        assert_eq!((report.epoch, report.anomalies), (0, 0), "seed {seed}: {:?}", report.last_error);
        assert_eq!(report.lists.get(&ListReason::LostEvents), None, "seed {seed}");
    }
}
