//! Compares the snapshots that readers saw with etcd's own history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions};
use tokio::time::timeout;
use tower_webhook::Store;
use tower_webhook::store::Snapshot;

use super::PATIENCE;
use super::etcd::{Etcd, PREFIX};

/// `namespace/id`, and the number that identifies its value.
pub type State = BTreeMap<String, Option<u64>>;

/// All snapshots that readers could see, one for each revision.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u64, State)>>,
}

pub fn state(snapshot: &Snapshot) -> State {
    let number = |value: &serde_json::Value| value.as_u64().or_else(|| value.get(0)?.as_u64());
    let name = |webhook: &tower_webhook::Webhook| format!("{}/{}", webhook.namespace(), webhook.id());
    snapshot.webhooks().map(|webhook| (name(webhook), webhook.metadata().and_then(number))).collect()
}

impl Observer {
    pub fn of(store: &Store) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (store, stopped) = (store.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut last = None;
            loop {
                // Read before the snapshot, so that the last snapshot is seen too.
                let stopped = stopped.load(Ordering::Acquire);
                let snapshot = store.snapshot();
                if snapshot.is_loaded() && last != Some(snapshot.revision()) {
                    assert!(last.is_none_or(|last| last < snapshot.revision()), "the configuration went back");
                    last = Some(snapshot.revision());
                    seen.push((snapshot.revision(), state(&snapshot)));
                }
                if stopped {
                    return seen;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        Self { stop, thread }
    }

    /// Compares all snapshots with etcd's history, of which nothing may have been compacted.
    pub async fn compare(self, etcd: &Etcd) {
        self.stop.store(true, Ordering::Release);
        let seen = tokio::task::spawn_blocking(|| self.thread.join()).await.unwrap().expect("a reader failed");
        let history = history(etcd).await;
        let mut changes = history.iter().peekable();
        let mut truth = State::new();
        for (revision, seen) in &seen {
            while let Some((_, key, value)) = changes.next_if(|(changed, ..)| changed <= revision) {
                match value {
                    Some(value) => truth.insert(key.clone(), *value),
                    None => truth.remove(key),
                };
            }
            assert_eq!(&truth, seen, "the state served as revision {revision} is not the one that etcd held");
        }
        assert!(!seen.is_empty());
        let head = history.last().map_or(0, |(revision, ..)| *revision);
        let last = seen.last().map_or(0, |(revision, _)| *revision);
        assert!(last >= head, "nobody saw the end: {last} of {head}");
    }
}

/// Every change of a webhook under the prefix, in order.
async fn history(etcd: &Etcd) -> Vec<(u64, String, Option<Option<u64>>)> {
    let mut client = etcd.client().await;
    let head = client.get("/", None).await.unwrap().header().unwrap().revision();
    let mut changes = Vec::new();
    // A last write that marks the end of the history.
    let end = client.put(format!("{PREFIX}end"), "", None).await.unwrap().header().unwrap().revision();
    assert!(end > head);
    let options = WatchOptions::new().with_prefix().with_start_revision(1).with_fragment();
    let mut stream = client.watch(PREFIX, Some(options)).await.unwrap();
    let all = async {
        loop {
            let message = stream.message().await.unwrap().unwrap();
            assert!(!message.canceled(), "the history has been compacted");
            for event in message.events() {
                let kv = event.kv().unwrap();
                if kv.mod_revision() >= end {
                    return;
                }
                let Some(key) = kv.key_str().ok().and_then(|key| key.strip_prefix(PREFIX)) else { continue };
                let Some((namespace, id)) = key.split_once("/webhooks/") else { continue };
                let value = match event.event_type() {
                    EventType::Put => {
                        let value: serde_json::Value = serde_json::from_slice(kv.value()).unwrap();
                        let metadata = &value["metadata"];
                        Some(metadata.as_u64().or_else(|| metadata.get(0)?.as_u64()))
                    }
                    EventType::Delete => None,
                };
                changes.push((kv.mod_revision().unsigned_abs(), format!("{namespace}/{id}"), value));
            }
        }
    };
    timeout(PATIENCE, all).await.expect("etcd does not deliver its history");
    changes
}
