//! Duplicate events.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_webhook::Capabilities;
use tower_webhook::dedup::{Claims, ClaimsOptions};
use tower_webhook::{Receiver, Registry};

use crate::support::modules::{Broken, Gate, Nothing};
use crate::support::{Answer, CREDENTIAL, ask, eventually, post, receiver_of, store_of, within};

/// `shop/a`, `shop/b` and `staging/a` recognise an event by the header `x-id`, `shop/body` by `/event/id` in the body,
/// and `shop/digest` by the body itself; `shop/short` forgets after 10 s, and `shop/each` has no rule.
async fn receiver(registry: Registry, claims: Claims) -> Receiver {
    let webhook = |dedup: &str| format!(r#"{{"module": "gate", "authorization": "{CREDENTIAL}"{dedup}}}"#);
    let header = webhook(r#", "dedup": {"header": "X-Id"}"#);
    let webhooks = [
        ("shop", "a", header.as_str()),
        ("shop", "b", &header),
        ("staging", "a", &header),
        ("shop", "body", &webhook(r#", "dedup": {"pointer": "/event/id"}"#)),
        ("shop", "digest", &webhook(r#", "dedup": {"digest": true}"#)),
        ("shop", "short", &webhook(r#", "dedup": {"header": "X-Id", "ttl": 10}"#)),
        ("shop", "each", &webhook("")),
    ];
    receiver_of(registry, &webhooks, |builder| builder.claims(claims)).await
}

/// A receiver whose module takes every event at once.
async fn open() -> (Receiver, Gate) {
    let gate = Gate::default();
    gate.take_all();
    (receiver(gate.registry(), Claims::in_memory()).await, gate)
}

/// A receiver whose module waits.
async fn shut() -> (Receiver, Gate) {
    let gate = Gate::default();
    (receiver(gate.registry(), Claims::in_memory()).await, gate)
}

fn event(path: &str, id: &str) -> Request<Full<Bytes>> {
    let mut request = post(path, "{}");
    request.headers_mut().append("x-id", id.parse().unwrap());
    request
}

fn is_duplicate(answer: &Answer) -> bool {
    match answer.headers.get("x-duplicate") {
        Some(value) => value == "true",
        None => false,
    }
}

#[tokio::test]
async fn a_duplicate_gets_the_first_ones_answer_and_is_not_delivered() {
    let (receiver, gate) = open().await;
    let first = ask(&receiver, event("/shop/a", "1")).await;
    first.assert_accepted();
    assert!(!is_duplicate(&first));
    for _ in 0..3 {
        let again = ask(&receiver, event("/shop/a", "1")).await;
        again.assert_accepted();
        assert!(is_duplicate(&again));
        assert_eq!(again.header("x-event-id"), first.header("x-event-id"));
        assert_eq!(again.header("content-type"), "application/json");
    }
    assert_eq!(gate.calls(), 1);
    let other = ask(&receiver, event("/shop/a", "2")).await;
    other.assert_accepted();
    assert!(!is_duplicate(&other));
    assert_eq!(gate.calls(), 2);
}

#[tokio::test]
async fn a_duplicate_while_the_first_one_runs_is_409() {
    let (receiver, gate) = shut().await;
    let first = tokio::spawn({
        let receiver = receiver.clone();
        async move { ask(&receiver, event("/shop/a", "1")).await }
    });
    gate.was_called(1).await;
    let second = ask(&receiver, event("/shop/a", "1")).await;
    assert_eq!(second.problem(409), "This event is being processed");
    assert_eq!(second.header("retry-after"), "5");
    assert!(!is_duplicate(&second));
    gate.take_all();
    let first = within("the first one's answer", first).await.unwrap();
    first.assert_accepted();
    let third = ask(&receiver, event("/shop/a", "1")).await;
    assert_eq!(third.header("x-event-id"), first.header("x-event-id"));
    assert_eq!(gate.calls(), 1);
}

#[tokio::test]
async fn an_event_that_was_not_taken_is_processed_again() {
    let (receiver, gate) = open().await;
    gate.refuse_all();
    for _ in 0..2 {
        ask(&receiver, event("/shop/a", "1")).await.problem(502);
    }
    gate.take_all();
    let third = ask(&receiver, event("/shop/a", "1")).await;
    third.assert_accepted();
    assert!(!is_duplicate(&third));
    assert_eq!(gate.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_a_broken_module_did_not_take_is_processed_again() {
    for (how, status) in [("fail", 502), ("unavailable", 503), ("hang", 504), ("panic", 502), ("panic_at_once", 502)] {
        let json = format!(r#"{{"module":"broken","module-config":{{"how":"{how}"}},"dedup":{{"header":"x-id"}}}}"#);
        let registry = Registry::builtin().module::<Broken>();
        let claims = Claims::in_memory();
        let webhooks = [("shop", "a", json.as_str())];
        let deadline = Duration::from_secs(3);
        let receiver =
            receiver_of(registry, &webhooks, |builder| builder.claims(claims.clone()).delivery_deadline(deadline))
                .await;
        for _ in 0..2 {
            ask(&receiver, event("/shop/a", "1")).await.problem(status);
        }
        assert_eq!(claims.entries(), 0, "{how}");
    }
}

#[tokio::test]
async fn the_same_id_elsewhere_is_another_event() {
    let (receiver, gate) = open().await;
    for path in ["/shop/a", "/shop/b", "/staging/a"] {
        let answer = ask(&receiver, event(path, "1")).await;
        answer.assert_accepted();
        assert!(!is_duplicate(&answer), "{path}");
    }
    assert_eq!(gate.calls(), 3);
}

#[tokio::test]
async fn a_stranger_cannot_use_up_an_id_nor_learn_of_one() {
    let (receiver, gate) = open().await;
    let stranger = || {
        let request = Request::post("/shop/a").header("x-id", "1").header("authorization", "Bearer wrong");
        request.body(Full::<Bytes>::from("{}")).unwrap()
    };
    ask(&receiver, stranger()).await.problem(401);
    let first = ask(&receiver, event("/shop/a", "1")).await;
    first.assert_accepted();
    assert!(!is_duplicate(&first));
    let answer = ask(&receiver, stranger()).await;
    answer.problem(401);
    assert!(!is_duplicate(&answer));
    assert_eq!(gate.calls(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_json_does_not_use_up_an_id() {
    let (receiver, gate) = open().await;
    let mut malformed = post("/shop/a", "{");
    malformed.headers_mut().append("x-id", "1".parse().unwrap());
    ask(&receiver, malformed).await.problem(400);
    assert!(!is_duplicate(&ask(&receiver, event("/shop/a", "1")).await));
    assert_eq!(gate.calls(), 1);
}

#[tokio::test]
async fn without_an_id_nothing_is_processed() {
    let (receiver, gate) = open().await;
    assert_eq!(
        ask(&receiver, post("/shop/a", "{}")).await.problem(400),
        "The event has no id: the header x-id is missing"
    );
    ask(&receiver, event("/shop/a", "")).await.problem(400);
    ask(&receiver, event("/shop/a", &"a".repeat(257))).await.problem(400);
    let mut twice = event("/shop/a", "1");
    twice.headers_mut().append("x-id", "2".parse().unwrap());
    ask(&receiver, twice).await.problem(400);
    for body in ["{}", r#"{"event": {}}"#, r#"{"event": {"id": null}}"#, r#"{"event": {"id": ""}}"#, "[]"] {
        let detail = ask(&receiver, post("/shop/body", body)).await.problem(400);
        assert!(detail.starts_with("The event has no id: /event/id"), "{detail}");
    }
    assert_eq!(gate.calls(), 0);
}

#[tokio::test]
async fn the_id_may_be_in_the_body_or_be_the_whole_body() {
    let (receiver, gate) = open().await;
    for (path, body, duplicate) in [
        ("/shop/body", r#"{"event": {"id": "evt_1"}, "try": 1}"#, false),
        ("/shop/body", r#"{"event": {"id": "evt_1"}, "try": 2}"#, true),
        ("/shop/body", r#"{"event": {"id": 1}}"#, false),
        ("/shop/body", r#"{"event": {"id": "1"}}"#, false),
        ("/shop/digest", "{}", false),
        ("/shop/digest", "{}", true),
        ("/shop/digest", "{} ", false),
    ] {
        let answer = ask(&receiver, post(path, body)).await;
        answer.assert_accepted();
        assert_eq!(is_duplicate(&answer), duplicate, "{path} {body}");
    }
    assert_eq!(gate.calls(), 5);
}

#[tokio::test]
async fn a_webhook_without_the_key_takes_everything() {
    let (receiver, gate) = open().await;
    for _ in 0..3 {
        let answer = ask(&receiver, event("/shop/each", "1")).await;
        answer.assert_accepted();
        assert!(!answer.headers.contains_key("x-duplicate"));
    }
    assert_eq!(gate.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_known_for_its_time() {
    let (receiver, gate) = open().await;
    for (wait, duplicate) in [(0, false), (10, true), (2, false), (9, true)] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        let answer = ask(&receiver, event("/shop/short", "1")).await;
        answer.assert_accepted();
        assert_eq!(is_duplicate(&answer), duplicate, "{wait} s after the one before");
    }
    ask(&receiver, event("/shop/a", "1")).await.assert_accepted();
    tokio::time::advance(Duration::from_secs(72 * 3600)).await;
    assert!(is_duplicate(&ask(&receiver, event("/shop/a", "1")).await), "three days, if nothing is said");
    assert_eq!(gate.calls(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_a_thousand_concurrent_duplicates_is_delivered() {
    let (receiver, gate) = shut().await;
    let requests = (0..1000).map(|_| {
        let receiver = receiver.clone();
        tokio::spawn(async move { ask(&receiver, event("/shop/a", "1")).await })
    });
    let requests: Vec<_> = requests.collect();
    gate.was_called(1).await;
    gate.take_all();
    let mut first = 0;
    for request in requests {
        let answer = within("an answer", request).await.unwrap();
        match answer.status.as_u16() {
            200 => first += usize::from(!is_duplicate(&answer)),
            status => assert_eq!(status, 409),
        }
    }
    assert_eq!((first, gate.calls()), (1, 1));
    assert!(is_duplicate(&ask(&receiver, event("/shop/a", "1")).await));
}

#[tokio::test]
async fn an_answer_waits_until_the_journal_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    gate.take_all();
    let receiver = receiver(gate.registry(), Claims::open(folder.path()).unwrap()).await;
    let bytes = || {
        let files = std::fs::read_dir(folder.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    for number in 1..=50 {
        ask(&receiver, event("/shop/a", &number.to_string())).await.assert_accepted();
        assert_eq!(bytes(), number * 48);
    }
}

#[tokio::test]
async fn a_restart_remembers_exactly_the_events_that_were_taken() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    gate.take_all();
    let first = {
        let receiver = receiver(gate.registry(), Claims::open(folder.path()).unwrap()).await;
        let first = ask(&receiver, event("/shop/a", "1")).await;
        first.assert_accepted();
        gate.refuse_all();
        ask(&receiver, event("/shop/a", "2")).await.problem(502);
        gate.shut();
        // As after a crash, no remainder continues.
        receiver.remainders().close();
        let hung = tokio::spawn(async move { ask(&receiver, event("/shop/a", "3")).await });
        gate.was_called(3).await;
        hung.abort();
        let _ = hung.await;
        first
    };
    gate.take_all();
    let claims = Claims::open(folder.path()).unwrap();
    assert_eq!(claims.entries(), 1);
    let receiver = receiver(gate.registry(), claims).await;
    let again = ask(&receiver, event("/shop/a", "1")).await;
    again.assert_accepted();
    assert!(is_duplicate(&again));
    assert_eq!(again.header("x-event-id"), first.header("x-event-id"));
    for id in ["2", "3"] {
        assert!(!is_duplicate(&ask(&receiver, event("/shop/a", id)).await));
    }
    assert_eq!(gate.calls(), 5);
}

/// The number of ids that the store remembers in the next tests.
const MAX_ENTRIES: usize = 4096;

/// Ids of webhooks other than the one that floods: of `shop/b` in the same namespace, and of `staging/a`.
fn ids_of_others() -> impl Iterator<Item = (&'static str, String)> {
    (0..100).flat_map(|id| ["/shop/b", "/staging/a"].map(|path| (path, id.to_string())))
}

/// Sends `shop/a` five times as many ids as can be remembered, starting with this one.
async fn flood(receiver: &Receiver, first: usize) {
    let ids: Vec<_> = (first..first + 5 * MAX_ENTRIES).collect();
    for some in ids.chunks(256) {
        let requests = some.iter().map(|id| ask(receiver, event("/shop/a", &id.to_string())));
        for answer in futures_util::future::join_all(requests).await {
            answer.assert_accepted();
            assert!(!is_duplicate(&answer));
        }
    }
}

async fn assert_others_are_known(receiver: &Receiver) {
    for (path, id) in ids_of_others() {
        assert!(is_duplicate(&ask(receiver, event(path, &id)).await), "{path} has forgotten {id}");
    }
}

#[tokio::test]
async fn a_webhook_that_floods_forgets_its_own_ids_and_none_of_others() {
    let gate = Gate::default();
    gate.take_all();
    let claims = ClaimsOptions::new().max_entries(MAX_ENTRIES).in_memory();
    let receiver = receiver(gate.registry(), claims.clone()).await;
    for (path, id) in ids_of_others() {
        ask(&receiver, event(path, &id)).await.assert_accepted();
    }
    flood(&receiver, 0).await;
    assert_others_are_known(&receiver).await;
    assert_eq!(claims.entries(), MAX_ENTRIES, "it has all the room that others leave");
    assert!(is_duplicate(&ask(&receiver, event("/shop/a", &(5 * MAX_ENTRIES - 1).to_string())).await));
    assert!(!is_duplicate(&ask(&receiver, event("/shop/a", "0")).await));
}

#[tokio::test]
async fn a_webhook_that_floods_makes_the_journal_forget_none_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    gate.take_all();
    let open = async || {
        let claims = ClaimsOptions::new().max_entries(MAX_ENTRIES).open(folder.path()).unwrap();
        receiver(gate.registry(), claims).await
    };
    let before = open().await;
    for (path, id) in ids_of_others() {
        ask(&before, event(path, &id)).await.assert_accepted();
    }
    flood(&before, 0).await;
    drop(before);
    let restarted = open().await;
    assert_others_are_known(&restarted).await;
    // The entries that were copied once are copied again.
    flood(&restarted, 5 * MAX_ENTRIES).await;
    drop(restarted);
    assert_others_are_known(&open().await).await;
    // One file may still be waiting for its removal.
    eventually("the journal to be small", async || {
        let files = std::fs::read_dir(folder.path()).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        bytes <= 4 * MAX_ENTRIES as u64 * 48
    })
    .await;
}

#[tokio::test]
async fn without_a_store_the_key_is_refused_and_never_passed_over() {
    let json = r#"{"module": "gate", "dedup": {"header": "x-id"}}"#;
    let gate = Gate::default();
    gate.take_all();
    // The application declared the ability, and gave the receiver no store.
    let registry = gate.registry().capable_of(Capabilities::none().deduplicating(true));
    let store = store_of(registry, &[("shop", "a", json)]).await;
    ask(&tower_webhook::receiver(store), event("/shop/a", "1")).await.problem(500);

    let registry = Registry::builtin().module_fn("gate", move |_: Nothing, _| Ok(Gate::default()));
    let store = store_of(registry, &[("shop", "a", json)]).await;
    let (_, refusal) = store.snapshot().refusals().next().map(|(key, refusal)| (key.clone(), refusal.clone())).unwrap();
    assert!(refusal.reason().starts_with("dedup: "), "{}", refusal.reason());
    ask(&tower_webhook::receiver(store), event("/shop/a", "1")).await.problem(503);
    assert_eq!(gate.calls(), 0);
}
