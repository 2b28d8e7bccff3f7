//! A change that the watch lost, while other changes arrive all the time.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::ListReason;

use crate::support::etcd::{Etcd, Version};
use crate::support::lossy::Lossy;
use crate::support::{Following, PATIENCE, against_each_etcd, follow, live, reached, stamp, stamped, until};

against_each_etcd!(
    a_lost_deletion_is_never_called_fresh_and_soon_read,
    a_lost_update_is_found_by_the_proofs,
    nothing_is_doubted_while_keys_come_and_go,
);

const KEY: &str = "default/webhooks/a";

/// A gateway behind the proxy, and a writer that changes another key fifty times a second.
struct Busy {
    etcd: Etcd,
    lossy: Lossy,
    store: Store,
    _following: Following,
    writing: JoinHandle<()>,
}

impl Busy {
    async fn new(version: Version) -> Self {
        let etcd = Etcd::start(version).await;
        etcd.put(KEY, stamped(1)).await;
        let lossy = Lossy::before(etcd.port()).await;
        let (store, following) = follow(EtcdOptions::new([lossy.endpoint()]));
        live(&store).await;
        let mut client = etcd.client().await;
        let writing = tokio::spawn(async move {
            for n in 0.. {
                client.put("/cwm/default/webhooks/busy", stamped(n), None).await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self { etcd, lossy, store, _following: following, writing }
    }

    /// Waits until the watch has passed `revision` and lost its change.
    async fn lost(&self, revision: u64) {
        reached(&self.store, revision).await;
        assert_eq!(self.lossy.lost(), 1, "the proxy lost nothing");
    }

    async fn found(&self) {
        live(&self.store).await;
        let report = self.store.status().report;
        assert_eq!(report.lists.get(&ListReason::LostEvents), Some(&1), "{report:?}");
        assert_eq!((report.anomalies, report.epoch), (1, 0), "{report:?}");
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

async fn a_lost_deletion_is_never_called_fresh_and_soon_read(version: Version) {
    let busy = Busy::new(version).await;
    busy.lossy.lose(KEY);
    busy.lost(busy.etcd.delete(KEY).await).await;
    // The configuration is not called fresh while the deleted key is served.
    let fresh = timeout(PATIENCE, busy.store.wait_fresh()).await;
    assert_eq!((stamp(&busy.store, "default", "a"), fresh), (None, Ok(true)));
    busy.found().await;
}

async fn a_lost_update_is_found_by_the_proofs(version: Version) {
    let busy = Busy::new(version).await;
    busy.lossy.lose(KEY);
    busy.lost(busy.etcd.put(KEY, stamped(2)).await).await;
    until("the update is not served", &busy.store, |store| stamp(store, "default", "a") == Some(2)).await;
    busy.found().await;
}

async fn nothing_is_doubted_while_keys_come_and_go(version: Version) {
    let busy = Busy::new(version).await;
    for n in 0..100 {
        let key = format!("default/webhooks/w{}", n % 3);
        let revision = match n % 2 {
            0 => busy.etcd.put(&key, stamped(n)).await,
            _ => busy.etcd.delete(&key).await,
        };
        assert_eq!(timeout(PATIENCE, busy.store.wait_fresh()).await, Ok(true));
        reached(&busy.store, revision).await;
    }
    let report = busy.store.status().report;
    assert_eq!((report.anomalies, report.connects), (0, 1), "{report:?}");
}
