//! The configuration that is served while etcd is unreachable, and the reconnection.

use std::time::Duration;

use tokio::time::sleep;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::SourceState;

use crate::support::etcd::{Etcd, Version, free_port};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{against_each_etcd, disconnected, follow, live, reached, ready, stamp, stamped, until};

against_each_etcd!(
    an_etcd_that_is_not_there_yet_is_waited_for,
    a_killed_etcd_is_followed_again,
    a_frozen_etcd_is_noticed,
    a_black_hole_is_noticed,
    cuts_lose_nothing,
    a_compaction_during_a_cut_is_recovered_from,
    a_wiped_etcd_is_taken_over,
    a_dead_endpoint_is_passed_by,
);

async fn an_etcd_that_is_not_there_yet_is_waited_for(version: Version) {
    let mut etcd = Etcd::stopped(version);
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    disconnected(&store).await;
    assert!(!store.snapshot().is_loaded());
    etcd.run().await;
    ready(&store).await;
    live(&store).await;
}

async fn a_killed_etcd_is_followed_again(version: Version) {
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    ready(&store).await;
    etcd.kill();
    disconnected(&store).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1), "the last configuration is served");
    etcd.run().await;
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    assert_eq!(stamp(&store, "default", "a"), Some(2));
    live(&store).await;
}

async fn a_frozen_etcd_is_noticed(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    etcd.signal("-STOP");
    disconnected(&store).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    assert!(store.status().staleness().unwrap() > Duration::from_secs(1));
    etcd.signal("-CONT");
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    live(&store).await;
}

async fn a_black_hole_is_noticed(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let connections = proxy.accepted();
    proxy.set(Mode::BlackHole);
    disconnected(&store).await;
    let revision = etcd.put("default/webhooks/a", stamped(1)).await;
    proxy.set(Mode::Pass);
    reached(&store, revision).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    assert!(proxy.accepted() > connections, "a half-open connection was used again");
}

async fn cuts_lose_nothing(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    ready(&store).await;
    let mut client = etcd.client().await;
    let writer = tokio::spawn(async move {
        let mut revision = 0;
        for n in 0..400 {
            let key = format!("/cwm/default/webhooks/w{}", n % 10);
            let header = match n % 7 {
                6 => client.delete(key, None).await.unwrap().header().unwrap().revision(),
                _ => client.put(key, stamped(n), None).await.unwrap().header().unwrap().revision(),
            };
            revision = header.unsigned_abs();
            sleep(Duration::from_millis(5)).await;
        }
        revision
    });
    for _ in 0..8 {
        sleep(Duration::from_millis(200)).await;
        proxy.set(Mode::Cut);
        sleep(Duration::from_millis(50)).await;
        proxy.set(Mode::Pass);
    }
    let revision = writer.await.unwrap();
    reached(&store, revision).await;
    for key in 0..10 {
        let last = (0..400).rev().find(|n| n % 10 == key).filter(|n| n % 7 != 6);
        assert_eq!(stamp(&store, "default", &format!("w{key}")), last, "w{key}");
    }
}

async fn a_compaction_during_a_cut_is_recovered_from(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/gone", stamped(1)).await;
    etcd.put("default/webhooks/stays", stamped(1)).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let before = store.snapshot();
    proxy.set(Mode::Cut);
    etcd.delete("default/webhooks/gone").await;
    let revision = etcd.put("default/webhooks/new", stamped(2)).await;
    etcd.compact(revision).await;
    proxy.set(Mode::Pass);
    reached(&store, revision).await;
    assert_eq!(stamp(&store, "default", "gone"), None, "a deletion was missed");
    assert_eq!(stamp(&store, "default", "new"), Some(2));
    let stays = tower_webhook::config::Target::new("default", "stays").unwrap();
    let (before, after) = (before.webhook(&stays).unwrap().clone(), store.snapshot().webhook(&stays).unwrap().clone());
    assert!(std::sync::Arc::ptr_eq(&before, &after), "an unchanged webhook was built again");
}

async fn a_wiped_etcd_is_taken_over(version: Version) {
    let mut etcd = Etcd::start(version).await;
    for n in 0..10 {
        etcd.put("default/webhooks/old", stamped(n)).await;
    }
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    etcd.put("default/webhooks/new", stamped(1)).await;
    until("the new history is not served", &store, |store| stamp(store, "default", "new") == Some(1)).await;
    assert_eq!(stamp(&store, "default", "old"), None);
}

async fn a_dead_endpoint_is_passed_by(version: Version) {
    let etcd = Etcd::start(version).await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    for endpoints in [[dead.clone(), etcd.endpoint()], [etcd.endpoint(), dead]] {
        let (store, _following) = follow(EtcdOptions::new(endpoints));
        live(&store).await;
        assert_eq!(store.status().state, SourceState::Live);
    }
}
