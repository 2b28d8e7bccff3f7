//! Proofs that the configuration is what etcd holds, by the values themselves.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;

use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{against_each_etcd, disconnected, follow, live, reached, ready, stamp, stamped, until};

against_each_etcd!(
    an_etcd_that_was_wiped_and_seeded_again_is_taken_over,
    a_backup_with_one_put_behind_it_is_taken_over,
    an_etcd_that_was_seeded_again_while_the_gateway_was_down_is_taken_over,
    one_value_among_two_thousand_is_found,
    writes_and_compactions_during_the_comparison_are_no_difference,
    the_comparison_pauses_between_its_pages,
    strangers_that_ask_for_proofs_cost_etcd_little,
);

/// Puts `webhooks` webhooks, always the same keys at the same revisions.
async fn seed(etcd: &Etcd, webhooks: u64, stamp_of: impl Fn(u64) -> u64) -> u64 {
    let mut revision = 0;
    let all: Vec<u64> = (0..webhooks).collect();
    for some in all.chunks(100) {
        let entries = some.iter().map(|n| (format!("default/webhooks/w{n}"), stamped(stamp_of(*n))));
        revision = etcd.put_all(entries).await;
    }
    revision
}

/// The identity that etcd reports: cluster, term and revision.
async fn identity(etcd: &Etcd) -> (u64, u64, i64) {
    let response = etcd.client().await.get("/", None).await.unwrap();
    let header = response.header().unwrap();
    (header.cluster_id(), header.raft_term(), header.revision())
}

/// Waits until a webhook has this stamp. Until then no proof that was requested after `since` may succeed.
async fn taken_over(store: &Store, id: &str, expected: u64, since: Instant) {
    until("the other values are not served", store, |store| {
        let now = Instant::now();
        let staleness = store.status().staleness();
        let served = stamp(store, "default", id);
        if served != Some(expected) {
            assert!(
                staleness.is_none_or(|staleness| staleness >= now - since),
                "{served:?} is said to be {staleness:?} old"
            );
        }
        served == Some(expected)
    })
    .await;
    live(store).await;
    until("it is not proven", store, |store| {
        store.status().staleness().is_some_and(|staleness| staleness < Duration::from_secs(12))
    })
    .await;
    let report = store.status().report;
    assert_eq!((report.epoch, report.differences), (1, 1), "{report:?}");
}

async fn an_etcd_that_was_wiped_and_seeded_again_is_taken_over(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    seed(&etcd, 3, |n| n).await;
    let before = identity(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let since = Instant::now();
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    seed(&etcd, 3, |n| 100 + n).await;
    assert_eq!(identity(&etcd).await, before, "it can be told apart without its values");
    proxy.set(Mode::Pass);
    taken_over(&store, "w1", 101, since).await;
    assert_eq!(stamp(&store, "default", "w0"), Some(100));
}

async fn a_backup_with_one_put_behind_it_is_taken_over(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    seed(&etcd, 3, |n| n).await;
    let backup = directory.path().join("backup");
    etcd.back_up(&backup);
    etcd.put("default/webhooks/w1", stamped(11)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let since = Instant::now();
    etcd.kill();
    etcd.restore(&backup);
    etcd.run().await;
    etcd.put("default/webhooks/w1", stamped(12)).await;
    proxy.set(Mode::Pass);
    taken_over(&store, "w1", 12, since).await;
}

async fn an_etcd_that_was_seeded_again_while_the_gateway_was_down_is_taken_over(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(version).await;
    seed(&etcd, 3, |n| n).await;
    let options = EtcdOptions::new([etcd.endpoint()]).saved_copy(directory.path());
    let (store, following) = follow(options.clone());
    live(&store).await;
    let file = directory.path().join("tower-webhook/etcd.saved");
    until("nothing is saved", &store, |_| file.exists()).await;
    drop(following);
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    seed(&etcd, 3, |n| 100 + n).await;
    let since = Instant::now();
    let (store, _following) = follow(options);
    ready(&store).await;
    taken_over(&store, "w2", 102, since).await;
}

async fn one_value_among_two_thousand_is_found(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    seed(&etcd, 2000, |n| n).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let since = Instant::now();
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    seed(&etcd, 2000, |n| if n == 1234 { 9999 } else { n }).await;
    proxy.set(Mode::Pass);
    taken_over(&store, "w1234", 9999, since).await;
}

async fn writes_and_compactions_during_the_comparison_are_no_difference(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    seed(&etcd, 2000, |n| n).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let mut client = etcd.client().await;
    let writing = tokio::spawn(async move {
        // Enough of the past is kept for the watch to resume, and too little for a complete comparison at one revision.
        const KEPT: i64 = 500;
        for n in 0_u64.. {
            // All over the range of keys: some are new and some are deleted.
            let key = format!("/cwm/default/webhooks/w{}", n * 7919 % 2100);
            let response = match n % 5 {
                0 => client.delete(key, None).await.unwrap().header().unwrap().revision(),
                _ => client.put(key, stamped(n), None).await.unwrap().header().unwrap().revision(),
            };
            if n % 20 == 0 && n as i64 > KEPT {
                client.compact(response - KEPT, None).await.unwrap();
            }
            sleep(Duration::from_millis(2)).await;
        }
    });
    for round in 1..=5 {
        proxy.set(Mode::Cut);
        disconnected(&store).await;
        proxy.set(Mode::Late(Duration::from_millis(30)));
        live(&store).await;
        // Proven since the disconnection; by a list, if the missed changes have been compacted.
        assert!(timeout(Duration::from_secs(30), store.wait_fresh()).await.unwrap(), "round {round}");
    }
    writing.abort();
    let report = store.status().report;
    assert_eq!((report.epoch, report.differences, report.anomalies), (0, 0, 0), "{report:?}");
    assert!(report.audits > 0, "no comparison came to an end: {report:?}");
}

/// After a reconnection, each page is followed by a pause as long as the page took: etcd works for this at most half of
/// the time.
async fn the_comparison_pauses_between_its_pages(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    seed(&etcd, 1000, |n| n).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    proxy.set(Mode::Late(Duration::from_millis(30)));
    let back = Instant::now();
    until("the values are not compared", &store, |store| store.status().report.audits > 0).await;
    // Three pages of 60 ms or more, with two pauses.
    assert!(back.elapsed() > Duration::from_millis((3 + 2) * 60), "{:?}", back.elapsed());
}

/// Asks 20 times a second for a revision that never comes. Returns how much of a core etcd uses meanwhile.
async fn asked_often(etcd: &Etcd, store: &Store) -> f64 {
    let (began, before) = (Instant::now(), etcd.cpu());
    while began.elapsed() < Duration::from_secs(5) {
        let store = store.clone();
        tokio::spawn(async move { timeout(Duration::from_secs(1), store.wait_for_revision(1 << 60)).await });
        sleep(Duration::from_millis(50)).await;
    }
    (etcd.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

async fn strangers_that_ask_for_proofs_cost_etcd_little(version: Version) {
    let etcd = Etcd::start(version).await;
    let revision = seed(&etcd, 30_000, |n| n).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    reached(&store, revision).await;
    live(&store).await;
    let quiet = asked_often(&etcd, &store).await;
    let mut client = etcd.client().await;
    let writing = tokio::spawn(async move {
        loop {
            client.put("/elsewhere", "x", None).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    });
    let busy = asked_often(&etcd, &store).await;
    writing.abort();
    println!("etcd takes {quiet:.3} of a core while nothing is written, {busy:.3} while something is, elsewhere");
    assert!(quiet < 0.2 && busy < 0.4, "{quiet} and {busy} of a core");
    // A request for a proof is still answered.
    assert!(timeout(Duration::from_secs(10), store.wait_fresh()).await.unwrap());
}
