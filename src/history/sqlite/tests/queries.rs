//! Lists, counts and searches.

use super::*;

fn query(change: impl FnOnce(&mut EventQuery)) -> EventQuery {
    let mut query = EventQuery { limit: 100, ..EventQuery::default() };
    change(&mut query);
    query
}

#[tokio::test]
async fn every_condition_selects_and_the_newest_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let now = SystemTime::now();
    let ago = |seconds: u64| now - Duration::from_secs(seconds);
    let a = record(&store, at(ago(500), "shop", "orders"));
    let b = record(&store, at(ago(400), "shop", "returns"));
    let c = record(&store, at(ago(300), "bank", "orders"));
    let refused = Received { id: Stamp::at(ago(200)).id, at: ago(200), ..refused("shop", "orders") };
    let d = record(&store, refused);
    let failed = Received {
        outcome: Outcome::Failed,
        status: StatusCode::BAD_GATEWAY,
        kind: Some("connect"),
        ..at(ago(100), "shop", "orders")
    };
    let e = record(&store, failed);
    for (expected, query) in [
        (vec![e, d, c, b, a], query(|_| ())),
        (vec![e, d, b, a], query(|query| query.namespace = Some("shop".into()))),
        (vec![e, d, c, a], query(|query| query.webhook = Some("orders".into()))),
        (vec![e, d, a], query(|query| (query.namespace, query.webhook) = (Some("shop".into()), Some("orders".into())))),
        (vec![c], query(|query| query.namespaces = Some([Box::from("bank")].into()))),
        (
            vec![],
            query(|query| {
                (query.namespace, query.namespaces) = (Some("shop".into()), Some([Box::from("bank")].into()))
            }),
        ),
        (vec![], query(|query| query.namespaces = Some([].into()))),
        (vec![d], query(|query| query.outcomes = vec![Outcome::Refused])),
        (vec![e], query(|query| query.outcomes = vec![Outcome::Failed])),
        (vec![e], query(|query| query.outcomes = vec![Outcome::Waiting, Outcome::Failed])),
        (vec![e, d], query(|query| query.outcomes = vec![Outcome::Refused, Outcome::Failed])),
        (vec![], query(|query| (query.outcomes, query.namespace) = (vec![Outcome::Failed], Some("bank".into())))),
        (vec![d], query(|query| query.status = Some((400, 499)))),
        (vec![e], query(|query| query.kind = Some("connect".into()))),
        (vec![d, c], query(|query| (query.since, query.until) = (Some(ago(300)), Some(ago(100))))),
        (vec![b, a], query(|query| query.after = Some(c))),
        (vec![d], query(|query| query.text = Some("token is another".into()))),
        (vec![c], query(|query| query.text = Some("bank/orders".into()))),
        (vec![c], query(|query| query.text = Some(c.to_string()))),
        (vec![], query(|query| (query.text, query.namespace) = (Some(c.to_string()), Some("shop".into())))),
        (vec![e, c, b, a], query(|query| query.text = Some("hello wor".into()))),
        (vec![e, b, a], query(|query| (query.text, query.namespace) = (Some("WORLD".into()), Some("shop".into())))),
        (vec![e], query(|query| (query.text, query.outcomes) = (Some("world".into()), vec![Outcome::Failed]))),
        (vec![e, d, c, b, a], query(|query| query.text = Some("203.0.113.9".into()))),
    ] {
        assert_eq!(all(&store, query.clone()).await, expected, "{query:?}");
        let summary = store.summary(EventQuery { after: None, ..query.clone() }).await.unwrap();
        if query.after.is_none() {
            assert_eq!(summary.total, expected.len() as u64, "{query:?}");
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut expected: Vec<_> = (0..25).map(|nth| record(&store, received(["a", "b"][nth % 2], "hook"))).collect();
    expected.sort_unstable_by_key(|id| std::cmp::Reverse(*number::slots(*id).start()));
    for (text, namespaces) in [(None, None), (Some("world"), None), (None, Some(["a", "b"].map(Box::from).into()))] {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let text = text.map(str::to_owned);
            let page = EventQuery { limit: 10, after, text, namespaces: namespaces.clone(), ..EventQuery::default() };
            let page = store.events(page).await.unwrap();
            found.extend(page.events.iter().map(|row| row.id));
            (after, pages) = (page.next, pages + 1);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((found.len(), pages), (25, 3));
        found.sort_unstable();
        let mut all = expected.clone();
        all.sort_unstable();
        assert_eq!(found, all);
    }
}

#[tokio::test]
async fn a_summary_counts_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let now = SystemTime::now();
    record(&store, at(now - Duration::from_secs(7200), "ns", "hook"));
    for _ in 0..3 {
        record(&store, at(now - Duration::from_secs(1790), "ns", "hook"));
        record(&store, refused("ns", "hook"));
    }
    record(&store, Received { kind: Some("oversized"), ..refused("ns", "hook") });
    let summary = store.summary(query(|query| query.outcomes = vec![Outcome::Refused])).await.unwrap();
    assert_eq!((summary.total, summary.outcomes, summary.is_at_least), (4, [4, 0, 0, 4, 0], false));
    assert_eq!(summary.kinds, [("unauthenticated".into(), 3), ("oversized".into(), 1)]);
    assert_eq!(summary.buckets.len(), 60);
    let filled: Vec<_> = (0..).zip(&summary.buckets).filter(|(_, bucket)| bucket.outcomes != [0; 5]).collect();
    assert_eq!(
        filled.iter().map(|(_, bucket)| bucket.outcomes).collect::<Vec<_>>(),
        [[3, 0, 0, 0, 0], [0, 0, 0, 4, 0]]
    );
    assert!((29..=31).contains(&filled[0].0) && filled[1].0 == 59, "{filled:?}");
    let both = query(|query| (query.outcomes, query.kind) = (vec![Outcome::Refused], Some("oversized".into())));
    let summary = store.summary(both).await.unwrap();
    assert_eq!((summary.total, summary.kinds.len()), (1, 2));
}

#[tokio::test]
async fn whatever_is_searched_for_is_a_text_and_no_syntax() {
    let folder = tempfile::tempdir().unwrap();
    for full_text in [true, false] {
        let store = started(&small(&folder).full_text(full_text));
        let mut sent = received("ns", "hook");
        sent.body = Body::Whole(Bytes::from_static(br#"{"say": "NEAR(a) OR b* ^c -d {e} \"quoted\" 100% x_y"}"#));
        record(&store, sent);
        store.flush().await.unwrap();
        for text in [
            "\"",
            "\"\"",
            "'",
            "' OR 1=1 --",
            "*",
            "a*",
            "^a",
            "-a",
            "NEAR",
            "NEAR(a b, 1)",
            "AND",
            "a AND",
            "text:a",
            "{a}",
            "(",
            ")",
            "a\" OR \"b",
            "\0",
            "a\0b",
            "%",
            "_",
            "\\",
            "\u{fffd}",
            "😀",
            "x'00'",
            ";",
            "DROP TABLE events",
            &"a ".repeat(10_000),
            &"\"".repeat(5000),
            " ",
            "rank",
            "+",
            "a+b",
            ":",
            "\n",
        ] {
            let found = store.events(query(|query| query.text = Some(text.to_owned()))).await;
            assert!(found.is_ok(), "{text:?}: {found:?}");
        }
        for text in ["NEAR(a) OR b", "{e} \"quoted\"", "100% x_y", "x_y"] {
            let found = all(&store, query(|query| query.text = Some(text.to_owned()))).await;
            assert_eq!(found.len(), usize::from(full_text), "{text}");
        }
        let found = all(&store, query(|query| query.text = Some("s/hoo".to_owned()))).await;
        assert_eq!(found.is_empty(), full_text, "without the index, any part of a webhook's name is found");
        drop(store);
        std::fs::remove_dir_all(folder.path().join("history")).unwrap();
    }
}

#[tokio::test]
async fn the_neighbours_of_an_event_are_those_of_its_webhook() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let now = SystemTime::now();
    let ids: Vec<_> = (0..5u64)
        .map(|nth| record(&store, at(now - Duration::from_secs(100 - nth), "ns", ["hook", "other"][nth as usize % 2])))
        .collect();
    let event = store.event(ids[2]).await.unwrap().unwrap();
    assert_eq!((event.newer, event.older), (Some(ids[4]), Some(ids[0])));
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";
    let began = std::time::Instant::now();
    let found =
        store.readers.run(move |connection, _| connection.query_row(endless, [], |row| row.get::<_, i64>(0))).await;
    assert_eq!(found.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!((1.5..4.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    // A query that nobody waits for ends at once.
    for _ in 0..10 {
        let query =
            store.readers.run(move |connection, _| connection.query_row(endless, [], |row| row.get::<_, i64>(0)));
        assert!(tokio::time::timeout(Duration::from_millis(20), query).await.is_err());
    }
    let began = std::time::Instant::now();
    store.events(query(|_| ())).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
