//! A spool without room refuses with 503, loses nothing, and takes again once there is room.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Home};
use crate::support::target::{Reply, Target};
use crate::support::{beside_others, eventually, within};

/// The smallest possible spool.
const ROOM: usize = 1 << 20;

fn webhook(target: &Target, path: &str, timeout: u32) -> Value {
    json!({
        "module": "http_webhook",
        "ack": "accepted",
        "module-config": {"url": target.url(path), "timeout": timeout},
        "retry": {"enabled": true, "max_attempts": 20, "initial_delay": 0.05, "max_delay": 0.2},
    })
}

fn webhooks(target: &Target, timeout: u32) -> Value {
    json!({
        "one": {"a": webhook(target, "/a", timeout)},
        "two": {"b": webhook(target, "/b", timeout), "c": webhook(target, "/c", timeout)},
        "three": {"d": webhook(target, "/d", timeout)},
    })
}

fn body(number: usize) -> Vec<u8> {
    format!(r#"{{"number": {number}, "filler": "{}"}}"#, "x".repeat(4000)).into_bytes()
}

/// Bodies by the ids of their events.
type Acknowledged = HashMap<String, Vec<u8>>;

/// Sends until this webhook's share of the spool is full. Returns the number of accepted events.
async fn fill(gateway: &Gateway, path: &str, outcome: (&str, &str), acknowledged: &mut Acknowledged) -> usize {
    let mut client = gateway.client().await;
    for number in 0..ROOM / 4000 {
        let body = body(number);
        let answer = client.post(path, &body).await.unwrap();
        if answer.status == 503 {
            let (kind, again) = outcome;
            assert_eq!(answer.header("retry-after"), Some(again), "{answer:?}");
            assert!(answer.text().contains(kind), "{}", answer.text());
            return number;
        }
        acknowledged.insert(answer.accepted(), body);
    }
    panic!("it takes more than it has room for");
}

const FULL: (&str, &str) = ("queue_full", "10");

const FAILED: (&str, &str) = ("queue_failed", "1");

/// Sends an event until it is accepted.
async fn accepted_in_the_end(client: &mut Client, body: &[u8]) -> String {
    within("the event to be accepted", async {
        loop {
            let answer = client.post("/webhook/two/c", body).await.unwrap();
            if answer.status != 503 {
                break answer.accepted();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Everything that was acknowledged is at the target, as it was sent.
async fn all_arrive(target: &Target, acknowledged: &Acknowledged) {
    eventually("everything that was acknowledged", async || {
        let arrived: HashMap<_, _> = target.taken().into_iter().map(|arrival| (arrival.event, arrival.body)).collect();
        acknowledged.iter().all(|(id, body)| arrived.get(id) == Some(body))
    })
    .await;
}

async fn spool_health(gateway: &Gateway) -> String {
    let answer = gateway.get("/health").await;
    assert_eq!(answer.status, 200, "to be restarted would not help");
    answer.json()["components"]["spool"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_and_takes_again_when_it_is_drained() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Silence).await;
    let home = Home::new(&webhooks(&target, 300)).with("SPOOL_MAX_BYTES", ROOM).with("DELIVERY_TIMEOUT_SECONDS", 600);
    let gateway = home.start().await;
    let mut acknowledged = Acknowledged::new();
    // A webhook may use as much as is still free, and a namespace twice as much.
    let whole = ROOM / 4000;
    let first = fill(&gateway, "/webhook/one/a", FULL, &mut acknowledged).await;
    assert!((whole / 3..=whole / 2).contains(&first), "{first}");
    let second = fill(&gateway, "/webhook/two/b", FULL, &mut acknowledged).await;
    assert!((whole / 6..first).contains(&second), "{second}");
    let third = fill(&gateway, "/webhook/two/c", FULL, &mut acknowledged).await;
    assert!((1..second).contains(&third), "{third}");
    // The last namespace finds room as well.
    let last = fill(&gateway, "/webhook/three/d", FULL, &mut acknowledged).await;
    assert!((whole / 32..second).contains(&last), "{last}");
    assert_eq!(spool_health(&gateway).await, "healthy", "it is full, and works");
    gateway.kill().await;

    let gateway = home.start().await;
    assert_eq!(fill(&gateway, "/webhook/one/a", FULL, &mut acknowledged).await, 0);
    assert_eq!(fill(&gateway, "/webhook/two/c", FULL, &mut acknowledged).await, 0);
    target.now(|_| Reply::ok());
    // Events for the silent target would stay in flight for long.
    gateway.kill().await;
    let gateway = home.start().await;
    all_arrive(&target, &acknowledged).await;
    gateway.drained().await;
    for number in 0..2 * ROOM / 4000 {
        let body = body(number);
        let id = gateway.post("/webhook/two/c", &body).await.accepted();
        acknowledged.insert(id, body);
    }
    all_arrive(&target, &acknowledged).await;
    gateway.drained().await;
    gateway.stop().await;
}

/// Records that nothing needs any more must not use up room, however long other events have been kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_leave_the_rest_of_the_room_to_others() {
    let _guard = beside_others().await;
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/c" => Reply::ok(),
        _ => Reply::status(410),
    })
    .await;
    let home = Home::new(&webhooks(&target, 300)).with("SPOOL_MAX_BYTES", ROOM);
    let gateway = home.start().await;
    // Almost as much as both shares.
    let shares =
        [("/webhook/one/a", 37), ("/webhook/two/b", 20)].map(|(path, share)| (path, ROOM * share / 100 / 4200));
    for (path, count) in shares {
        let mut client = gateway.client().await;
        for number in 0..count {
            client.post(path, &body(number)).await.unwrap().accepted();
        }
    }
    let dead: usize = shares.iter().map(|(_, count)| count).sum();
    eventually("the dead letters", async || gateway.dead_letters().await.len() == dead).await;
    let mut client = gateway.client().await;
    let mut acknowledged = Acknowledged::new();
    for number in 0..4 * ROOM / 4000 {
        let body = body(number);
        // The event may have to wait until one segment is freed, and not for longer.
        acknowledged.insert(accepted_in_the_end(&mut client, &body).await, body);
    }
    all_arrive(&target, &acknowledged).await;
    gateway.drained().await;
    assert_eq!(gateway.dead_letters().await.len(), dead);
    gateway.kill().await;
    let gateway = home.start().await;
    assert_eq!(gateway.dead_letters().await.len(), dead, "they were copied with what became of them");
    let after = target.arrivals().len();
    gateway.drained().await;
    assert!(target.arrivals()[after..].iter().all(|arrival| arrival.path == "/c"), "none of them is tried again");
    gateway.stop().await;
}

/// A file system for this test alone, of 1 MB.
struct Disk {
    path: PathBuf,
    is_mounted: bool,
}

const SMALL: &str = "size=1m,mode=700";

impl Disk {
    fn small(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SMALL, "tmpfs"]).arg(&path).output();
        let is_mounted = mount.is_ok_and(|output| output.status.success());
        if !is_mounted {
            println!("full: no right to mount: in a namespace of the gateway's own, without a second start");
        }
        Self { path, is_mounted }
    }

    async fn gateway(&self, home: &Home) -> Gateway {
        if self.is_mounted {
            return home.start().await;
        }
        let script = format!("mount -t tmpfs -o {SMALL} tmpfs '{}' && exec \"$0\"", self.path.display());
        let gateway = home.spawn_by(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        gateway.ready().await;
        gateway
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Also if a gateway of a failed test still uses it.
            let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        }
    }
}

fn files(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_loses_nothing() {
    let _guard = beside_others().await;
    let target = Target::start(|_| Reply::Silence).await;
    let home =
        Home::new(&webhooks(&target, 3)).with("DELIVERY_TIMEOUT_SECONDS", 600).with("RUST_LOG", "warn,gateway=info");
    let disk = Disk::small(home.path("spool"));
    let gateway = disk.gateway(&home).await;
    assert_eq!(spool_health(&gateway).await, "healthy");
    let mut acknowledged = Acknowledged::new();
    let taken = fill(&gateway, "/webhook/one/a", FAILED, &mut acknowledged).await;
    assert!(taken > ROOM / 4000 / 2, "{taken}");
    assert_eq!(spool_health(&gateway).await, "failing");
    let before = disk.is_mounted.then(|| files(&home.path("spool/events")));
    let mut client = gateway.client().await;
    for _ in 0..40 {
        let answer = client.post("/webhook/two/c", &body(0)).await.unwrap();
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    if let Some(before) = before {
        let after = files(&home.path("spool/events"));
        assert!(after <= before + 1, "each try leaves a file: {before} -> {after}");
    }
    let gateway = if disk.is_mounted {
        gateway.kill().await;
        target.now(|_| Reply::ok());
        home.start().await
    } else {
        target.now(|_| Reply::ok());
        gateway
    };
    all_arrive(&target, &acknowledged).await;
    let id = accepted_in_the_end(&mut gateway.client().await, &body(1)).await;
    acknowledged.insert(id, body(1));
    all_arrive(&target, &acknowledged).await;
    assert_eq!(spool_health(&gateway).await, "healthy");
    gateway.drained().await;
    gateway.stop().await;
}
