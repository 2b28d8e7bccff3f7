//! Events inside etcd, and proxies before it.

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType};
use tokio::time::timeout;
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::SourceState;

use crate::support::etcd::{Etcd, Version};
use crate::support::oracle::Observer;
use crate::support::{against_each_etcd, follow, lists, live, reached, stamp, stamped, until, until_within};

against_each_etcd!(
    a_crash_costs_no_list,
    a_defragmentation_is_no_break,
    a_full_etcd_is_still_read,
    a_corrupt_alarm_drops_nothing,
    alarms_of_another_member_come_and_go,
    it_works_behind_etcds_own_proxy,
);

/// Case 1.
async fn a_crash_costs_no_list(version: Version) {
    let mut etcd = Etcd::start(version).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let observer = Observer::of(&store);
    for n in 0..100 {
        etcd.put(&format!("default/webhooks/w{}", n % 10), stamped(n)).await;
    }
    etcd.kill();
    let noticed = until_within("it is not noticed", &store, Duration::from_secs(1), |store| {
        store.status().state != SourceState::Live
    });
    let noticed = noticed.await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    etcd.run().await;
    let mut revision = 0;
    for n in 100..200 {
        revision = etcd.put(&format!("default/webhooks/w{}", n % 10), stamped(n)).await;
    }
    // By then the waits between two attempts have grown to a second or two.
    let back = until_within("it does not come back", &store, Duration::from_secs(6), |store| {
        store.snapshot().revision() >= revision && store.status().state == SourceState::Live
    });
    println!("{version:?}: noticed after {noticed:?}, back after {:?}", back.await);
    observer.compare(&etcd).await;
    assert_eq!((lists(&store), store.status().report.anomalies), (1, 0));
}

/// Case 40.
async fn a_defragmentation_is_no_break(version: Version) {
    let etcd = Etcd::start(version).await;
    for n in 0..300 {
        etcd.put(&format!("default/webhooks/w{}", n % 10), stamped(n)).await;
    }
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let observer = Observer::of(&store);
    for n in 0..10 {
        etcd.client().await.defragment().await.unwrap();
        reached(&store, etcd.put("default/webhooks/a", stamped(n)).await).await;
    }
    let report = store.status().report;
    assert_eq!((store.status().state, report.connects, lists(&store)), (SourceState::Live, 1, 1));
    observer.compare(&etcd).await;
}

/// Case 40.
async fn a_full_etcd_is_still_read(version: Version) {
    let mut etcd = Etcd::stopped(version).with_arguments(&["--quota-backend-bytes", "1000000"]);
    etcd.run().await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let mut client = etcd.client().await;
    let mut revision = 0;
    let full = loop {
        let value = format!(r#"{{"module": "discard", "metadata": [{revision}, "{}"]}}"#, "x".repeat(50_000));
        match client.put("/cwm/default/webhooks/a", value, None).await {
            Ok(put) => revision = put.header().unwrap().revision().unsigned_abs(),
            Err(error) => break error.to_string(),
        }
        assert!(revision < 1000, "it is never full");
    };
    assert!(full.contains("space exceeded"), "{full}");
    reached(&store, revision).await;
    assert!(timeout(Duration::from_secs(5), store.wait_fresh()).await.unwrap());
    let report = store.status().report;
    assert_eq!((store.status().state, report.connects, lists(&store)), (SourceState::Live, 1, 1));
    // A gateway that starts now is served too.
    let (late, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&late).await;
    assert_eq!(late.snapshot().counts().webhooks, 1);
    // Both gateways learn of the alarm, also the one that was connected before.
    for store in [&store, &late] {
        shows_alarm(store, "NOSPACE").await;
    }
    let mut options = etcd_client::AlarmOptions::new();
    options.with_member(etcd.id().await);
    client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options)).await.unwrap();
    for store in [&store, &late] {
        shows_no_alarm(store).await;
        assert_eq!((store.status().state, store.status().report.connects), (SourceState::Live, 1));
    }
}

async fn shows_alarm(store: &Store, alarm: &str) {
    until_within("the alarm is not shown", store, Duration::from_secs(20), |store| {
        store.status().report.server_errors.iter().any(|error| error.contains(alarm))
    })
    .await;
}

async fn shows_no_alarm(store: &Store) {
    until_within("the alarm is still shown", store, Duration::from_secs(20), |store| {
        store.status().report.server_errors.is_empty()
    })
    .await;
}

/// An alarm concerns the whole cluster, whichever member is asked.
async fn alarms_of_another_member_come_and_go(version: Version) {
    let members = Etcd::three(version).await;
    let (store, _following) = follow(EtcdOptions::new([members[0].endpoint()]));
    live(&store).await;
    let mut client = members[1].client().await;
    for other in &members[1..] {
        let mut options = etcd_client::AlarmOptions::new();
        options.with_member(other.id().await);
        client.alarm(AlarmAction::Activate, AlarmType::Nospace, Some(options)).await.unwrap();
    }
    until_within("two alarms are not shown", &store, Duration::from_secs(20), |store| {
        store.status().report.server_errors.len() == 2
    })
    .await;
    for other in &members[1..] {
        let mut options = etcd_client::AlarmOptions::new();
        options.with_member(other.id().await);
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options)).await.unwrap();
    }
    shows_no_alarm(&store).await;
    assert_eq!((store.status().state, store.status().report.connects), (SourceState::Live, 1));
}

/// Case 40.
async fn a_corrupt_alarm_drops_nothing(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let mut options = etcd_client::AlarmOptions::new();
    options.with_member(etcd.id().await);
    let mut client = etcd.client().await;
    client.alarm(AlarmAction::Activate, AlarmType::Corrupt, Some(options.clone())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    println!("{version:?}: {:?} {:?}", store.status().state, store.status().report.last_error);
    assert_eq!(stamp(&store, "default", "a"), Some(1), "the last configuration is served");
    assert!(store.status().report.connects <= 10, "a storm of connections");
    let (late, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    shows_alarm(&late, "CORRUPT").await;
    client.alarm(AlarmAction::Deactivate, AlarmType::Corrupt, Some(options)).await.unwrap();
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    live(&store).await;
    assert_eq!((lists(&store), store.status().report.epoch), (1, 0));
    shows_no_alarm(&store).await;
}

/// Case 43: the proxy answers no request for progress, and does not report that etcd is gone.
async fn it_works_behind_etcds_own_proxy(version: Version) {
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (_proxy, endpoint) = etcd.grpc_proxy().await;
    let (store, _following) = follow(EtcdOptions::new([endpoint]));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    // Longer than the watch may be silent: the proofs keep it alive.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((store.status().state, store.status().report.connects), (SourceState::Live, 1));
    etcd.kill();
    let noticed = until_within("it is not noticed", &store, Duration::from_secs(20), |store| {
        store.status().state != SourceState::Live
    });
    println!("{version:?}: noticed after {:?}", noticed.await);
    etcd.run().await;
    reached(&store, etcd.put("default/webhooks/a", stamped(3)).await).await;
    until("it does not recover", &store, |store| stamp(store, "default", "a") == Some(3)).await;
    live(&store).await;
    assert_eq!(store.status().report.epoch, 0);
}
