//! Many gateways that do the same thing at the same time. Case 44.

use std::time::{Duration, Instant};

use tower_webhook::source::EtcdOptions;
use tower_webhook::store::{ListReason, SourceState};

use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{disconnected, follow, lists, rounds, stamp, stamped, until};

async fn fleet(size: usize) {
    let etcd = Etcd::start(Version::V35).await;
    let proxy = Proxy::before(etcd.port()).await;
    for n in 0..20 {
        etcd.put(&format!("default/webhooks/w{n}"), stamped(n)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let directory = |n: usize| folder.path().join(n.to_string());
    let (store, following) = follow(EtcdOptions::new([etcd.endpoint()]).saved_copy(directory(0)));
    let file = directory(0).join("tower-webhook/etcd.saved");
    until("nothing is saved", &store, |_| file.exists()).await;
    drop(following);
    for n in 1..size {
        std::fs::create_dir_all(directory(n).join("tower-webhook")).unwrap();
        std::fs::copy(&file, directory(n).join("tower-webhook/etcd.saved")).unwrap();
    }
    etcd.put("default/webhooks/w0", stamped(100)).await;

    let began = Instant::now();
    let options = |n| EtcdOptions::new([proxy.endpoint()]).saved_copy(directory(n));
    let fleet: Vec<_> = (0..size).map(|n| follow(options(n))).collect();
    for (store, _following) in &fleet {
        until("it does not start", store, |store| {
            store.status().state == SourceState::Live && stamp(store, "default", "w0") == Some(100)
        })
        .await;
    }
    println!("{size} gateways from their copies: {:?}", began.elapsed());
    assert!(fleet.iter().all(|(store, _)| lists(store) == 0), "a start that could go on from its copy lists");

    // The changes that all of them missed are compacted.
    proxy.set(Mode::Cut);
    for (store, _following) in &fleet {
        disconnected(store).await;
    }
    etcd.delete("default/webhooks/w1").await;
    let revision = etcd.put("default/webhooks/w0", stamped(101)).await;
    etcd.compact(revision).await;
    let began = Instant::now();
    proxy.set(Mode::Pass);
    let mut client = etcd.client().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let puts = tokio::spawn(async move {
        let mut slowest = Duration::ZERO;
        while !*stopped.borrow() {
            let put = Instant::now();
            client.put("/elsewhere", "x", None).await.unwrap();
            slowest = slowest.max(put.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slowest
    });
    for (store, _following) in &fleet {
        until("it does not come back", store, |store| stamp(store, "default", "w0") == Some(101)).await;
    }
    let took = began.elapsed();
    stop.send_replace(true);
    let slowest = puts.await.unwrap();
    println!("all back after {took:?}; slowest put beside it {slowest:?}");
    for (store, _following) in &fleet {
        assert_eq!(stamp(store, "default", "w1"), None);
        let report = store.status().report;
        assert_eq!(report.lists.get(&ListReason::Compacted), Some(&1), "{report:?}");
    }
    assert!(slowest < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_gateways_restart_together() {
    fleet(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make test-faults"]
async fn five_hundred_gateways_restart_together() {
    fleet(rounds(500) as usize).await;
}
