//! Several attempts at the items of a chain.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;

use super::Failure;
use crate::config::WebhookKey;
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery, Tracker};
use crate::module::Module;
use crate::webhook::{Compiler, Connections, Registry, Webhook};

/// The names of the items that were called, in order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<String>>);

impl Calls {
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn webhook(&self, rest: &str) -> Arc<Webhook> {
        let calls = self.clone();
        let registry = Registry::builtin().module_fn("step", move |config: StepConfig, _| {
            Ok(Scripted { config, calls: calls.clone(), count: AtomicU32::new(0) })
        });
        let compiler = Compiler::new(registry);
        let spec =
            compiler.read_webhook("default", format!("{{{rest}}}").as_bytes(), &Default::default()).outcome.unwrap();
        let key = WebhookKey::new("default", "a").unwrap();
        Arc::new(compiler.build_webhook(&key, spec, &Connections::new()).unwrap())
    }
}

#[derive(Deserialize)]
struct StepConfig {
    name: char,
    #[serde(default)]
    fails: u32,
    #[serde(default)]
    hangs: bool,
}

struct Scripted {
    config: StepConfig,
    calls: Calls,
    count: AtomicU32,
}

impl Module for Scripted {
    async fn deliver(&self, _: Delivery) -> Result<Ack, DeliverError> {
        self.calls.0.lock().unwrap().push(self.config.name);
        if self.config.hangs {
            std::future::pending::<()>().await;
        }
        match self.count.fetch_add(1, Ordering::Relaxed) < self.config.fails {
            true => Err(DeliverError::new(DeliverErrorKind::Connect, format!("no {}", self.config.name))),
            false => Ok(Ack::Delivered),
        }
    }
}

async fn attempt(webhook: &Arc<Webhook>, number: u32, done: &Tracker) -> Result<(), Failure> {
    let delivery = Delivery::new(Arc::clone(webhook.info()), HeaderMap::new(), Bytes::from("{}"));
    webhook.steps().attempt(&delivery.attempted(number), done, None).await
}

fn item(name: char, fails: u32, attempts: u32) -> String {
    format!(
        r#"{{"module": "step", "module-config": {{"name": "{name}", "fails": {fails}}},
            "retry": {{"enabled": true, "max_attempts": {attempts}}}}}"#
    )
}

fn chain(items: &[String]) -> String {
    format!(r#""chain": [{}]"#, items.join(","))
}

const STOP: &str = r#", "chain-config": {"continue_on_error": false}"#;
const PARALLEL_STOP: &str = r#", "chain-config": {"continue_on_error": false, "execution": "parallel"}"#;

#[tokio::test]
async fn items_that_are_done_or_given_up_are_not_tried_again() {
    let calls = Calls::default();
    let items = [item('a', 1, 1), item('b', 0, 5), item('c', 1, 2), item('d', 9, 3)];
    let webhook = calls.webhook(&chain(&items));
    let done = Tracker::default();
    for (number, tried, again) in [(1, "abcd", true), (2, "cd", true), (3, "d", false), (4, "", false)] {
        let failure = attempt(&webhook, number, &done).await.unwrap_err();
        assert_eq!(calls.take(), tried, "attempt {number}");
        assert_eq!(
            failure.error.to_string(),
            "chain.0 step: no a",
            "the error of the first failed item, whenever it failed"
        );
        assert_eq!(failure.again.is_some(), again, "attempt {number}");
    }
}

#[tokio::test]
async fn a_chain_that_stops_continues_where_it_stopped() {
    let calls = Calls::default();
    let items = [item('a', 0, 9), item('b', 2, 3), item('c', 0, 9)];
    let webhook = calls.webhook(&(chain(&items) + STOP));
    let done = Tracker::default();
    assert!(attempt(&webhook, 1, &done).await.unwrap_err().again.is_some());
    assert!(attempt(&webhook, 2, &done).await.unwrap_err().again.is_some());
    attempt(&webhook, 3, &done).await.unwrap();
    assert_eq!(calls.take(), "abbbc");
    attempt(&webhook, 4, &done).await.unwrap();
    assert_eq!(calls.take(), "");
}

#[tokio::test]
async fn a_chain_that_stops_ends_when_an_item_is_given_up() {
    for plan in [STOP, PARALLEL_STOP] {
        let calls = Calls::default();
        let webhook = calls.webhook(&(chain(&[item('a', 9, 1), item('b', 0, 9)]) + plan));
        let done = Tracker::default();
        assert!(attempt(&webhook, 1, &done).await.unwrap_err().again.is_none());
        calls.take();
        let failure = attempt(&webhook, 2, &done).await.unwrap_err();
        assert_eq!((calls.take().as_str(), failure.again), ("", None));
        assert_eq!(failure.error.to_string(), "chain.0 step: no a");
    }
}

#[tokio::test]
async fn a_later_attempt_needs_only_the_progress() {
    let calls = Calls::default();
    let webhook = calls.webhook(&chain(&[item('a', 0, 1), item('b', 1, 1), item('c', 9, 9)]));
    let done = Tracker::default();
    attempt(&webhook, 1, &done).await.unwrap_err();
    calls.take();

    let restored = Tracker::resume(done.progress());
    let failure = attempt(&webhook, 2, &restored).await.unwrap_err();
    assert_eq!(calls.take(), "c");
    assert_eq!(failure.error.to_string(), "chain.2 step: no c", "only the progress of item b is left, not its error");

    let replayed = Tracker::resume(done.progress().forgiven());
    attempt(&webhook, 1, &replayed).await.unwrap_err();
    assert_eq!(calls.take(), "bc", "items that are done stay done");
}

#[tokio::test]
async fn an_item_given_up_before_a_restart_still_fails_the_event() {
    let calls = Calls::default();
    let webhook = calls.webhook(&chain(&[item('a', 1, 1), item('b', 1, 9)]));
    let done = Tracker::default();
    attempt(&webhook, 1, &done).await.unwrap_err();
    let failure = attempt(&webhook, 2, &Tracker::resume(done.progress())).await.unwrap_err();
    assert_eq!((calls.take().as_str(), failure.again), ("abb", None));
    assert_eq!(failure.error.kind(), DeliverErrorKind::Permanent);
}

#[tokio::test]
async fn the_progress_of_other_steps_does_not_count() {
    let calls = Calls::default();
    let before = calls.webhook(&chain(&[item('a', 0, 1), item('b', 1, 1)]));
    let done = Tracker::default();
    attempt(&before, 1, &done).await.unwrap_err();
    let progress = done.progress();
    calls.take();

    for (items, tried) in [
        (vec![item('b', 0, 1), item('a', 0, 1)], "ba"),
        (vec![item('a', 0, 1), item('c', 0, 1)], "ac"),
        (vec![item('a', 0, 1), item('b', 0, 1), item('c', 0, 1)], "abc"),
    ] {
        attempt(&calls.webhook(&chain(&items)), 2, &Tracker::resume(progress)).await.unwrap();
        assert_eq!(calls.take(), tried);
    }
    // The same steps with other retry rules are the same steps.
    let again =
        calls.webhook(&format!(r#"{}, "authorization": "Bearer x""#, chain(&[item('a', 0, 7), item('b', 1, 1)])));
    attempt(&again, 2, &Tracker::resume(progress.forgiven())).await.unwrap_err();
    assert_eq!(calls.take(), "b");
}

#[tokio::test]
async fn each_success_is_reported_at_once() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let (calls, seen) = (Calls::default(), Arc::clone(&reported));
    let seen_calls = calls.clone();
    let done = Tracker::default().on_done(move |progress| {
        seen.lock().unwrap().push((seen_calls.0.lock().unwrap().clone(), progress.done));
    });
    let webhook = calls.webhook(&chain(&[item('a', 0, 1), item('b', 1, 1), item('c', 0, 1)]));
    attempt(&webhook, 1, &done).await.unwrap_err();
    assert_eq!(*reported.lock().unwrap(), [("a".to_owned(), 0b001), ("abc".to_owned(), 0b101)]);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_was_not_reached_is_not_given_up() {
    let calls = Calls::default();
    let hanging = item('b', 0, 2).replace("\"fails\"", "\"hangs\": true, \"fails\"");
    let webhook = calls.webhook(&chain(&[item('a', 0, 1), hanging, item('c', 0, 1)]));
    let done = Tracker::default();
    let failure = attempt(&webhook, 1, &done).await.unwrap_err();
    assert_eq!(failure.error.kind(), DeliverErrorKind::Timeout);
    assert!(failure.again.is_some() && !done.progress().is_given_up(1) && !done.progress().is_given_up(2), "{done:?}");
    let failure = attempt(&webhook, 2, &done).await.unwrap_err();
    assert!(failure.again.is_none() && done.progress().is_given_up(1) && !done.progress().is_given_up(2), "{done:?}");
    assert_eq!(calls.take(), "abb");
}
