//! Histories that go back, and barriers that never return too early.

use std::time::Duration;

use tokio::time::timeout;
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::{ErrorKind, ListReason};

use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{
    PATIENCE, against_each_etcd, disconnected, follow, lists, live, reached, stamp, stamped, until, until_within,
};

against_each_etcd!(
    a_restored_backup_is_taken_over,
    an_emptied_etcd_is_asked_twice,
    no_value_of_an_earlier_history_is_served_for_a_bad_one,
    fresh_means_asked_since,
    a_barrier_does_not_pass_into_another_history,
    a_long_catch_up_opens_no_barrier_early,
    a_break_costs_no_list,
    a_source_that_reconnects_is_fresh,
);

async fn a_restored_backup_is_taken_over(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/old", stamped(1)).await;
    etcd.back_up(&backup);
    for n in 0..20 {
        etcd.put("default/webhooks/lost", stamped(n)).await;
    }
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    assert_eq!(stamp(&store, "default", "lost"), Some(19));
    etcd.kill();
    etcd.restore(&backup);
    etcd.run().await;
    etcd.put("default/webhooks/new", stamped(2)).await;

    until("the restored history is not served", &store, |store| stamp(store, "default", "new") == Some(2)).await;
    assert_eq!(stamp(&store, "default", "lost"), None);
    assert_eq!(stamp(&store, "default", "old"), Some(1));
    let report = store.status().report;
    assert_eq!((report.epoch, report.lists[&ListReason::HistoryChanged]), (1, 1));
    assert!(report.errors.contains_key(&ErrorKind::HistoryChanged));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/new", stamped(3)).await).await;
    assert_eq!(stamp(&store, "default", "new"), Some(3));
}

async fn an_emptied_etcd_is_asked_twice(version: Version) {
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    until("it does not list", &store, |store| lists(store) >= 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1), "it was dropped at the first look");
    until("it is not dropped", &store, |store| stamp(store, "default", "a").is_none()).await;
    live(&store).await;
    assert_eq!(store.status().report.epoch, 1);
}

/// Within one history the last good value is served. After a change of the history it is not, even if the bad value is
/// the same in both.
async fn no_value_of_an_earlier_history_is_served_for_a_bad_one(version: Version) {
    const BAD: &str = r#"{"module": "discard", "autorization": "Bearer x"}"#;
    let mut etcd = Etcd::start(version).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    for key in ["good", "bad", "bad-before"] {
        etcd.put(&format!("default/webhooks/{key}"), stamped(1)).await;
    }
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/bad-before", BAD).await).await;
    assert_eq!(stamp(&store, "default", "bad-before"), Some(1), "the last good value");
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    let seed = [("good", &*stamped(1)), ("bad", BAD), ("bad-before", BAD)];
    etcd.put_all(seed.map(|(key, value)| (format!("default/webhooks/{key}"), value.to_owned()))).await;

    until("the new history is not served", &store, |store| store.status().report.epoch == 1).await;
    live(&store).await;
    let snapshot = store.snapshot();
    let stamps = ["good", "bad", "bad-before"].map(|key| stamp(&store, "default", key));
    assert_eq!(stamps, [Some(1), None, None]);
    assert_eq!((snapshot.counts().webhooks, snapshot.counts().fenced), (1, 2));
    for (key, refusal) in snapshot.refusals() {
        assert!(!refusal.is_serving_last_good(), "{key}");
        assert!(refusal.reason().contains("did you mean `authorization`"), "{}", refusal.reason());
        assert!(refusal.reason().ends_with("it belongs to a history that is gone"), "{}", refusal.reason());
    }
    // Within the new history, last good values are served again.
    reached(&store, etcd.put("default/webhooks/bad", stamped(2)).await).await;
    reached(&store, etcd.put("default/webhooks/bad", BAD).await).await;
    assert_eq!(stamp(&store, "default", "bad"), Some(2));
}

async fn fresh_means_asked_since(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    for _ in 0..5 {
        let began = std::time::Instant::now();
        assert!(timeout(PATIENCE, store.wait_fresh()).await.unwrap());
        assert!(store.status().staleness().unwrap() <= began.elapsed());
    }
    // The write is outside of the prefix: only a proof, which is asked for at once, can show that.
    let elsewhere = etcd.client().await.put("/elsewhere", "x", None).await.unwrap();
    reached(&store, elsewhere.header().unwrap().revision().unsigned_abs()).await;
    etcd.kill();
    assert!(timeout(Duration::from_secs(2), store.wait_fresh()).await.is_err(), "nobody could say so");
}

async fn a_barrier_does_not_pass_into_another_history(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let revision = etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let waiting = store.clone();
    let barrier = tokio::spawn(async move { waiting.wait_for_revision(revision + 50).await });
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    for n in 0..100 {
        etcd.put("default/webhooks/b", stamped(n)).await;
    }
    assert!(!timeout(PATIENCE, barrier).await.unwrap().unwrap(), "the number means something else there");
}

/// On both of these servers a watch that catches up answers a progress request before it sends its events (etcd
/// #15220).
async fn a_long_catch_up_opens_no_barrier_early(version: Version) {
    const WRITES: u64 = 3000;
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let mut revision = 0;
    let mut client = etcd.client().await;
    for n in 0..WRITES {
        let put = client.put(format!("/cwm/default/webhooks/w{}", n % 50), stamped(n), None).await.unwrap();
        revision = put.header().unwrap().revision().unsigned_abs();
    }
    proxy.set(Mode::Pass);
    reached(&store, revision).await;
    assert_eq!(stamp(&store, "default", &format!("w{}", (WRITES - 1) % 50)), Some(WRITES - 1));
    assert_eq!(store.status().report.anomalies, 0);
}

async fn a_break_costs_no_list(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    for n in 0..5 {
        proxy.set(Mode::Cut);
        disconnected(&store).await;
        let revision = etcd.put("default/webhooks/a", stamped(n)).await;
        proxy.set(Mode::Pass);
        reached(&store, revision).await;
        live(&store).await;
    }
    let report = store.status().report;
    assert_eq!((lists(&store), report.anomalies, report.epoch), (1, 0, 0));
    assert!(report.connects >= 6);
}

/// Nothing has changed meanwhile: the new connection itself proves that, and the reader does not wait for the next
/// regular proof.
async fn a_source_that_reconnects_is_fresh(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = store.clone();
    let fresh = tokio::spawn(async move { waiting.wait_fresh().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.status().staleness() > Some(Duration::from_secs(3)));
    let back = std::time::Instant::now();
    proxy.set(Mode::Pass);
    live(&store).await;
    // The values are compared first, which takes a moment here.
    let fresh_again = |store: &Store| store.status().staleness() < Some(back.elapsed() + Duration::from_millis(500));
    until_within("it is not fresh", &store, Duration::from_secs(1), fresh_again).await;
    assert!(timeout(Duration::from_secs(1), fresh).await.unwrap().unwrap());
    assert_eq!((lists(&store), store.status().report.audits), (1, 1));
}
