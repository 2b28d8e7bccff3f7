//! Each route.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_webhook::admin::{Admin, Operator};
use tower_webhook::history::{Body, Outcome};

use super::world::{ALL, READ, World};
use crate::support::{Answer, within};

#[tokio::test]
async fn a_session_names_the_token() {
    let world = World::new().await;
    let session = world.ask(ALL, "GET /session").await;
    assert_eq!((session.header("cache-control"), session.header("x-content-type-options")), ("no-store", "nosniff"));
    let session = session.json();
    assert_eq!((&session["name"], &session["rights"]), (&json!("all"), &json!(["read", "write"])));
    assert_eq!(
        (&session["namespaces"], &session["history"], &session["queue"]),
        (&Value::Null, &json!(true), &json!(true))
    );
    let reader = world.ask(READ, "GET /session").await.json();
    assert_eq!(reader["rights"], json!(["read"]));
}

#[tokio::test]
async fn a_stranger_gets_nothing_but_the_page() {
    let world = World::new().await;
    for line in
        ["GET /session", "GET /health", "GET /openapi.json", "GET /nothing", "PUT /events", "POST /dead-letters/delete"]
    {
        let answer = world.ask("wrong", line).await;
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="admin""#, "{line}");
        answer.problem(401);
    }
    let page = world.ask("wrong", "GET /ui/").await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!(world.ask("wrong", "GET /ui/app.js").await.header("content-type"), "text/javascript; charset=utf-8");
    let sent_on = world.ask("wrong", "GET /ui").await;
    assert_eq!((sent_on.status.as_u16(), sent_on.header("location")), (308, "ui/"));
    for line in ["GET /ui/../session", "GET /ui/nothing", "GET /ui//", "GET /ui/ui/"] {
        world.ask("wrong", line).await.problem(404);
    }
    assert_eq!(world.ask("wrong", "POST /ui/").await.header("allow"), "GET, HEAD");
    world.ask("wrong", "GET /uix").await.problem(401);
}

#[tokio::test]
async fn an_unchanged_file_of_the_page_is_not_sent_again() {
    let world = World::new().await;
    let tag = world.ask("", "GET /ui/app.js").await.header("etag").to_owned();
    let request = Request::get("/ui/app.js").header("if-none-match", tag).body(Full::<Bytes>::default()).unwrap();
    let answer = Answer::of(world.admin.clone().oneshot(request).await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0));
}

#[tokio::test]
async fn without_tokens_or_a_guard_nobody_is_let_in() {
    let world = World::new().await;
    let closed = Admin::new(world.store.clone()).queue(world.queue.clone());
    for path in ["/session", "/health", "/dead-letters", "/nothing"] {
        let request = Request::get(path).header("authorization", "Bearer x").body(Full::<Bytes>::default()).unwrap();
        Answer::of(closed.clone().oneshot(request).await.unwrap()).await.problem(403);
    }
    // A guard of the application stands before this one, and names the operator.
    let guarded = closed.without_tokens();
    let mut request = Request::post("/dead-letters/delete?q=x").body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(Operator::new("alice").unwrap().read_only());
    Answer::of(guarded.clone().oneshot(request).await.unwrap()).await.problem(403);
    let mut request = Request::get("/session").body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(Operator::new("alice").unwrap());
    assert_eq!(Answer::of(guarded.oneshot(request).await.unwrap()).await.json()["name"], "alice");
}

#[tokio::test]
async fn a_token_that_only_reads_changes_nothing() {
    let mut world = World::new().await;
    let letter = world.dead_letter("a", "{}").await;
    let event = world.record("a", |_| {});
    for line in [
        format!("POST /dead-letters/{letter}/replay"),
        format!("DELETE /dead-letters/{letter}"),
        "POST /dead-letters/replay?namespace=a".to_owned(),
        "POST /dead-letters/delete?namespace=a".to_owned(),
        format!("POST /events/{event}/replay"),
        format!("DELETE /events/{event}"),
        format!("POST /waiting/{letter}/retry"),
        format!("DELETE /waiting/{letter}"),
        "POST /webhooks/a/direct/test".to_owned(),
    ] {
        world.ask(READ, &line).await.problem(403);
    }
    assert_eq!(world.queue.status().dead_letters, 1);
    assert_eq!(world.ask(READ, &format!("GET /dead-letters/{letter}")).await.status, 200);
    assert_eq!(world.ask(READ, &format!("GET /events/{event}")).await.status, 200);
}

#[tokio::test]
async fn a_wrong_method_or_parameter_is_told() {
    let world = World::new().await;
    assert_eq!(world.ask(ALL, "DELETE /dead-letters").await.header("allow"), "GET, HEAD");
    assert_eq!(world.ask(ALL, "GET /dead-letters/replay").await.header("allow"), "POST");
    for (line, name) in [
        ("GET /events?limits=3", "limits"),
        ("GET /events?limit=0", "limit"),
        ("GET /events?limit=1001", "limit"),
        ("GET /events?outcome=none", "outcome"),
        ("GET /events?status=6xx", "status"),
        ("GET /events?since=now", "since"),
        ("GET /events?after=1", "after"),
        ("GET /events?q=", "q"),
        ("GET /events?namespace=a/b", "namespace"),
        ("GET /session?x=1", "x"),
        ("GET /webhooks?after=a", "after"),
        ("GET /webhooks?state=odd", "state"),
        ("GET /dead-letters?kind=odd", "kind"),
        ("GET /dead-letters?older_than=-1", "older_than"),
        ("POST /dead-letters/delete?namespace=a&dry_run=yes", "dry_run"),
        ("GET /ready?min_revision=x", "min_revision"),
    ] {
        let detail = world.ask(ALL, line).await.problem(400);
        assert!(detail.contains(&format!("`{name}`")), "{line}: {detail}");
    }
    for line in ["GET /events/x", "DELETE /dead-letters/x", "POST /waiting/x/retry"] {
        assert!(world.ask(ALL, line).await.problem(400).contains("expected a UUID"), "{line}");
    }
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let world = World::new().await;
    let get = world.ask(ALL, "GET /session").await;
    let head = world.ask(ALL, "HEAD /session").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

#[tokio::test]
async fn webhooks_in_trouble_come_first() {
    let world = World::new().await;
    world.record("a", |received| received.outcome = Outcome::Failed);
    world.record("b", |_| {});
    let page = world.ask(ALL, "GET /webhooks").await.json();
    let states: Vec<_> =
        page["webhooks"].as_array().unwrap().iter().map(|one| (one["key"].clone(), one["state"].clone())).collect();
    let expected = [
        ("b/broken", "fenced"),
        ("a/direct", "failing"),
        ("a/queued", "open"),
        ("b/direct", "healthy"),
        ("b/queued", "open"),
    ];
    assert_eq!(states, expected.map(|(key, state)| (json!(key), json!(state))));
    let one = world.ask(ALL, "GET /webhooks/a/direct").await.json();
    assert_eq!(one["guards"], json!(["authorization"]));
    assert_eq!((&one["ack"], &one["module"], &one["dedup"]), (&json!("delivered"), &json!("discard"), &json!(false)));
    assert_eq!(one["note"], "1 of 1 events failed in the last 10 minutes");
    assert_eq!(one["hour"]["minutes"].as_array().unwrap().len(), 60);
    let broken = world.ask(ALL, "GET /webhooks/b/broken").await.json();
    assert!(broken["refused"]["reason"].as_str().unwrap().contains("b-marker"), "{broken}");
    assert_eq!(world.ask(ALL, "GET /webhooks?after=a/queued").await.json()["webhooks"].as_array().unwrap().len(), 2);
    assert_eq!(
        world.ask(ALL, "GET /webhooks?state=open&q=QUEUE").await.json()["webhooks"].as_array().unwrap().len(),
        2
    );
    for path in ["/webhooks/a/nothing", "/webhooks/a/-x", "/webhooks/c/direct"] {
        assert_eq!(world.ask(ALL, &format!("GET {path}")).await.problem(404), "there is no such webhook");
    }
}

#[tokio::test]
async fn a_test_event_passes_the_guards_and_is_recorded() {
    let world = World::new().await;
    let sent = world
        .ask_with(ALL, "POST /webhooks/a/direct/test", r#"{"body": "{\"n\": 1}", "headers": {"X-Kind": "test"}}"#)
        .await;
    let sent = sent.json();
    assert_eq!((&sent["outcome"], &sent["status"], &sent["kind"]), (&json!("delivered"), &json!(200), &Value::Null));
    let id = sent["id"].as_str().unwrap();
    let event = world.ask(ALL, &format!("GET /events/{id}")).await.json();
    assert_eq!((&event["body"]["text"], &event["actions"][0]["what"]), (&json!(r#"{"n": 1}"#), &json!("test")));
    assert_eq!(event["actions"][0]["by"], "all");
    assert_eq!(event["head"], json!([["content-type", "application/json"], ["x-kind", "test"]]));
    let queued = world.ask(ALL, "POST /webhooks/a/queued/test").await.json();
    assert_eq!((&queued["outcome"], &queued["status"]), (&json!("waiting"), &json!(202)));
    assert_eq!(world.queue.status().waiting, 1);
    world.ask(ALL, "POST /webhooks/b/broken/test").await.problem(409);
    for body in ["[]", "{", r#"{"bodys": ""}"#, r#"{"headers": {"a b": "c"}}"#, r#"{"headers": {"a": "b\nc"}}"#] {
        world.ask_with(ALL, "POST /webhooks/a/direct/test", body).await.problem(400);
    }
    let large = format!(r#"{{"body": "{}"}}"#, "x".repeat(1 << 20));
    world.ask_with(ALL, "POST /webhooks/a/direct/test", &large).await.problem(413);
}

#[tokio::test]
async fn events_are_listed_counted_shown_and_erased() {
    let world = World::new().await;
    let ids: Vec<_> = (0..5).map(|_| world.record("a", |_| {}).to_string()).collect();
    let first = world.ask(ALL, "GET /events?limit=3&namespace=a").await.json();
    let found: Vec<_> = first["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(found, [&*ids[4], &*ids[3], &*ids[2]]);
    let next = first["next"].as_str().unwrap();
    let second = world.ask(ALL, &format!("GET /events?limit=3&after={next}")).await.json();
    assert_eq!((second["events"].as_array().unwrap().len(), &second["next"]), (2, &Value::Null));
    let summary = world.ask(ALL, "GET /events/summary").await.json();
    assert_eq!((&summary["total"], &summary["outcomes"]["delivered"]), (&json!(5), &json!(5)));
    assert_eq!(summary["buckets"].as_array().unwrap().len(), 60);
    let event = world.ask(ALL, &format!("GET /events/{}", ids[0])).await.json();
    assert_eq!(
        (&event["can_replay"], &event["in_queue"], &event["is_exact"]),
        (&json!(true), &Value::Null, &json!(true))
    );
    assert_eq!(
        event["body"],
        json!({"type": "application/json", "size": 18, "kept": 18, "is_cut": false, "text": r#"{"of": "a-marker"}"#})
    );
    assert_eq!((&event["key"], &event["outcome"]), (&json!("a/direct"), &json!("delivered")));
    let kept = world.ask(ALL, &format!("GET /events/{}/body", ids[0])).await;
    assert_eq!((kept.text(), kept.header("content-type")), (r#"{"of": "a-marker"}"#, "application/octet-stream"));
    assert!(kept.header("content-disposition").starts_with("attachment"));
    assert_eq!(world.ask(ALL, &format!("DELETE /events/{}", ids[0])).await.status, 204);
    world.ask(ALL, &format!("GET /events/{}", ids[0])).await.problem(404);
}

#[tokio::test]
async fn only_what_is_exact_and_was_let_in_is_replayed() {
    let mut world = World::new().await;
    let exact = world.record("a", |_| {});
    let answer = world.ask(ALL, &format!("POST /events/{exact}/replay")).await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_ne!(id, exact.to_string());
    assert_eq!(world.ask(ALL, &format!("GET /events/{id}")).await.json()["body"]["text"], r#"{"of": "a-marker"}"#);
    assert_eq!(world.ask(ALL, &format!("GET /events/{exact}")).await.json()["actions"][0]["what"], "replay");

    let redacted = world.record("a", |received| received.body = Body::Whole(r#"{"token": "s3cret"}"#.into()));
    let cut = world.record("a", |received| received.body = Body::Beginning(Bytes::from_static(b"{"), 5000));
    let left = world.record("a", |received| received.body = Body::Left(7));
    let refused = world.record("a", |received| received.outcome = Outcome::Refused);
    let gone = world.record("c", |_| {});
    for (event, reason) in [
        (redacted, "secrets removed"),
        (cut, "is cut"),
        (left, "nothing is kept"),
        (refused, "no guard"),
        (gone, "not served"),
    ] {
        let shown = world.ask(ALL, &format!("GET /events/{event}")).await.json();
        assert_eq!(shown["can_replay"], false, "{shown}");
        let detail = world.ask(ALL, &format!("POST /events/{event}/replay")).await.problem(409);
        assert!(detail.contains(reason), "{detail}");
        assert_eq!(shown["replay_note"], detail);
    }

    // The queue has the original of this one.
    let letter = world.dead_letter("a", r#"{"n": 1}"#).await;
    world.record("a", |received| {
        received.id = letter;
        received.is_accepted = true;
        received.body = Body::Left(8);
    });
    let shown = world.ask(ALL, &format!("GET /events/{letter}")).await.json();
    assert_eq!((&shown["in_queue"], &shown["can_replay"]), (&json!("dead_letter"), &json!(true)));
    assert_eq!(world.ask(ALL, &format!("POST /events/{letter}/replay")).await.json()["id"], letter.to_string());
    assert_eq!(world.queue.status().dead_letters, 0);
    let shown = world.ask(ALL, &format!("GET /events/{letter}")).await.json();
    assert_eq!((&shown["in_queue"], &shown["can_replay"]), (&json!("waiting"), &json!(false)));
    assert!(world.ask(ALL, &format!("POST /events/{letter}/replay")).await.problem(409).contains("/retry"));
}

#[tokio::test]
async fn waiting_events_are_listed_shown_hastened_and_dropped() {
    let mut world = World::new().await;
    let (first, _) = world.accept("a", r#"{"n": 1}"#).await;
    let (second, _) = world.accept("b", "{}").await;
    let page = world.ask(ALL, "GET /waiting?limit=1").await.json();
    assert_eq!(
        (&page["total"], &page["waiting"][0]["id"], &page["next"]),
        (&json!(2), &json!(first.to_string()), &json!(first.to_string()))
    );
    let page = world.ask(ALL, &format!("GET /waiting?after={first}")).await.json();
    assert_eq!((&page["waiting"][0]["id"], &page["next"]), (&json!(second.to_string()), &Value::Null));
    let shown = world.ask(ALL, &format!("GET /waiting/{first}")).await.json();
    assert_eq!(shown["body"]["text"], r#"{"n": 1}"#);
    assert_eq!(shown["head"], json!([["content-type", "application/json"], ["authorization", "***REDACTED***"]]));
    assert_eq!(world.ask(ALL, &format!("POST /waiting/{first}/retry")).await.status, 202);
    assert_eq!(world.ask(ALL, &format!("DELETE /waiting/{first}")).await.status, 204);
    for line in
        [format!("GET /waiting/{first}"), format!("DELETE /waiting/{first}"), format!("POST /waiting/{first}/retry")]
    {
        assert_eq!(world.ask(ALL, &line).await.problem(404), "there is no such waiting event");
    }
    assert_eq!(world.queue.status().waiting, 1);
}

#[tokio::test]
async fn many_dead_letters_need_a_filter_and_are_counted_first() {
    let mut world = World::new().await;
    for _ in 0..3 {
        world.dead_letter("a", "{}").await;
    }
    let letter = world.dead_letter("b", r#"{"n": "é"}"#).await;
    let page = world.ask(ALL, "GET /dead-letters?namespace=a&limit=2").await.json();
    assert_eq!((&page["total"], page["dead_letters"].as_array().unwrap().len()), (&json!(3), 2));
    assert_eq!(page["next"], page["dead_letters"][1]["id"]);
    let groups = world.ask(ALL, "GET /dead-letters/groups").await.json();
    assert_eq!((&groups["groups"][0]["key"], &groups["groups"][0]["count"]), (&json!("a/queued"), &json!(3)));
    let shown = world.ask(ALL, &format!("GET /dead-letters/{letter}")).await.json();
    assert_eq!(
        (&shown["body"], &shown["kind"], &shown["attempts"]),
        (&json!(r#"{"n": "é"}"#), &json!("permanent"), &json!(3))
    );
    assert_eq!(shown["headers"][1], json!(["authorization", "***REDACTED***"]));

    for line in ["POST /dead-letters/delete", "POST /dead-letters/replay", "POST /dead-letters/delete?dry_run=true"] {
        assert!(world.ask(ALL, line).await.problem(400).contains("no filter"), "{line}");
    }
    for (query, matched) in [
        ("namespace=a", 3),
        ("q=SAID%20NO", 4),
        ("kind=permanent", 4),
        ("kind=io", 0),
        ("older_than=3600", 0),
        ("webhook=queued&q=target%20of%20b", 1),
    ] {
        let counted = world.ask(ALL, &format!("POST /dead-letters/delete?dry_run=true&{query}")).await.json();
        assert_eq!(counted, json!({"matched": matched, "done": 0}), "{query}");
    }
    assert_eq!(world.queue.status().dead_letters, 4);
    assert_eq!(world.ask(ALL, "POST /dead-letters/delete?namespace=a").await.json(), json!({"matched": 3, "done": 3}));
    assert_eq!(world.ask(ALL, "POST /dead-letters/replay?q=no").await.json(), json!({"matched": 1, "done": 1}));
    assert_eq!((world.queue.status().dead_letters, world.queue.status().waiting), (0, 1));
}

#[tokio::test]
async fn the_state_is_shown() {
    let world = World::new().await;
    let status = world.ask(ALL, "GET /config-status").await.json();
    assert_eq!(
        (&status["webhooks"], &status["fenced_webhooks"], &status["namespaces"]),
        (&json!(4), &json!(1), &json!(2))
    );
    let system = world.ask(ALL, "GET /system").await.json();
    assert_eq!((&system["queue"]["waiting"], &system["history"]["events"]), (&json!(0), &json!(0)));
    assert_eq!(system["refused"][0]["key"], "b/webhooks/broken");
    assert_eq!(world.ask(ALL, "GET /health").await.json()["components"]["spool"], "healthy");
    assert_eq!(world.ask(ALL, "GET /ready").await.json()["status"], "ready");
    let document = world.ask(ALL, "GET /openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let admin = Admin::new(world.store.clone()).without_tokens();
    for path in ["/events", "/events/live", "/waiting", "/dead-letters", "/dead-letters/groups"] {
        let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
        let detail = Answer::of(admin.clone().oneshot(request).await.unwrap()).await.problem(404);
        assert!(detail.starts_with("there is no "), "{path}: {detail}");
    }
}

#[tokio::test]
async fn live_events_are_streamed_until_the_server_stops() {
    let world = World::new().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let admin = world.admin.clone().stop(async { drop(stopped.await) });
    let request = Request::get("/events/live").header("authorization", format!("Bearer {ALL}"));
    let answer = admin.oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let mut next = async || {
        let frame = within("a piece", body.frame()).await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    };
    assert_eq!(next().await.unwrap(), ": live\n\n");
    let id = world.record("a", |_| {});
    let piece = next().await.unwrap();
    let data = piece.strip_prefix("event: event\ndata: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap()["id"], id.to_string());
    for _ in 0..3000 {
        world.record("b", |_| {});
    }
    assert!(next().await.unwrap().contains("event: missed\ndata: {\"count\":"), "it is behind");
    stop.send(()).unwrap();
    while next().await.is_some() {}
}
