//! Changes of the configuration, from a source that the test controls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::unbounded_channel;
use tower_webhook::config::Key;
use tower_webhook::module::{Discard, DiscardConfig};
use tower_webhook::source::{Feed, Source};
use tower_webhook::store::SourceState;
use tower_webhook::{OnInvalid, Receiver, Registry, Webhook, receiver, reflect};

use crate::support::driven::{Driver, connection, delete, put, webhook};
use crate::support::modules::{Greeter, Greets};
use crate::support::{PATIENCE, ask, post, target, within};

const OPEN: &str = r#"{"module": "discard"}"#;
const GUARDED: &str = r#"{"module": "discard", "authorization": "Bearer s3cret-token"}"#;
const OTHER_TOKEN: &str = r#"{"module": "discard", "authorization": "Bearer another"}"#;
const BAD: &str = r#"{"module": "discard", "autorization": "Bearer s3cret-token"}"#;
const GREETS: &str = r#"{"module": "greets", "connection": "c"}"#;

fn driver(on_invalid: OnInvalid) -> (Driver, Receiver) {
    let driver = Driver::new(Registry::builtin().connection::<Greeter>().module::<Greets>(), on_invalid);
    let receiver = receiver(driver.store.clone());
    (driver, receiver)
}

fn bytes(json: &str) -> Bytes {
    Bytes::copy_from_slice(json.as_bytes())
}

async fn status(receiver: &Receiver, id: &str) -> u16 {
    ask(receiver, post(&format!("/shop/{id}"), "{}")).await.status.as_u16()
}

fn serving(driver: &Driver, id: &str) -> Option<Arc<Webhook>> {
    driver.store.snapshot().webhook(&target("shop", id)).cloned()
}

/// The refusal of a key: its reason, and whether an earlier value is served.
fn refusal(driver: &Driver, key: &Key) -> Option<(String, bool)> {
    let snapshot = driver.store.snapshot();
    let mut refusals = snapshot.refusals().filter(|(other, _)| *other == key);
    refusals.next().map(|(_, refusal)| (refusal.reason().to_owned(), refusal.is_serving_last_good()))
}

#[tokio::test]
async fn a_put_a_change_and_a_delete_are_served_at_once() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![]).await;
    assert_eq!(status(&receiver, "a").await, 404);
    driver.put(webhook("shop", "a"), GUARDED).await;
    assert_eq!(status(&receiver, "a").await, 200);
    driver.put(webhook("shop", "a"), OTHER_TOKEN).await;
    assert_eq!(status(&receiver, "a").await, 401);
    driver.put(webhook("shop", "a"), OPEN).await;
    assert_eq!(status(&receiver, "a").await, 200);
    driver.delete(webhook("shop", "a")).await;
    assert_eq!(status(&receiver, "a").await, 404);
}

#[tokio::test]
async fn the_last_good_value_serves_until_a_new_one_is_good() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let key = webhook("shop", "a");
    driver.replace(vec![(key.clone(), bytes(OTHER_TOKEN))]).await;
    for bad in [BAD, "{", "", "null", r#"{"module": "nothing"}"#] {
        driver.put(key.clone(), bad).await;
        assert_eq!(status(&receiver, "a").await, 401, "the guard stays: {bad}");
        assert!(refusal(&driver, &key).unwrap().1);
        assert_eq!(driver.store.snapshot().counts().refused, 1);
    }
    driver.put(key.clone(), GUARDED).await;
    assert_eq!(status(&receiver, "a").await, 200);
    assert_eq!(refusal(&driver, &key), None);
    driver.put(key.clone(), BAD).await;
    driver.delete(key.clone()).await;
    assert_eq!(status(&receiver, "a").await, 404, "a deleted webhook is not served");
    assert_eq!(refusal(&driver, &key), None);
    driver.put(key.clone(), BAD).await;
    assert_eq!(status(&receiver, "a").await, 503, "the good value of before it was deleted is gone");
}

#[tokio::test]
async fn the_last_good_value_outlives_a_replacement() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let key = webhook("shop", "a");
    driver.replace(vec![(key.clone(), bytes(GUARDED))]).await;
    driver.replace(vec![(key.clone(), bytes(BAD))]).await;
    assert_eq!(status(&receiver, "a").await, 200);
    driver.replace(vec![(key.clone(), bytes(BAD)), (webhook("shop", "b"), bytes(OPEN))]).await;
    assert_eq!(status(&receiver, "a").await, 200, "also when the bad bytes are seen again");
    assert!(refusal(&driver, &key).unwrap().1);
    driver.replace(vec![(webhook("shop", "b"), bytes(OPEN))]).await;
    assert_eq!(status(&receiver, "a").await, 404);
    assert_eq!(refusal(&driver, &key), None);
}

#[tokio::test]
async fn fenced_a_bad_value_is_503_whatever_was_before() {
    let (mut driver, receiver) = driver(OnInvalid::Fence);
    let key = webhook("shop", "a");
    driver.replace(vec![(key.clone(), bytes(GUARDED))]).await;
    driver.put(key.clone(), BAD).await;
    assert_eq!(status(&receiver, "a").await, 503);
    assert!(!refusal(&driver, &key).unwrap().1);
    assert_eq!(driver.store.snapshot().counts().fenced, 1);
    driver.put(key.clone(), GUARDED).await;
    assert_eq!(status(&receiver, "a").await, 200);
    driver.replace(vec![(key.clone(), bytes(BAD))]).await;
    assert_eq!(status(&receiver, "a").await, 503);
}

#[tokio::test]
async fn a_refusal_names_the_key_and_the_nearest_known_word() {
    let (mut driver, _) = driver(OnInvalid::Keep);
    let key = webhook("shop", "a");
    driver.replace(vec![]).await;
    driver.put(key.clone(), BAD).await;
    let (reason, _) = refusal(&driver, &key).unwrap();
    assert_eq!(reason, "unknown key `autorization`, did you mean `authorization`?");
    let snapshot = driver.store.snapshot();
    let (shown, refusal) = snapshot.refusals().next().unwrap();
    assert_eq!((shown.to_string().as_str(), refusal.revision()), ("shop/webhooks/a", 2));
}

#[tokio::test]
async fn unchanged_bytes_rebuild_nothing() {
    let (mut driver, _) = driver(OnInvalid::Keep);
    let entries = vec![
        (webhook("shop", "a"), bytes(GUARDED)),
        (webhook("shop", "b"), bytes(GREETS)),
        (connection("c"), bytes(r#"{"type": "greeter", "greeting": "hello"}"#)),
    ];
    driver.replace(entries.clone()).await;
    let before = [serving(&driver, "a").unwrap(), serving(&driver, "b").unwrap()];
    let unchanged = |driver: &Driver| {
        let now = [serving(driver, "a").unwrap(), serving(driver, "b").unwrap()];
        assert!(before.iter().zip(&now).all(|(before, now)| Arc::ptr_eq(before, now)));
    };
    driver.replace(entries.clone()).await;
    unchanged(&driver);
    driver.replace(entries.iter().cloned().rev().collect()).await;
    unchanged(&driver);
    driver.apply(entries.iter().map(|(key, value)| put(key.clone(), str::from_utf8(value).unwrap())).collect()).await;
    driver.put(webhook("shop", "new"), OPEN).await;
    driver.delete(webhook("shop", "new")).await;
    driver.advance(100).await;
}

#[tokio::test]
async fn a_changed_connection_rebuilds_exactly_the_webhooks_that_name_it() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let hello = r#"{"type": "greeter", "greeting": "hello"}"#;
    driver
        .replace(vec![
            (webhook("shop", "a"), bytes(GREETS)),
            (webhook("shop", "b"), bytes(OPEN)),
            (connection("c"), bytes(hello)),
        ])
        .await;
    let (a, b) = (serving(&driver, "a").unwrap(), serving(&driver, "b").unwrap());
    driver.put(connection("c"), r#"{"type": "greeter", "greeting": "good morning"}"#).await;
    let rebuilt = serving(&driver, "a").unwrap();
    assert!(!Arc::ptr_eq(&a, &rebuilt) && Arc::ptr_eq(&b, &serving(&driver, "b").unwrap()));

    // A connection that is valid in itself, but not for this webhook.
    driver.put(connection("c"), r#"{"type": "greeter", "greeting": "rude"}"#).await;
    assert!(serving(&driver, "a").is_none(), "the earlier value has a greeting that was replaced");
    let (reason, last_good) = refusal(&driver, &webhook("shop", "a")).unwrap();
    assert!(reason.contains("the greeting is rude") && !last_good, "{reason}");
    driver.put(connection("c"), hello).await;
    assert_eq!(refusal(&driver, &webhook("shop", "a")), None);

    // A connection that is invalid: the last good one is used.
    for bad in [r#"{"greeting": "no type"}"#, r#"{"type": "greeter", "greeting": "panic"}"#] {
        driver.put(connection("c"), bad).await;
        assert!(refusal(&driver, &connection("c")).unwrap().1);
        assert_eq!(refusal(&driver, &webhook("shop", "a")), None);
        assert_eq!(status(&receiver, "a").await, 200);
    }
    driver.delete(connection("c")).await;
    assert!(refusal(&driver, &webhook("shop", "a")).unwrap().0.contains("no valid connection"));
}

#[tokio::test]
async fn no_connection_of_an_earlier_history_is_used_for_a_bad_one() {
    let (hello, bad) = (r#"{"type": "greeter", "greeting": "hello"}"#, r#"{"greeting": "no type"}"#);
    let everything = |value: &str| {
        vec![
            (webhook("shop", "a"), bytes(GREETS)),
            (webhook("shop", "b"), bytes(OPEN)),
            (connection("c"), bytes(value)),
        ]
    };
    // Invalid only in the new history, or in both.
    for is_bad_before in [false, true] {
        let (mut driver, receiver) = driver(OnInvalid::Keep);
        driver.replace(everything(hello)).await;
        let (a, b) = (serving(&driver, "a").unwrap(), serving(&driver, "b").unwrap());
        if is_bad_before {
            driver.put(connection("c"), bad).await;
        }
        assert_eq!(status(&receiver, "a").await, 200);
        driver.begin_history(everything(bad)).await;
        assert_eq!((status(&receiver, "a").await, status(&receiver, "b").await), (503, 200));
        assert!(Arc::ptr_eq(&b, &serving(&driver, "b").unwrap()), "an unchanged webhook is not built again");
        assert!(!refusal(&driver, &connection("c")).unwrap().1);
        let (reason, last_good) = refusal(&driver, &webhook("shop", "a")).unwrap();
        assert!(reason.contains("no valid connection") && !last_good, "{reason}");
        driver.begin_history(everything(hello)).await;
        assert_eq!(status(&receiver, "a").await, 200);
        assert!(!Arc::ptr_eq(&a, &serving(&driver, "a").unwrap()));
    }
    // A valid connection does not cause a webhook to be built again.
    let (mut driver, _) = driver(OnInvalid::Keep);
    driver.replace(everything(hello)).await;
    let a = serving(&driver, "a").unwrap();
    driver.begin_history(everything(hello)).await;
    assert!(Arc::ptr_eq(&a, &serving(&driver, "a").unwrap()));
}

#[tokio::test]
async fn a_change_of_any_connection_of_a_chain_rebuilds_it() {
    let (mut driver, _) = driver(OnInvalid::Keep);
    let chain =
        r#"{"chain": ["discard", {"module": "greets", "connection": "c"}, {"module": "greets", "connection": "d"}]}"#;
    let named = |greeting: &str| format!(r#"{{"type": "greeter", "greeting": "{greeting}"}}"#);
    let everything = |c: &str, d: &str| {
        let connections = [(connection("c"), bytes(&named(c))), (connection("d"), bytes(&named(d)))];
        let rest = [(webhook("shop", "a"), bytes(chain)), (connection("e"), bytes(&named("hello")))];
        connections.into_iter().chain(rest).collect::<Vec<_>>()
    };
    driver.replace(everything("hello", "hello")).await;
    let mut before = serving(&driver, "a").unwrap();
    for name in ["c", "d"] {
        driver.put(connection(name), &named("good morning")).await;
        assert!(!Arc::ptr_eq(&before, &serving(&driver, "a").unwrap()), "{name} changed");
        before = serving(&driver, "a").unwrap();
    }
    driver.put(connection("e"), &named("good morning")).await;
    driver.replace(everything("good morning", "good morning")).await;
    assert!(Arc::ptr_eq(&before, &serving(&driver, "a").unwrap()), "none of its own has changed");
    driver.replace(everything("good morning", "good evening")).await;
    assert!(!Arc::ptr_eq(&before, &serving(&driver, "a").unwrap()), "the second has, while everything was brought");
    driver.delete(connection("d")).await;
    assert_eq!(
        refusal(&driver, &webhook("shop", "a")).unwrap().0,
        "chain.2.connection: there is no valid connection `d`; add it, or correct its value"
    );
}

#[tokio::test]
async fn a_connection_that_comes_later_or_in_the_same_revision_is_found() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let hello = r#"{"type": "greeter", "greeting": "hello"}"#;
    driver.replace(vec![(webhook("shop", "a"), bytes(GREETS))]).await;
    assert_eq!(status(&receiver, "a").await, 503);
    driver.put(connection("c"), hello).await;
    assert_eq!(status(&receiver, "a").await, 200);
    assert_eq!(refusal(&driver, &webhook("shop", "a")), None);

    let named = r#"{"module": "greets", "connection": "d"}"#;
    driver.apply(vec![put(webhook("shop", "b"), named), put(connection("d"), hello)]).await;
    assert_eq!(status(&receiver, "b").await, 200);
    driver.replace(vec![(webhook("shop", "z"), bytes(named)), (connection("d"), bytes(hello))]).await;
    assert_eq!((status(&receiver, "z").await, status(&receiver, "a").await), (200, 404));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_revision_is_seen_at_once_or_not_at_all() {
    let (mut driver, _) = driver(OnInvalid::Keep);
    let value = |n: u64| format!(r#"{{"module": "discard", "metadata": {n}}}"#);
    let both = |n: u64| ["a", "b"].map(|id| put(webhook("shop", id), &value(n))).to_vec();
    driver.apply(both(0)).await;

    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, done) = (driver.store.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let (mut last, mut changes) = (0, 0);
                while !done.load(Ordering::Relaxed) {
                    let snapshot = store.snapshot();
                    let of = |id| snapshot.webhook(&target("shop", id)).unwrap().metadata().unwrap().as_u64().unwrap();
                    let (a, b) = (of("a"), of("b"));
                    assert_eq!(a, b, "a mixed pair at revision {}", snapshot.revision());
                    assert!(a >= last, "a reader went back");
                    changes += u64::from(a != last);
                    last = a;
                }
                changes
            })
        })
        .collect();
    let readers_live = || readers.iter().all(|reader| !reader.is_finished());
    for n in 1..=500 {
        match n % 10 {
            0 => {
                let entries = ["a", "b"].map(|id| (webhook("shop", id), bytes(&value(n))));
                driver.replace(entries.to_vec()).await;
            }
            _ => driver.apply(both(n)).await,
        }
        assert!(readers_live(), "a reader saw what it should not");
    }
    done.store(true, Ordering::Relaxed);
    let changes: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(changes > 0, "the readers saw no change, so they have proved nothing");
}

#[tokio::test]
async fn one_revision_may_change_many_keys() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let keys: Vec<_> = (0..50).map(|n| webhook("shop", &format!("hook{n}"))).collect();
    driver.replace(keys.iter().map(|key| (key.clone(), bytes(OPEN))).collect()).await;
    assert_eq!(driver.store.snapshot().counts().webhooks, 50);
    driver.apply(keys.into_iter().map(delete).chain([put(webhook("shop", "a"), OPEN)]).collect()).await;
    assert_eq!(driver.store.snapshot().counts().webhooks, 1);
    assert_eq!((status(&receiver, "hook7").await, status(&receiver, "a").await), (404, 200));
}

#[tokio::test]
async fn a_reader_that_waits_for_a_revision_is_woken_when_it_is_served() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![]).await;
    let store = driver.store.clone();
    let waiting = tokio::spawn(async move { store.wait_for_revision(3).await });
    driver.put(webhook("shop", "b"), OPEN).await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    driver.put(webhook("shop", "a"), OPEN).await;
    assert!(within("the revision", waiting).await.unwrap());
    assert_eq!(status(&receiver, "a").await, 200);
}

#[tokio::test]
async fn a_waiting_reader_learns_that_the_reflector_is_gone() {
    let (driver, receiver) = driver(OnInvalid::Keep);
    let store = driver.store.clone();
    drop(driver);
    let error = within("the end", store.wait_ready(PATIENCE)).await.unwrap_err();
    assert!(error.to_string().contains("the reflector has ended"), "{error}");
    assert!(!within("the end", store.wait_for_revision(1)).await);
    assert_eq!(status(&receiver, "a").await, 503);
}

#[tokio::test]
async fn the_last_snapshot_outlives_the_reflector() {
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![(webhook("shop", "a"), bytes(OPEN))]).await;
    drop(driver);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(status(&receiver, "a").await, 200);
}

/// The runtime has one thread: if the value were compiled there, the awaited request would never be answered.
#[tokio::test]
async fn a_value_that_takes_long_to_compile_delays_no_request() {
    let (begins, mut began) = unbounded_channel();
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let registry = Registry::builtin().connection::<Greeter>().module_fn("slow", move |_: DiscardConfig, _| {
        begins.send(()).map_err(|_| "the test has ended")?;
        let waited = gone.lock().unwrap().recv_timeout(Duration::from_secs(20));
        waited.map(|()| Discard).map_err(|_| "no request was answered meanwhile".into())
    });
    let mut driver = Driver::new(registry, OnInvalid::Keep);
    let receiver = receiver(driver.store.clone());
    let slow = format!(r#"{{"module": "slow", "metadata": "{}"}}"#, "x".repeat(20_000));
    let connected = format!(r#"{{"module": "slow", "connection": "c", "metadata": "{}"}}"#, "x".repeat(20_000));
    driver.replace(vec![(webhook("shop", "a"), bytes(OPEN)), (connection("c"), bytes(r#"{"type": "greeter"}"#))]).await;
    for round in 0..4 {
        let ask = async {
            within("the compiler", began.recv()).await.unwrap();
            assert_eq!(status(&receiver, "a").await, 200);
            go.send(()).unwrap();
        };
        let change = async {
            match round {
                0 => driver.put(webhook("shop", "b"), &slow).await,
                1 => driver.put(webhook("shop", "b"), &connected).await,
                2 => driver.put(connection("c"), r#"{"type": "greeter", "greeting": "good evening"}"#).await,
                _ => {
                    driver
                        .replace(vec![(webhook("shop", "a"), bytes(OPEN)), (webhook("shop", "c"), bytes(&slow))])
                        .await
                }
            }
        };
        tokio::join!(ask, change);
        assert_eq!(status(&receiver, if round < 3 { "b" } else { "c" }).await, 200, "round {round}");
    }
}

/// Delivers one webhook and panics.
struct Breaks;

impl Source for Breaks {
    const NAME: &'static str = "breaks";

    async fn run(self, mut feed: Feed) {
        let mut replacement = feed.replace().await;
        replacement.put(webhook("shop", "a"), 1, bytes(OPEN)).await;
        feed.commit(replacement, 1).await;
        feed.state(SourceState::Live);
        panic!("as it should");
    }
}

#[tokio::test]
async fn a_source_that_panics_is_shown_as_disconnected() {
    let (store, reflector) = reflect(Breaks, Registry::builtin());
    let ended = within("the end of the source", tokio::spawn(reflector.run())).await;
    assert!(ended.unwrap_err().is_panic());
    assert_eq!(store.status().state.label(), "disconnected");
    assert_eq!(status(&receiver(store), "a").await, 200, "what was there is served");
}

#[tokio::test]
async fn the_status_shows_the_reports_of_the_source() {
    let (mut driver, _) = driver(OnInvalid::Keep);
    assert_eq!((driver.store.status().source, driver.store.status().state.label()), ("driven", "starting"));
    driver.replace(vec![(webhook("shop", "a"), bytes(OPEN)), (webhook("b", "b"), bytes(BAD))]).await;
    driver.state(SourceState::Live).await;
    driver.ignored(3).await;
    driver.advance(9).await;
    let status = driver.store.status();
    assert_eq!((status.state, status.ignored_keys, status.snapshot.revision()), (SourceState::Live, 3, 9));
    let counts = status.snapshot.counts();
    assert_eq!(
        (counts.webhooks, counts.open, counts.fenced, counts.namespaces, counts.connections, counts.refused),
        (1, 1, 1, 2, 0, 1)
    );
    driver.state(SourceState::Disconnected("away".into())).await;
    let status = driver.store.status();
    assert_eq!((status.state.label(), status.state.reason()), ("disconnected", Some("away")));
    assert_eq!(status.snapshot.counts().webhooks, 1, "it is served on");
}

/// A request that has been looked up keeps its webhook, although the next revision already serves another.
#[tokio::test]
async fn a_change_in_the_middle_of_a_request_does_not_mix_two_configurations() {
    use crate::support::body::{Script, Step};
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![(webhook("shop", "a"), bytes(GUARDED))]).await;
    let body = Script::new([Step::data("{"), Step::Wait(Duration::from_millis(200)), Step::data("}")]);
    let request = http::Request::post("/shop/a").header("authorization", "Bearer s3cret-token").body(body).unwrap();
    let running = tokio::spawn({
        let receiver = receiver.clone();
        async move { ask(&receiver, request).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    driver.put(webhook("shop", "a"), OTHER_TOKEN).await;
    assert_eq!(status(&receiver, "a").await, 401);
    within("the running one", running).await.unwrap().assert_accepted();
}
