//! An erased event leaves nothing in the files.

use super::*;

/// Letters that no other event has. The index shares the beginnings of words, so the ends of these are looked for.
const TRACES: [&str; 3] = ["quokkaquark", "zyzzyvaplum", "ornithofjord"];

fn telling(nth: usize) -> Received {
    let body = format!(r#"{{"name": "ab{}", "list": ["cd{}"], "n": {nth}}}"#, TRACES[0], TRACES[1]);
    let reason = Some(format!("the target said ef{}", TRACES[2]).into());
    let (outcome, kind) = (Outcome::Failed, Some("connect"));
    Received { body: Body::Whole(body.into()), outcome, kind, reason, ..received("ns", "hook") }
}

#[tokio::test]
async fn an_erased_event_leaves_no_bytes_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("history");
    let store = open(&folder);
    let noise = |nth: usize| Received {
        body: Body::Whole(format!(r#"{{"noise": "{:x} {}"}}"#, fastrand::u64(..), "y".repeat(nth % 3000)).into()),
        ..received(["ns", "other"][nth % 2], "hook")
    };
    let mut erased = Vec::new();
    for nth in 0..900 {
        if nth % 100 == 50 {
            erased.push(record(&store, telling(nth)));
        }
        record(&store, noise(nth));
        if nth % 30 == 0 {
            store.flush().await.unwrap();
        }
    }
    // Its row is written again, and its text is indexed again.
    let stamp = Stamp { id: erased[0], at: SystemTime::now() + Duration::from_secs(5) };
    store.record(Entry::Attempt(Box::new(sample::attempt("ns", "hook", stamp, 1, Outcome::Waiting))));
    store.flush().await.unwrap();
    let bytes = raw(&directory);
    assert!(TRACES.iter().all(|trace| contains(&bytes, trace)));
    let text = |text: &str| EventQuery { text: Some(text.to_owned()), ..EventQuery::default() };
    assert_eq!(all(&store, text("abquokkaquark")).await.len(), erased.len());
    for id in &erased {
        assert!(store.erase(*id).await.unwrap());
        assert!(!store.erase(*id).await.unwrap(), "it is gone already");
        assert!(store.event(*id).await.unwrap().is_none());
    }
    let bytes = raw(&directory);
    for trace in TRACES {
        assert!(!contains(&bytes, trace), "{trace}");
    }
    assert_eq!(all(&store, text("abquokkaquark")).await, []);
    assert_eq!(store.summary(EventQuery::default()).await.unwrap().total, 900);
}

#[tokio::test]
async fn an_event_is_erased_after_the_entries_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let id = record(&store, received("ns", "hook"));
    assert!(store.erase(id).await.unwrap());
    assert!(store.event(id).await.unwrap().is_none());
}
