//! The configuration that is served is the content of etcd.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_webhook::config::Target;
use tower_webhook::source::EtcdOptions;

use crate::support::etcd::{Etcd, Version};
use crate::support::{PATIENCE, against_each_etcd, follow, live, reached, ready, stamp, stamped, until};

against_each_etcd!(
    everything_there_is_is_loaded_in_pages,
    puts_and_deletes_are_followed,
    only_the_prefix_is_followed,
    a_transaction_is_seen_whole,
    a_bad_value_touches_only_itself,
    writes_elsewhere_in_etcd_are_waited_for_too,
    no_write_is_lost_at_a_start,
);

async fn everything_there_is_is_loaded_in_pages(version: Version) {
    let etcd = Etcd::start(version).await;
    for chunk in 0..25_u64 {
        let entry = |n: u64| (format!("ns{}/webhooks/w{n}", n % 3), stamped(n));
        etcd.put_all((chunk * 100..chunk * 100 + 100).map(entry)).await;
    }
    etcd.put("global/connections/db", r#"{"type": "http", "url": "http://example.com/"}"#).await;
    etcd.put("default/hooks/foreign", "what?").await;
    let revision = etcd.put("default/webhooks/-bad-", stamped(0)).await;

    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    ready(&store).await;
    let status = store.status();
    let counts = status.snapshot.counts();
    assert_eq!((counts.webhooks, counts.namespaces, counts.connections, counts.open), (2500, 3, 1, 2500));
    assert_eq!(status.snapshot.revision(), revision);
    assert_eq!(status.ignored_keys, 2);
    assert!((0..2500).all(|n| stamp(&store, &format!("ns{}", n % 3), &format!("w{n}")) == Some(n)));
    live(&store).await;
}

async fn puts_and_deletes_are_followed(version: Version) {
    let etcd = Etcd::start(version).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    ready(&store).await;

    reached(&store, etcd.put("default/webhooks/a", stamped(1)).await).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    assert_eq!(stamp(&store, "default", "a"), Some(2));
    reached(&store, etcd.delete("default/webhooks/a").await).await;
    assert_eq!(stamp(&store, "default", "a"), None);
    assert_eq!(store.snapshot().counts(), Default::default());
    assert!(store.status().staleness().is_some());
}

async fn only_the_prefix_is_followed(version: Version) {
    let etcd = Etcd::start(version).await;
    let mut client = etcd.client().await;
    client.put("/gw/default/webhooks/a", stamped(1), None).await.unwrap();
    client.put("/gw2/default/webhooks/a", stamped(2), None).await.unwrap();
    client.put("/gw", stamped(3), None).await.unwrap();
    client.put(&b"/gw/\xff\xfe"[..], stamped(4), None).await.unwrap();

    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).prefix("/gw"));
    ready(&store).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    assert_eq!(store.snapshot().counts().webhooks, 1);
    assert_eq!(store.status().ignored_keys, 1);
    client.put("/gw2/default/webhooks/b", stamped(5), None).await.unwrap();
    let last = client.put("/gw/default/webhooks/c", stamped(6), None).await.unwrap();
    reached(&store, last.header().unwrap().revision().unsigned_abs()).await;
    assert_eq!(store.snapshot().counts().webhooks, 2);
}

async fn a_transaction_is_seen_whole(version: Version) {
    const KEYS: usize = 60;
    let etcd = Etcd::start(version).await;
    let all = |n: u64| (0..KEYS).map(move |key| (format!("ns{}/webhooks/w{key}", key % 2), stamped(n)));
    etcd.put_all(all(0)).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    ready(&store).await;

    let reading = store.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut seen = 0;
        while seen < 50 {
            let snapshot = reading.snapshot();
            let mut stamps = snapshot.webhooks().map(|webhook| webhook.metadata().unwrap().as_u64().unwrap());
            let first = stamps.next().unwrap();
            assert!(stamps.all(|stamp| stamp == first), "two states in one snapshot");
            assert!(first >= seen, "the configuration went back");
            seen = first;
        }
    });
    for n in 1..=50 {
        reached(&store, etcd.put_all(all(n)).await).await;
    }
    reader.await.unwrap();
}

async fn a_bad_value_touches_only_itself(version: Version) {
    let etcd = Etcd::start(version).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    etcd.put("default/webhooks/a", stamped(1)).await;
    ready(&store).await;
    let bad = [
        ("default/webhooks/a".to_owned(), r#"{"module": "discard", "autorization": "Bearer x"}"#.to_owned()),
        ("default/webhooks/b".to_owned(), stamped(2)),
        ("default/webhooks/c".to_owned(), "{".to_owned()),
    ];
    reached(&store, etcd.put_all(bad).await).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1), "the last good value");
    assert_eq!(stamp(&store, "default", "b"), Some(2));
    let counts = store.snapshot().counts();
    assert_eq!((counts.webhooks, counts.fenced, counts.refused), (2, 1, 2));
    let snapshot = store.snapshot();
    let refusal = snapshot.refusals().find(|(key, _)| key.to_string() == "default/webhooks/a").unwrap().1;
    assert!(refusal.is_serving_last_good() && refusal.reason().contains("did you mean `authorization`"));

    reached(&store, etcd.put("default/webhooks/a", stamped(3)).await).await;
    reached(&store, etcd.delete("default/webhooks/c").await).await;
    assert_eq!(stamp(&store, "default", "a"), Some(3));
    assert_eq!(store.snapshot().counts().refused, 0);

    let large = format!(r#"{{"module": "discard", "metadata": "{}"}}"#, "x".repeat(500_000));
    reached(&store, etcd.put("default/webhooks/large", large).await).await;
    assert!(store.snapshot().webhook(&Target::new("default", "large").unwrap()).is_some());
    live(&store).await;
}

async fn writes_elsewhere_in_etcd_are_waited_for_too(version: Version) {
    let etcd = Etcd::start(version).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    ready(&store).await;
    let elsewhere = etcd.client().await.put("/elsewhere", "x", None).await.unwrap();
    // No event reports this revision; the next proof does.
    reached(&store, elsewhere.header().unwrap().revision().unsigned_abs()).await;
}

async fn no_write_is_lost_at_a_start(version: Version) {
    const STARTS: u64 = 12;
    let etcd = Etcd::start(version).await;
    let mut client = etcd.client().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn(async move {
        let mut written = 0;
        let mut revision = 0;
        while !*stopped.borrow() {
            let key = format!("/cwm/default/webhooks/w{}", written % 20);
            let response = client.put(key, stamped(written), None).await.unwrap();
            revision = response.header().unwrap().revision().unsigned_abs();
            written += 1;
            count.send_replace(written);
            sleep(Duration::from_millis(5)).await;
        }
        (written, revision)
    });
    let mut stores = Vec::new();
    for start in 0..STARTS {
        let (store, following) = follow(EtcdOptions::new([etcd.endpoint()]));
        ready(&store).await;
        stores.push((store, following));
        // However slow the writer is.
        let more = counted.wait_for(|written| *written > 5 * (start + 1));
        timeout(PATIENCE, more).await.expect("nothing is written").unwrap();
    }
    stop.send_replace(true);
    let (written, revision) = writer.await.unwrap();
    for (store, _following) in &stores {
        reached(store, revision).await;
        for key in 0..20 {
            let last = (0..written).rev().find(|n| n % 20 == key);
            until("a write was lost", store, |store| stamp(store, "default", &format!("w{key}")) == last).await;
        }
    }
}
