//! Backups that were restored while no gateway was connected.

use std::time::Duration;

use tower_webhook::source::EtcdOptions;

use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{against_each_etcd, disconnected, follow, live, reached, stamp, stamped, until_within};

against_each_etcd!(
    a_restored_backup_with_a_newer_revision_is_detected,
    a_backup_restored_as_another_cluster_is_detected
);

/// Case 18: when the gateway reconnects, etcd's revision is already beyond its own.
async fn a_restored_backup_with_a_newer_revision_is_detected(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let mut etcd = Etcd::start(version).await;
    // Keeps the raft term equal, so that the term alone does not reveal the restored cluster.
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/old", stamped(1)).await;
    etcd.put("default/webhooks/changed", stamped(1)).await;
    etcd.back_up(&backup);
    for n in 0..20 {
        etcd.put("default/webhooks/lost", stamped(n)).await;
    }
    etcd.put("default/webhooks/changed", stamped(2)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    etcd.kill();
    etcd.restore(&backup);
    etcd.run().await;
    let mut last = 0;
    for n in 0..100 {
        last = etcd.put("default/webhooks/new", stamped(n)).await;
    }
    assert!(last > store.snapshot().revision(), "the restored history has not come this far");
    proxy.set(Mode::Pass);
    let took = until_within("the restored history is not served", &store, Duration::from_secs(20), |store| {
        store.snapshot().revision() >= last && stamp(store, "default", "lost").is_none()
    });
    println!("{version:?}: taken over after {:?}", took.await);
    assert_eq!(stamp(&store, "default", "changed"), Some(1));
    assert_eq!((stamp(&store, "default", "old"), stamp(&store, "default", "new")), (Some(1), Some(99)));
    assert_eq!(store.status().report.epoch, 1);
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/new", stamped(100)).await).await;
}

/// Case 19.
async fn a_backup_restored_as_another_cluster_is_detected(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/old", stamped(1)).await;
    etcd.back_up(&backup);
    etcd.put("default/webhooks/lost", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    etcd.kill();
    etcd.restore_with(&backup, &["--initial-cluster-token", "another"]);
    etcd.run().await;
    let took = until_within("the other cluster is not served", &store, Duration::from_secs(20), |store| {
        stamp(store, "default", "lost").is_none()
    });
    println!("{version:?}: taken over after {:?}", took.await);
    assert_eq!((stamp(&store, "default", "old"), store.status().report.epoch), (Some(1), 1));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/old", stamped(2)).await).await;
    assert_eq!(stamp(&store, "default", "old"), Some(2));
}
