//! Histories whose beginning has been compacted.

use std::time::Duration;

use etcd_client::CompactionOptions;
use tokio::time::sleep;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::ListReason;

use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{
    against_each_etcd, disconnected, follow, lists, live, live_within, reached, stamp, stamped, until,
};

against_each_etcd!(
    a_quiet_prefix_is_not_overtaken_by_compaction,
    a_deletion_that_was_compacted_away_is_found,
    the_watch_goes_on_at_the_compaction_revision,
    a_compaction_between_pages_starts_the_list_again,
);

async fn elsewhere(etcd: &Etcd, writes: u64) -> u64 {
    let mut client = etcd.client().await;
    let mut revision = 0;
    for n in 0..writes {
        revision = client.put("/elsewhere", n.to_string(), None).await.unwrap().header().unwrap().revision();
    }
    revision.unsigned_abs()
}

/// Returns when the compacted revisions are gone from the disk too.
async fn compact(etcd: &Etcd, revision: u64) {
    let physical = CompactionOptions::new().with_physical();
    etcd.client().await.compact(revision as i64, Some(physical)).await.unwrap();
}

/// Case 14: the progress messages of neither server can be trusted; the proof advances the revision to resume from.
async fn a_quiet_prefix_is_not_overtaken_by_compaction(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let head = elsewhere(&etcd, 50).await;
    // No reader asks for a proof: the regular one must suffice.
    until("nothing was proven", &store, |store| store.snapshot().revision() >= head).await;
    compact(&etcd, head).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    proxy.set(Mode::Pass);
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    assert_eq!((stamp(&store, "default", "a"), lists(&store), store.status().report.anomalies), (Some(2), 1, 0));
}

/// Case 16 (etcd #19179): a watch may begin at the compaction revision, but a deletion at that revision is never
/// delivered.
async fn a_deletion_that_was_compacted_away_is_found(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/stays", stamped(1)).await;
    etcd.put("default/webhooks/ghost", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let deleted = etcd.delete("default/webhooks/ghost").await;
    compact(&etcd, deleted).await;
    proxy.set(Mode::Pass);
    until("the deletion is not seen", &store, |store| stamp(store, "default", "ghost").is_none()).await;
    assert_eq!(stamp(&store, "default", "stays"), Some(1));
    live(&store).await;
    println!("{version:?}: {:?}", store.status().report.lists);
}

/// Also case 16: changes that have not been compacted are delivered.
async fn the_watch_goes_on_at_the_compaction_revision(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let next = etcd.put("default/webhooks/a", stamped(2)).await;
    assert_eq!(next, store.snapshot().revision() + 1);
    etcd.put("default/webhooks/b", stamped(3)).await;
    compact(&etcd, next).await;
    proxy.set(Mode::Pass);
    live(&store).await;
    assert_eq!((stamp(&store, "default", "a"), stamp(&store, "default", "b")), (Some(2), Some(3)));
    assert_eq!((lists(&store), store.status().report.anomalies), (1, 0));
}

/// Case 15.
async fn a_compaction_between_pages_starts_the_list_again(version: Version) {
    let etcd = Etcd::start(version).await;
    let pad = "x".repeat(250);
    let value = |n: u64| format!(r#"{{"module": "discard", "metadata": [{n}, "{pad}"]}}"#);
    for chunk in 0..50_u64 {
        let entry = |n: u64| (format!("default/webhooks/w{n:05}"), value(0));
        etcd.put_all((chunk * 100..chunk * 100 + 100).map(entry)).await;
    }
    let proxy = Proxy::before(etcd.port()).await;
    // A page of about 400 kB takes half a second.
    proxy.set(Mode::Trickle(16 << 10, Duration::from_millis(20)));
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    until("it does not list", &store, |store| lists(store) == 1).await;
    sleep(Duration::from_millis(900)).await;
    assert!(!store.snapshot().is_loaded(), "too fast for this test");
    // One key in the first page and one in the last, both changed at one revision.
    let changed = etcd
        .put_all([("default/webhooks/w00000".to_owned(), value(1)), ("default/webhooks/w04999".to_owned(), value(1))])
        .await;
    compact(&etcd, changed).await;
    until("nothing is loaded", &store, |store| store.snapshot().is_loaded()).await;
    let snapshot = store.snapshot();
    let state = crate::support::oracle::state(&snapshot);
    let changed_ones = state.values().filter(|stamp| **stamp == Some(1)).count();
    assert_eq!((state.len(), changed_ones), (5000, 2), "two revisions in one list");
    assert!(snapshot.revision() >= changed);
    assert_eq!(store.status().report.lists[&ListReason::Start], 2);
    proxy.set(Mode::Pass);
    live_within(&store, Duration::from_secs(10)).await;
}
