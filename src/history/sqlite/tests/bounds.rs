//! How much is kept, how long, and whose events.

use std::sync::Mutex;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn body(bytes: usize) -> Body {
    // Each is another one, so that nothing is gained by their being alike.
    let noise: String = std::iter::repeat_with(|| format!("{:x} ", fastrand::u32(..))).take(bytes / 9).collect();
    Body::Whole(format!(r#"{{"noise": "{noise}"}}"#).into())
}

async fn count(store: &Store, namespace: &str) -> u64 {
    store.summary(EventQuery { namespace: Some(namespace.into()), ..EventQuery::default() }).await.unwrap().total
}

#[tokio::test]
async fn events_and_bodies_expire_by_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let clock = Arc::new(Mutex::new(now));
    let history = small(&folder).days(10).body_days(3);
    let store = history.store(buffer::Limits::default(), Expiry::At(Arc::clone(&clock)), Arc::new(|| Ok(()))).unwrap();
    let old = record(&store, at(now - 11 * DAY, "ns", "hook"));
    let middle = record(
        &store,
        Received { body: Body::Whole(r#"{"a": "middling"}"#.into()), ..at(now - 4 * DAY, "ns", "hook") },
    );
    let new = record(&store, at(now, "ns", "hook"));
    eventually("the old event and the body of the middle one to be gone", async || {
        // An entry wakes the writer, which looks for old events each second.
        record(&store, at(now - 2 * DAY, "other", "hook"));
        let middle = store.event(middle).await.unwrap().unwrap();
        store.event(old).await.unwrap().is_none() && middle.body.is_none() && !middle.is_exact
    })
    .await;
    let text = |text: &str| EventQuery { text: Some(text.to_owned()), ..EventQuery::default() };
    assert_eq!(all(&store, text("middling")).await, [], "the body is not found any more");
    let namespace = Some("ns".to_owned());
    assert_eq!(all(&store, EventQuery { namespace, ..text("ns/hook") }).await, [new, middle], "the event is");
    eventually("its bytes to be gone", async || !contains(&raw(&folder.path().join("history")), "middling")).await;
    *clock.lock().unwrap() = now + 10 * DAY + Duration::from_secs(1);
    eventually("all to be gone", async || {
        record(&store, at(now + 10 * DAY, "ns", "hook"));
        store.event(new).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn the_files_stay_within_their_room_under_constant_writing() {
    let folder = tempfile::tempdir().unwrap();
    let max = 6 << 20;
    let store = started(&small(&folder).max_bytes(max));
    let mut largest = 0;
    for round in 0..60 {
        for _ in 0..200 {
            record(&store, Received { body: body(1024), ..received("ns", "hook") });
        }
        record(&store, Received { body: body(60_000), ..received("ns", "large") });
        store.flush().await.unwrap();
        let files = std::fs::read_dir(folder.path().join("history")).unwrap();
        let bytes: u64 = files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum();
        assert!(bytes <= max, "{bytes} of {max} in round {round}");
        largest = largest.max(bytes);
    }
    assert!(largest > max / 2, "{largest} of {max}: the room is used");
    let page = store.events(EventQuery { limit: 1000, ..EventQuery::default() }).await.unwrap();
    assert!(page.events.len() > 600, "{} are left", page.events.len());
    assert_eq!(store.status().dropped, 0);
    let text = EventQuery { text: Some("noise".into()), limit: 10, ..EventQuery::default() };
    assert_eq!(store.events(text).await.unwrap().events.len(), 10);
}

#[tokio::test]
async fn neither_a_tenant_nor_strangers_push_out_the_events_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = started(&small(&folder).max_bytes(6 << 20));
    let quiet: Vec<_> = (0..50).map(|_| record(&store, received("quiet", "hook"))).collect();
    for _ in 0..30 {
        for _ in 0..300 {
            record(&store, Received { body: body(1024), ..received("loud", "hook") });
            record(&store, refused("quiet", "hook"));
        }
        store.flush().await.unwrap();
    }
    let loud = count(&store, "loud").await;
    assert!((500..9000).contains(&loud), "{loud} of 9000 are left");
    for id in &quiet {
        assert!(store.event(*id).await.unwrap().is_some_and(|event| event.body.is_some()));
    }
    let text = EventQuery { text: Some("world".into()), namespace: Some("quiet".into()), ..EventQuery::default() };
    assert_eq!(all(&store, text).await.len(), 50, "their texts are found though old parts of the index are gone");
}

#[tokio::test]
async fn refused_requests_get_an_eighth_and_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = started(&small(&folder).max_bytes(4 << 20));
    let mut last = None;
    for nth in 0..120 {
        for namespace in 0..20 {
            for _ in 0..10 {
                let reason = Some("a reason of some length, as they are ".repeat(8).into());
                last = Some(record(&store, Received { reason, ..refused(&format!("ns{nth}-{namespace}"), "hook") }));
            }
        }
        store.flush().await.unwrap();
    }
    let summary = store.summary(EventQuery::default()).await.unwrap();
    assert!((100..2000).contains(&summary.outcomes[3]), "{:?} of 24,000", summary.outcomes);
    assert!(store.event(last.unwrap()).await.unwrap().is_some() || summary.total > 0);
}

#[tokio::test]
async fn a_smaller_room_is_kept_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = started(&small(&folder).max_bytes(24 << 20));
    for _ in 0..4 {
        for _ in 0..1000 {
            record(&store, Received { body: body(3000), ..received("ns", "hook") });
        }
        store.flush().await.unwrap();
    }
    let before = store.status();
    drop(store);
    let store = started(&small(&folder).max_bytes(6 << 20).full_text(false));
    eventually("the file to shrink", async || {
        record(&store, received("ns", "hook"));
        store.flush().await.unwrap();
        let files = std::fs::read_dir(folder.path().join("history")).unwrap();
        files.map(|file| file.unwrap().metadata().map_or(0, |file| file.len())).sum::<u64>() <= 6 << 20
    })
    .await;
    assert!(before.max_bytes > store.status().max_bytes && count(&store, "ns").await > 100);
}
