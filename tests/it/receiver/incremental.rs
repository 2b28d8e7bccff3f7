//! A sequence of changes leads to the same state as one replacement with the final content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tower_webhook::config::Key;
use tower_webhook::store::{Counts, Snapshot};
use tower_webhook::{Change, OnInvalid, Registry};

use crate::support::driven::{Driver, connection, webhook};
use crate::support::modules::{Greeter, Greets};
use crate::support::target;

const WEBHOOKS: [(&str, &str); 4] = [("x", "a"), ("x", "b"), ("y", "a"), ("z", "c")];
const CONNECTIONS: [&str; 2] = ["c", "d"];

/// Values of webhooks: valid, open, invalid, and some that depend on a connection or on a variable that only
/// connections may use.
const WEBHOOK_VALUES: [&str; 11] = [
    r#"{"module": "discard", "authorization": "Bearer 1"}"#,
    r#"{"module": "discard", "metadata": 1}"#,
    r#"{"module": "discard", "autorization": "Bearer 1"}"#,
    r#"{"module": "greets", "connection": "c"}"#,
    r#"{"module": "greets", "connection": "d"}"#,
    r#"{"module": "greets", "connection": "nowhere"}"#,
    r#"{"module": "greets", "connection": "c", "metdata": 1}"#,
    r#"{"module": "discard", "metadata": "{$GREETING:none}"}"#,
    r#"{"module": "greets", "connection": "d", "metadata": "{$OTHER:none}"}"#,
    r#"{"connection": "c", "chain": ["greets", {"module": "greets", "connection": "d"}]}"#,
    "{",
];

const CONNECTION_VALUES: [&str; 7] = [
    r#"{"type": "greeter", "greeting": "hello"}"#,
    r#"{"type": "greeter", "greeting": "rude"}"#,
    r#"{"type": "greeter", "greeting": "{$GREETING:hello}"}"#,
    r#"{"type": "greeter", "greeting": "{$OTHER:hello}"}"#,
    r#"{"greeting": "no type"}"#,
    r#"{"greeting": "no type, {$GREETING}"}"#,
    "[",
];

fn key() -> impl Strategy<Value = (Key, Option<Bytes>)> {
    let webhooks =
        (prop::sample::select(&WEBHOOKS[..]), prop::option::weighted(0.8, prop::sample::select(&WEBHOOK_VALUES[..])))
            .prop_map(|((namespace, id), value)| (webhook(namespace, id), value));
    let connections = (
        prop::sample::select(&CONNECTIONS[..]),
        prop::option::weighted(0.7, prop::sample::select(&CONNECTION_VALUES[..])),
    )
        .prop_map(|(name, value)| (connection(name), value));
    prop_oneof![2 => webhooks, 1 => connections]
        .prop_map(|(key, value)| (key, value.map(|value: &str| Bytes::from_static(value.as_bytes()))))
}

/// One revision: changes of some keys, each at most once, or a complete replacement.
#[derive(Clone, Debug)]
enum Operation {
    Apply(BTreeMap<Key, Option<Bytes>>),
    Relist,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let apply = prop::collection::vec(key(), 1..4).prop_map(|keys| Operation::Apply(keys.into_iter().collect()));
    prop::collection::vec(prop_oneof![6 => apply, 1 => Just(Operation::Relist)], 0..14)
}

/// The visible content of a snapshot, without revisions.
#[derive(Debug, PartialEq)]
struct Seen {
    serving: BTreeMap<String, String>,
    refusals: BTreeMap<Key, (String, bool)>,
    counts: Counts,
}

impl Seen {
    fn of(snapshot: &Snapshot) -> Self {
        let serving = snapshot.webhooks().map(|webhook| {
            let shown = format!("{} {} {:?}", webhook.module_name(), webhook.is_open(), webhook.metadata());
            (webhook.key().to_string(), shown)
        });
        let refusals = snapshot
            .refusals()
            .map(|(key, refusal)| (key.clone(), (refusal.reason().to_owned(), refusal.is_serving_last_good())));
        Self { serving: serving.collect(), refusals: refusals.collect(), counts: snapshot.counts() }
    }

    fn reasons(&self) -> BTreeMap<&Key, &str> {
        self.refusals.iter().map(|(key, (reason, _))| (key, reason.as_str())).collect()
    }
}

fn driver(on_invalid: OnInvalid) -> Driver {
    Driver::new(Registry::builtin().connection::<Greeter>().module::<Greets>(), on_invalid)
}

/// Runs the operations. Returns the final content of the source.
async fn run(driver: &mut Driver, operations: &[Operation]) -> Vec<(Key, Bytes)> {
    let mut held = BTreeMap::new();
    driver.replace(Vec::new()).await;
    for operation in operations {
        match operation {
            Operation::Apply(changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => held.insert(key.clone(), value.clone()),
                        None => held.remove(key),
                    };
                }
                let changes = changes.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() });
                driver.apply(changes.collect()).await;
            }
            Operation::Relist => {
                driver.replace(held.iter().map(|(key, value)| (key.clone(), value.clone())).collect()).await;
            }
        }
        check_counts(driver);
    }
    held.into_iter().collect()
}

/// The store updates its counts with every change; here they are counted again.
fn check_counts(driver: &Driver) {
    let snapshot = driver.store.snapshot();
    let counts = snapshot.counts();
    assert_eq!(counts.webhooks, snapshot.webhooks().count());
    assert_eq!(counts.open, snapshot.webhooks().filter(|webhook| webhook.is_open()).count());
    assert_eq!(counts.refused, snapshot.refusals().count());
    let not_served = |key: &Key| match key {
        Key::Webhook(key) => snapshot.webhook(&target(key.namespace(), key.id())).is_none(),
        _ => false,
    };
    assert_eq!(counts.fenced, snapshot.refusals().filter(|(key, _)| not_served(key)).count());
    for (key, refusal) in snapshot.refusals() {
        if let Key::Webhook(_) = key {
            assert_eq!(refusal.is_serving_last_good(), !not_served(key), "{key}");
        }
    }
    let refused = snapshot.refusals().filter_map(|(key, _)| match key {
        Key::Webhook(key) => Some(key.namespace().to_owned()),
        _ => None,
    });
    let namespaces: BTreeSet<_> =
        snapshot.webhooks().map(|webhook| webhook.namespace().to_owned()).chain(refused).collect();
    assert_eq!(counts.namespaces, namespaces.len());
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// With `Fence`, no earlier value is served: the state is a function of the source's content.
    #[test]
    fn fenced_the_state_is_that_of_a_fresh_start(operations in operations()) {
        block_on(async {
            let mut one_by_one = driver(OnInvalid::Fence);
            let held = run(&mut one_by_one, &operations).await;
            let mut fresh = driver(OnInvalid::Fence);
            fresh.replace(held).await;
            assert_eq!(Seen::of(&one_by_one.store.snapshot()), Seen::of(&fresh.store.snapshot()));
        });
    }

    /// With `Keep`, an earlier value is served where the newest one is invalid, and nowhere else.
    #[test]
    fn kept_the_state_differs_from_a_fresh_start_only_where_the_last_good_value_serves(operations in operations()) {
        block_on(async {
            let mut one_by_one = driver(OnInvalid::Keep);
            let held = run(&mut one_by_one, &operations).await;
            let mut fresh = driver(OnInvalid::Keep);
            fresh.replace(held.clone()).await;
            let (kept, anew) = (Seen::of(&one_by_one.store.snapshot()), Seen::of(&fresh.store.snapshot()));

            // A connection that is kept also serves its dependents, which a fresh start must refuse.
            let lost: Vec<_> = kept.refusals.iter()
                .filter(|(key, (_, last_good))| matches!(key, Key::Connection(_)) && *last_good)
                .collect();
            // Such a connection keeps its variables too.
            let is_withheld = |key: &Key| {
                let reason = kept.refusals.get(key).map(|(reason, _)| reason.as_str());
                !lost.is_empty() && reason.is_some_and(|reason| reason.contains("belongs to a connection"))
            };
            for (key, shown) in &anew.serving {
                let (namespace, id) = key.split_once('/').unwrap();
                if !is_withheld(&webhook(namespace, id)) {
                    assert_eq!(kept.serving.get(key), Some(shown), "a valid value is served: {key}");
                }
            }
            if lost.is_empty() {
                assert_eq!(kept.reasons(), anew.reasons());
            }
            for (key, reason) in kept.reasons() {
                assert!(
                    anew.reasons().contains_key(key) || is_withheld(key),
                    "{key} is refused for nothing: {reason}"
                );
            }
            for key in kept.serving.keys().filter(|key| !anew.serving.contains_key(*key)) {
                let (namespace, id) = key.split_once('/').unwrap();
                let refusal = kept.refusals.get(&webhook(namespace, id));
                assert!(refusal.is_some_and(|(_, last_good)| *last_good) || !lost.is_empty(), "{key}");
            }
        });
    }

    /// After a change of the history no earlier value is served, whatever happened before: only the texts differ.
    #[test]
    fn another_history_is_a_fresh_start(operations in operations()) {
        block_on(async {
            let mut driver = self::driver(OnInvalid::Keep);
            let held = run(&mut driver, &operations).await;
            driver.begin_history(held.clone()).await;
            check_counts(&driver);
            let mut fresh = self::driver(OnInvalid::Keep);
            fresh.replace(held).await;
            let (after, anew) = (Seen::of(&driver.store.snapshot()), Seen::of(&fresh.store.snapshot()));
            assert_eq!((&after.serving, after.counts), (&anew.serving, anew.counts));
            for (key, reason) in anew.reasons() {
                let (other, last_good) = &after.refusals[key];
                assert!(other.starts_with(reason) && !last_good, "{key}: {other}");
            }
        });
    }

    /// Delivering the same content again, in any order, changes nothing.
    #[test]
    fn bringing_everything_again_changes_nothing(operations in operations(), fence in any::<bool>()) {
        block_on(async {
            let mut driver = driver(if fence { OnInvalid::Fence } else { OnInvalid::Keep });
            let mut held = run(&mut driver, &operations).await;
            let before = driver.store.snapshot();
            held.reverse();
            driver.replace(held.clone()).await;
            driver.apply(held.into_iter().map(|(key, value)| Change { key, value: Some(value) }).collect()).await;
            let after = driver.store.snapshot();
            assert_eq!(Seen::of(&before), Seen::of(&after));
            for webhook in before.webhooks() {
                let now = after.webhook(&target(webhook.namespace(), webhook.id())).unwrap();
                assert!(Arc::ptr_eq(webhook, now), "{} was built again", webhook.key());
            }
            for ((key, before), (other, after)) in sorted(&before).into_iter().zip(sorted(&after)) {
                assert_eq!((key, before.revision()), (other, after.revision()));
            }
        });
    }
}

fn sorted(snapshot: &Snapshot) -> Vec<(&Key, &tower_webhook::store::Refusal)> {
    let mut refusals: Vec<_> = snapshot.refusals().collect();
    refusals.sort_by_key(|(key, _)| *key);
    refusals
}
