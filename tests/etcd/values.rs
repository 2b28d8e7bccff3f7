//! Values that are large, many, or not what they should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::ListReason;

use crate::support::etcd::{Etcd, PREFIX, Version};
use crate::support::oracle::{Observer, state};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{
    against_each_etcd, disconnected, follow, follow_fenced, lists, live, live_within, reached, ready, stamp, stamped,
    until_within,
};

against_each_etcd!(
    nothing_of_a_revision_is_lost_to_what_is_wrong_in_it,
    changes_of_a_key_during_a_cut_are_caught_up_with,
    fragments_are_put_together,
    with_fence_no_earlier_value_is_served_for_a_refused_one,
);

fn large(stamp: u64, bytes: usize) -> String {
    format!(r#"{{"module": "discard", "metadata": [{stamp}, "{}"]}}"#, "x".repeat(bytes))
}

/// Case 31, all of it in one revision.
async fn nothing_of_a_revision_is_lost_to_what_is_wrong_in_it(version: Version) {
    let etcd = Etcd::start(version).await;
    for key in ["empty", "broken", "schema", "text", "good"] {
        etcd.put(&format!("default/webhooks/{key}"), stamped(1)).await;
    }
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let put =
        |key: &[u8], value: &[u8]| etcd_client::TxnOp::put([PREFIX.as_bytes(), key].concat(), value.to_vec(), None);
    let txn = etcd_client::Txn::new().and_then([
        put(b"default/webhooks/empty", b""),
        put(b"default/webhooks/broken", b"{"),
        put(b"default/webhooks/schema", br#"{"module": 7}"#),
        put(b"default/webhooks/text", b"\xff\xfe\x00"),
        put(b"default/webhooks/\xff\xfe", stamped(2).as_bytes()),
        put(b"default/webhooks/", stamped(2).as_bytes()),
        put(b"default/webhooks/a/b/c", stamped(2).as_bytes()),
        put(b"", stamped(2).as_bytes()),
        put(b"\x00", b""),
        put(b"default/webhooks/large", large(2, 500_000).as_bytes()),
        put(b"default/webhooks/good", stamped(2).as_bytes()),
        put(b"global/connections/none", b"[]"),
    ]);
    let response = etcd.client().await.txn(txn).await.unwrap();
    reached(&store, response.header().unwrap().revision().unsigned_abs()).await;

    let check = |store: &Store, refused: usize| {
        let snapshot = store.snapshot();
        let state = state(&snapshot);
        assert_eq!(state["default/good"], Some(2));
        assert_eq!(state["default/large"], Some(2));
        for key in ["empty", "broken", "schema", "text"] {
            assert_eq!(state.get(&format!("default/{key}")), Some(&Some(1)), "{key}: the last good value");
        }
        let told: Vec<_> = snapshot.refusals().map(|(key, _)| key.to_string()).collect();
        assert_eq!(told.len(), refused, "{told:?}");
        assert!(store.status().ignored_keys >= 4);
    };
    check(&store, 5);
    live(&store).await;
    assert_eq!((lists(&store), store.status().report.anomalies), (1, 0));
}

/// Case 31, with `OnInvalid::Fence`: no earlier value is served.
async fn with_fence_no_earlier_value_is_served_for_a_refused_one(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow_fenced(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/a", "").await).await;
    assert_eq!((stamp(&store, "default", "a"), store.snapshot().counts().fenced), (None, 1));
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    assert_eq!((stamp(&store, "default", "a"), store.snapshot().counts().fenced), (Some(2), 0));
}

/// Case 34.
async fn changes_of_a_key_during_a_cut_are_caught_up_with(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    for key in ["again", "gone", "burst"] {
        etcd.put(&format!("default/webhooks/{key}"), stamped(1)).await;
    }
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let observer = Observer::of(&store);
    for round in 0..5 {
        proxy.set(Mode::Cut);
        disconnected(&store).await;
        etcd.delete("default/webhooks/again").await;
        etcd.put("default/webhooks/again", stamped(round)).await;
        etcd.put("default/webhooks/burst", stamped(100 + round)).await;
        etcd.delete("default/webhooks/burst").await;
        etcd.put("default/webhooks/burst", stamped(200 + round)).await;
        etcd.put("default/webhooks/brief", stamped(1)).await;
        etcd.delete("default/webhooks/brief").await;
        // Of one transaction: gone and something else in its place.
        let txn = etcd_client::Txn::new().and_then([
            etcd_client::TxnOp::delete(format!("{PREFIX}default/webhooks/gone"), None),
            etcd_client::TxnOp::put(format!("{PREFIX}default/webhooks/instead"), stamped(round), None),
        ]);
        let response = etcd.client().await.txn(txn).await.unwrap();
        let revision = response.header().unwrap().revision().unsigned_abs();
        proxy.set(Mode::Pass);
        reached(&store, revision).await;
        assert_eq!(stamp(&store, "default", "again"), Some(round));
        assert_eq!(stamp(&store, "default", "burst"), Some(200 + round));
        assert_eq!(stamp(&store, "default", "brief"), None);
        assert_eq!((stamp(&store, "default", "gone"), stamp(&store, "default", "instead")), (None, Some(round)));
        // The same live.
        for n in 0..10 {
            etcd.put("default/webhooks/burst", stamped(n)).await;
            etcd.delete("default/webhooks/burst").await;
        }
        reached(&store, etcd.put("default/webhooks/burst", stamped(300 + round)).await).await;
        assert_eq!(stamp(&store, "default", "burst"), Some(300 + round));
    }
    observer.compare(&etcd).await;
    assert_eq!((lists(&store), store.status().report.anomalies), (1, 0));
}

/// Case 33: the missed changes arrive in messages of more than 2 MiB, which etcd splits without regard to revisions.
async fn fragments_are_put_together(version: Version) {
    const KEYS: usize = 60;
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    let all = |n: u64| (0..KEYS).map(move |key| (format!("default/webhooks/w{key}"), large(n, 20_000)));
    etcd.put_all(all(0)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (reading, stopped) = (store.clone(), Arc::clone(&stop));
    let reader = tokio::task::spawn_blocking(move || {
        let mut seen = 0;
        loop {
            let stopped = stopped.load(Ordering::Acquire);
            let snapshot = reading.snapshot();
            let stamps: Vec<_> = state(&snapshot).into_values().flatten().collect();
            assert_eq!(stamps.len(), KEYS);
            assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "two states in one snapshot: {stamps:?}");
            assert!(stamps[0] >= seen, "the configuration went back");
            seen = stamps[0];
            if stopped {
                return seen;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let mut n = 0;
    for _ in 0..4 {
        proxy.set(Mode::Cut);
        disconnected(&store).await;
        let mut revision = 0;
        for _ in 0..10 {
            n += 1;
            revision = etcd.put_all(all(n)).await;
        }
        proxy.set(Mode::Pass);
        // Cut again in the middle of it, for what is held of a revision is then of no use.
        tokio::time::sleep(Duration::from_millis(n % 4 * 20)).await;
        proxy.set(Mode::Cut);
        tokio::time::sleep(Duration::from_millis(10)).await;
        proxy.set(Mode::Pass);
        reached(&store, revision).await;
    }
    stop.store(true, Ordering::Release);
    assert_eq!(reader.await.unwrap(), n);
    assert_eq!((lists(&store), store.status().report.anomalies), (1, 0));
}

/// Cases 35 and 36.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_megabytes_are_caught_up_with_and_listed() {
    const KEYS: u64 = 160;
    const PUTS: u64 = 400;
    let etcd = Etcd::start(Version::V35).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    let mut client = etcd.client().await;
    let mut revision = 0;
    for n in 0..PUTS {
        let put = client.put(format!("/cwm/default/webhooks/w{}", n % KEYS), large(n, 500_000), None).await;
        revision = put.unwrap().header().unwrap().revision().unsigned_abs();
    }
    proxy.set(Mode::Pass);
    let began = Instant::now();
    until_within("it does not catch up", &store, Duration::from_secs(60), |store| {
        store.snapshot().revision() >= revision
    })
    .await;
    println!("200 MB of history: {:?}, lists {:?}", began.elapsed(), store.status().report.lists);
    assert!(lists(&store) <= 2);
    let newest = |store: &Store| {
        let state = state(&store.snapshot());
        assert_eq!(state.len() as u64, KEYS);
        for n in PUTS - KEYS..PUTS {
            assert_eq!(state[&format!("default/w{}", n % KEYS)], Some(n));
        }
    };
    newest(&store);

    // More in a page than a message may hold: smaller pages do.
    let (late, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    let took = live_within(&late, Duration::from_secs(40)).await;
    println!("a list of 80 MB: {took:?}, lists {:?}, {:?}", late.status().report.lists, late.status().report.errors);
    newest(&late);
    assert!(late.status().report.lists[&ListReason::Start] <= 8);
}

/// Case 35.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_keys_are_loaded() {
    const KEYS: u64 = 20_000;
    let etcd = Etcd::start(Version::V35).await;
    for chunk in 0..KEYS / 100 {
        let entry = |n: u64| (format!("ns{}/webhooks/w{n}", n % 50), large(n, 2000));
        etcd.put_all((chunk * 100..chunk * 100 + 100).map(entry)).await;
    }
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    let began = Instant::now();
    ready(&store).await;
    println!("20,000 keys of 2 kB: {:?}", began.elapsed());
    assert_eq!(store.snapshot().counts().webhooks as u64, KEYS);
    live(&store).await;
    reached(&store, etcd.put("ns0/webhooks/w0", stamped(7)).await).await;
    assert_eq!(stamp(&store, "ns0", "w0"), Some(7));
    assert_eq!((lists(&store), store.status().report.anomalies), (1, 0));
}
