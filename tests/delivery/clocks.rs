//! The wall clock is set while the gateway runs, or is wrong when it starts. libfaketime stands in for the wall clock
//! of the process, and does not change the monotonic one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{beside_others, eventually};

/// The library, which `.ci/tools.sh all` installs.
fn library() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/libfaketime.so.1");
    assert!(path.is_file(), "{} is missing: `.ci/tools.sh all` puts it there", path.display());
    path
}

/// A home whose gateways see the time of [`set`].
fn home(webhooks: &Value) -> Home {
    let home = Home::new(webhooks);
    set(&home, "+0");
    let (library, file) = (library(), home.path("time"));
    home.with("LD_PRELOAD", library.display())
        .with("FAKETIME_TIMESTAMP_FILE", file.display())
        .with("FAKETIME_NO_CACHE", 1)
        .with("FAKETIME_DONT_FAKE_MONOTONIC", 1)
        .with("DONT_FAKE_MONOTONIC", 1)
}

/// Sets the wall clock: `-10m`, `+1y`, or an absolute time from which it runs.
fn set(home: &Home, time: &str) {
    std::fs::write(home.path("time.new"), time).unwrap();
    std::fs::rename(home.path("time.new"), home.path("time")).unwrap();
}

const RIGHT: &str = "+0";

/// The year that the gateway sees.
async fn year(gateway: &Gateway) -> i32 {
    let answer = gateway.post("/webhook/discard", b"{}").await;
    let id = u128::from_str_radix(&answer.event_id().replace('-', ""), 16).unwrap();
    // A UUIDv7 begins with the milliseconds since 1970.
    1970 + ((id >> 80) as f64 / 1000.0 / 86_400.0 / 365.2425) as i32
}

/// The target refuses events while the flag is set.
async fn target() -> (Target, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&refuses);
    let target = Target::start(move |_| match told.load(Ordering::SeqCst) {
        true => Reply::status(503),
        false => Reply::ok(),
    });
    (target.await, refuses)
}

fn accepted(target: &Target) -> Value {
    json!({"default": {
        "discard": {"module": "discard"},
        "accepted": {
            "module": "http_webhook",
            "ack": "accepted",
            "module-config": {"url": target.url("/accepted")},
            "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 2, "max_delay": 2, "backoff_multiplier": 1},
        },
    }})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_makes_no_event_wait() {
    let _guard = beside_others().await;
    for back in ["-10m", "-1y", "@1970-01-01 00:00:10"] {
        let (target, refuses) = target().await;
        let home = home(&accepted(&target));
        let gateway = home.start().await;
        gateway.post("/webhook/accepted", b"{}").await.accepted();
        target.count_at("/accepted", 1).await;
        set(&home, back);
        refuses.store(false, Ordering::SeqCst);
        target.count_at("/accepted", 2).await;
        gateway.drained().await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_ahead_makes_no_event_wait_nor_gives_it_up() {
    let _guard = beside_others().await;
    let (target, refuses) = target().await;
    let home = home(&accepted(&target));
    let gateway = home.start().await;
    gateway.post("/webhook/accepted", b"{}").await.accepted();
    target.count_at("/accepted", 1).await;
    set(&home, "+1y");
    target.count_at("/accepted", 2).await;
    set(&home, RIGHT);
    target.count_at("/accepted", 3).await;
    // The entry may have been written when the clock was a year ahead, and is read with the right time.
    gateway.kill().await;
    refuses.store(false, Ordering::SeqCst);
    let gateway = home.start().await;
    target.count_at("/accepted", 4).await;
    gateway.drained().await;
    assert!(gateway.dead_letters().await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_starts_in_1970_delivers_waiting_events() {
    let _guard = beside_others().await;
    for is_set_right in [true, false] {
        let (target, refuses) = target().await;
        let home = home(&accepted(&target));
        let gateway = home.start().await;
        gateway.post("/webhook/accepted", b"{}").await.accepted();
        target.count_at("/accepted", 2).await;
        gateway.kill().await;

        let before = target.at("/accepted").len();
        refuses.store(false, Ordering::SeqCst);
        set(&home, "@1970-01-01 00:00:01");
        let gateway = home.start().await;
        assert_eq!(year(&gateway).await, 1970);
        if is_set_right {
            tokio::time::sleep(Duration::from_secs(1)).await;
            set(&home, RIGHT);
        }
        target.count_at("/accepted", before + 1).await;
        gateway.post("/webhook/accepted", b"{}").await.accepted();
        target.count_at("/accepted", before + 2).await;
        gateway.stop().await;
    }
}

/// Asserts that a wrong clock has deleted neither the dead letter nor the ids of the two events.
async fn assert_nothing_is_forgotten(gateway: &Gateway, letter: &str) {
    assert_eq!(gateway.dead_letters().await, [letter]);
    for id in ["1", "2"] {
        let fields = format!("X-Id: {id}\r\n");
        let again = gateway.client().await.request("POST", "/webhook/known", &fields, b"{}").await.unwrap();
        assert_eq!((again.status, again.header("x-duplicate")), (200, Some("true")), "{id}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_for_a_moment_makes_nothing_expire() {
    let _guard = beside_others().await;
    let refusing = Target::start(|_| Reply::status(404)).await;
    let home = home(&json!({"default": {
        "discard": {"module": "discard"},
        "known": {"module": "discard", "dedup": {"header": "x-id", "ttl": 86_400}},
        "dead": {"module": "http_webhook", "ack": "accepted", "module-config": {"url": refusing.url("/")}},
    }}));
    let gateway = home.start().await;
    let letter = gateway.post("/webhook/dead", b"{}").await.accepted();
    eventually("the event to be given up", async || gateway.dead_letters().await.len() == 1).await;
    for id in ["1", "2"] {
        let fields = format!("X-Id: {id}\r\n");
        gateway.client().await.request("POST", "/webhook/known", &fields, b"{}").await.unwrap();
    }
    let this_year = year(&gateway).await;

    // The clock is wrong while the gateway runs, for longer than the minute between two searches for old letters.
    set(&home, "+1y");
    eventually("the gateway to see it", async || year(&gateway).await == this_year + 1).await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert_nothing_is_forgotten(&gateway, &letter).await;
    gateway.kill().await;

    // The clock is wrong from the start on.
    for time in ["+1y", "-1y", "@1970-01-01 00:00:01"] {
        set(&home, time);
        let gateway = home.start().await;
        assert_ne!(year(&gateway).await, this_year);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_nothing_is_forgotten(&gateway, &letter).await;
        set(&home, RIGHT);
        eventually("the gateway to see it", async || year(&gateway).await == this_year).await;
        assert_nothing_is_forgotten(&gateway, &letter).await;
        gateway.kill().await;
    }
    let gateway = home.start().await;
    assert_nothing_is_forgotten(&gateway, &letter).await;
    gateway.stop().await;
}
