//! Figures for very many webhooks: `make scale`. Only what must be correct is asserted.

use std::path::Path;
use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp};
use tokio::time::{sleep, timeout};
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;

use crate::support::etcd::{Etcd, PREFIX, Version, free_port};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{Following, disconnected, follow, live_within, ready, stamp, until};

/// The number of keys in one put to etcd.
const BATCH: u64 = 1000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().filter(|text| !text.is_empty()).map_or(default, |text| text.parse().expect(variable))
}

fn value(stamp: u64) -> String {
    let authorization = "Bearer test_token_123";
    format!(r#"{{"data_type": "json", "module": "discard", "authorization": "{authorization}", "metadata": {stamp}}}"#)
}

/// A hundred webhooks to a namespace.
fn name(n: u64) -> (String, String) {
    (format!("ns{}", n / 100), format!("hook{n}"))
}

fn key(n: u64) -> String {
    let (namespace, id) = name(n);
    format!("{PREFIX}{namespace}/webhooks/{id}")
}

/// An etcd with `webhooks` webhooks. It does not sync, which saves a minute.
async fn filled(version: Version, webhooks: u64) -> Etcd {
    const WRITERS: u64 = 8;
    let arguments = ["--quota-backend-bytes", "8589934592", "--max-txn-ops", "1000", "--unsafe-no-fsync"];
    let mut etcd = Etcd::stopped(version).with_arguments(&arguments);
    etcd.run().await;
    let fill = |writer: u64| {
        let endpoint = etcd.endpoint();
        tokio::spawn(async move {
            let mut client = Client::connect([endpoint], None).await.unwrap();
            for first in (writer * BATCH..webhooks).step_by((WRITERS * BATCH) as usize) {
                let puts = (first..webhooks.min(first + BATCH)).map(|n| TxnOp::put(key(n), value(n), None));
                client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await.unwrap();
            }
        })
    };
    for writer in (0..WRITERS).map(fill).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    etcd
}

/// The memory of this process now and at its peak, in MiB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    (line("VmRSS:"), line("VmHWM:"))
}

/// The time from etcd's answer to a put until the value is served: the median, the 99th percentile, and the maximum.
async fn one_key(etcd: &Etcd, store: &Store, webhooks: u64) -> [Duration; 3] {
    let mut client = etcd.client().await;
    let mut took = Vec::new();
    for n in 0..1000 {
        let (at, stamped) = (n * 7919 % webhooks, webhooks + n);
        let put = client.put(key(at), value(stamped), None).await.unwrap();
        let began = Instant::now();
        let revision = put.header().unwrap().revision().unsigned_abs();
        assert!(timeout(Duration::from_secs(10), store.wait_for_revision(revision)).await.unwrap());
        took.push(began.elapsed());
        let (namespace, id) = name(at);
        assert_eq!(stamp(store, &namespace, &id), Some(stamped));
        sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|at| took[at])
}

/// The time that puts to another prefix take, until `enough`: the median, the 99th percentile, and the maximum.
async fn puts_elsewhere(etcd: &Etcd, mut enough: impl FnMut(usize) -> bool) -> [Duration; 3] {
    let mut client = etcd.client().await;
    let mut took = Vec::new();
    while !enough(took.len()) {
        let began = Instant::now();
        client.put("/elsewhere", "x", None).await.unwrap();
        took.push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    took.sort_unstable();
    [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|at| took[at])
}

/// The time of a proof for which etcd counts its keys, and of one for which it looks at every key because of a write
/// outside of the prefix.
async fn proofs(etcd: &Etcd, store: &Store, webhooks: u64) {
    let (began, cpu) = (Instant::now(), etcd.cpu());
    assert!(timeout(Duration::from_secs(60), store.wait_fresh()).await.unwrap());
    let (took, cpu) = (began.elapsed(), etcd.cpu() - cpu);
    println!("{webhooks} webhooks: a proof by the count takes {took:?}, and {cpu:?} of etcd's CPU");
    // The previous proof is followed by a pause.
    sleep(Duration::from_secs(3)).await;
    let put = etcd.client().await.put("/elsewhere", "x", None).await.unwrap();
    let (began, cpu) = (Instant::now(), etcd.cpu());
    let revision = put.header().unwrap().revision().unsigned_abs();
    assert!(timeout(Duration::from_secs(60), store.wait_for_revision(revision)).await.unwrap());
    let (took, cpu) = (began.elapsed(), etcd.cpu() - cpu);
    println!("{webhooks} webhooks: a proof by the changes takes {took:?}, and {cpu:?} of etcd's CPU");
}

/// The comparison of every value after a reconnect.
async fn values(etcd: &Etcd, store: &Store, proxy: &Proxy, webhooks: u64) {
    let [middle, p99, worst] = puts_elsewhere(etcd, |puts| puts == 250).await;
    println!("{webhooks} webhooks: a put takes {middle:?}, p99 {p99:?}, at worst {worst:?}");
    let audits = store.status().report.audits;
    proxy.set(Mode::Cut);
    disconnected(store).await;
    proxy.set(Mode::Pass);
    live_within(store, Duration::from_secs(60)).await;
    let (began, cpu, (before, mut most)) = (Instant::now(), etcd.cpu(), (memory().0, 0));
    let [middle, p99, worst] = puts_elsewhere(etcd, |puts| {
        most = most.max(memory().0);
        assert!(began.elapsed() < Duration::from_secs(600), "{:?}", store.status());
        puts > 0 && store.status().report.audits > audits
    })
    .await;
    let (took, cpu) = (began.elapsed(), etcd.cpu() - cpu);
    let report = store.status().report;
    assert_eq!((report.connects, report.anomalies, report.differences), (2, 0, 0), "{:?}", report.last_error);
    println!(
        "{webhooks} webhooks: the values are compared in {took:?}, with {cpu:?} of etcd's CPU; memory {before} MiB before, \
         at most {most} MiB; meanwhile a put takes {middle:?}, p99 {p99:?}, at worst {worst:?}"
    );
}

async fn load(webhooks: u64) {
    let began = Instant::now();
    let etcd = filled(Version::V35, webhooks).await;
    println!("{webhooks} webhooks: put into etcd in {:?}", began.elapsed());
    let (before, _) = memory();
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    let took = live_within(&store, Duration::from_secs(600)).await;
    let (after, most) = memory();
    println!(
        "{webhooks} webhooks: live after {took:?}; memory {before} MiB before, {after} MiB then, at most {most} MiB"
    );
    let snapshot = store.snapshot();
    assert_eq!((snapshot.counts().webhooks as u64, snapshot.counts().refused), (webhooks, 0));
    drop(snapshot);
    for n in 0..webhooks {
        let (namespace, id) = name(n);
        assert_eq!(stamp(&store, &namespace, &id), Some(n));
    }
    let [middle, p99, worst] = one_key(&etcd, &store, webhooks).await;
    println!("{webhooks} webhooks: a put is served {middle:?} after its answer, p99 {p99:?}, at worst {worst:?}");
    proofs(&etcd, &store, webhooks).await;
    // Long enough for some regular proofs.
    sleep(Duration::from_secs(25)).await;
    let report = store.status().report;
    assert_eq!((report.connects, report.anomalies), (1, 0), "{:?}", report.last_error);
    println!("{webhooks} webhooks: staleness {:?}", store.status().staleness());
    values(&etcd, &store, &proxy, webhooks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: make scale"]
async fn three_and_a_million_webhooks() {
    load(3).await;
    load(number("SCALE_WEBHOOKS", 1_000_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: make scale"]
async fn a_start_from_the_copy() {
    let webhooks = number("SCALE_COPIED", 10_000);
    let etcd = filled(Version::V35, webhooks).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tower-webhook/etcd.saved");
    let (store, following) = follow(EtcdOptions::new([etcd.endpoint()]).saved_copy(folder.path()));
    until("nothing is saved", &store, |_| file.exists()).await;
    drop(following);
    for _ in 0..5 {
        let began = Instant::now();
        let (store, _following) = without_etcd(folder.path());
        ready(&store).await;
        let took = began.elapsed();
        assert_eq!(store.snapshot().counts().webhooks as u64, webhooks);
        println!("{webhooks} webhooks: served from the copy after {took:?}");
    }
}

fn without_etcd(copy: &Path) -> (Store, Following) {
    follow(EtcdOptions::new([format!("http://127.0.0.1:{}", free_port())]).saved_copy(copy))
}
