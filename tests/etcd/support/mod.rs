pub mod etcd;
pub mod gateway;
pub mod lossy;
pub mod oracle;
pub mod proxy;

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_webhook::config::Target;
use tower_webhook::source::{EtcdOptions, EtcdSource};
use tower_webhook::store::SourceState;
use tower_webhook::{OnInvalid, Registry, Store, reflect};

/// The longest wait of a test. A change that has not arrived by then is lost.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The rounds or seconds of a test that needs minutes, reduced to `FAULT_PERCENT` if that is set.
pub fn rounds(all: u64) -> u64 {
    let percent = std::env::var("FAULT_PERCENT").ok().filter(|text| !text.is_empty());
    let percent = percent.map_or(100, |text| text.parse::<u64>().expect("FAULT_PERCENT"));
    (all * percent).div_ceil(100)
}

/// Runs each test against both versions of etcd.
macro_rules! against_each_etcd {
    ($($name:ident),* $(,)?) => {
        mod etcd_35 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::etcd::Version::V35).await;
            })*
        }
        mod etcd_34 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::etcd::Version::V34).await;
            })*
        }
    };
}
pub(crate) use against_each_etcd;

/// Follows etcd in the background until the returned guard is dropped.
pub fn follow(options: EtcdOptions) -> (Store, Following) {
    follow_with(options, Registry::builtin())
}

/// Serves no earlier value in place of one that does not compile: the served configuration then depends only on what
/// etcd holds.
pub fn follow_fenced(options: EtcdOptions) -> (Store, Following) {
    let (store, reflector) = reflect(EtcdSource::new(options).unwrap(), Registry::builtin());
    (store, Following(tokio::spawn(reflector.on_invalid(OnInvalid::Fence).run())))
}

pub fn follow_with(options: EtcdOptions, registry: Registry) -> (Store, Following) {
    let (store, reflector) = reflect(EtcdSource::new(options).unwrap(), registry);
    (store, Following(tokio::spawn(reflector.run())))
}

pub struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The configuration of a webhook that is recognised by a number.
pub fn stamped(stamp: u64) -> String {
    format!(r#"{{"module": "discard", "metadata": {stamp}}}"#)
}

/// The number of a served webhook.
pub fn stamp(store: &Store, namespace: &str, id: &str) -> Option<u64> {
    let target = Target::new(namespace, id).unwrap();
    store.snapshot().webhook(&target).and_then(|webhook| webhook.metadata()?.as_u64())
}

pub async fn ready(store: &Store) {
    store.wait_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}: {:?}", store.status()));
}

pub async fn reached(store: &Store, revision: u64) {
    let seen = timeout(PATIENCE, store.wait_for_revision(revision)).await;
    assert!(seen.unwrap_or_else(|_| panic!("revision {revision} did not come: {:?}", store.status())));
}

pub async fn until(what: &str, store: &Store, mut holds: impl FnMut(&Store) -> bool) {
    let waiting = async {
        while !holds(store) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}: {:?}", store.status());
}

/// Waits until the source is live, with a time limit. Returns the time that it took.
pub async fn live_within(store: &Store, bound: Duration) -> Duration {
    let began = std::time::Instant::now();
    until_within("it is not live", store, bound, |store| store.status().state == SourceState::Live).await;
    began.elapsed()
}

/// Like [`until`], with another time limit. Returns the time that it took.
pub async fn until_within(
    what: &str,
    store: &Store,
    bound: Duration,
    mut holds: impl FnMut(&Store) -> bool,
) -> Duration {
    let began = std::time::Instant::now();
    while !holds(store) {
        assert!(began.elapsed() < bound, "{what} within {bound:?}: {:?}", store.status());
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// The number of errors of this kind.
pub fn errors(store: &Store, kind: tower_webhook::store::ErrorKind) -> u64 {
    store.status().report.errors.get(&kind).copied().unwrap_or(0)
}

/// The number of lists since the start.
pub fn lists(store: &Store) -> u64 {
    store.status().report.lists.values().sum()
}

pub async fn live(store: &Store) {
    until("it is not live", store, |store| store.status().state == SourceState::Live).await;
}

pub async fn disconnected(store: &Store) -> String {
    until("it is not disconnected", store, |store| store.status().state.reason().is_some()).await;
    store.status().state.reason().unwrap_or_default().to_owned()
}
