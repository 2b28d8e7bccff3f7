//! Crashes, damage, and disks that are full, slow or gone.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

/// The directory of the child process of the test below.
const CHILD: &str = "HISTORY_OF_A_CHILD";

#[test]
#[ignore = "the child process of another test"]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let store = started(&SqliteHistory::new(directory).max_bytes(6 << 20));
    loop {
        record(&store, Received { body: Body::Whole(vec![b'1'; 1000].into()), ..received("ns", "hook") });
        if fastrand::u8(..) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test]
async fn a_killed_process_leaves_a_consistent_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "history::sqlite::tests::faults::writes_until_it_is_killed", "--ignored"])
            .env(CHILD, folder.path().join("history"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(1000 + 300 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let store = started(&small(&folder).max_bytes(6 << 20));
        let check = store.readers.run(|connection, _| {
            let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            let pools: i64 = connection.query_row("SELECT sum(events) FROM pools", [], |row| row.get(0))?;
            let events: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
            Ok((whole, pools, events))
        });
        let (whole, pools, events) = check.await.unwrap();
        assert_eq!((&*whole, pools), ("ok", events), "in round {round}");
        assert!(!folder.path().join("history/history.db.damaged").exists());
        before = before.max(events);
    }
    assert!(before > 100, "{before} events were written");
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside() {
    for (what, damage) in [
        (
            "another file",
            (&|bytes: &mut Vec<u8>| *bytes = b"not a database, but a text of some length".repeat(200))
                as &dyn Fn(&mut Vec<u8>),
        ),
        ("zeros", &|bytes: &mut Vec<u8>| bytes.fill(0)),
        ("noise", &|bytes: &mut Vec<u8>| bytes[100..].iter_mut().for_each(|byte| *byte = fastrand::u8(..))),
        ("a part", &|bytes: &mut Vec<u8>| bytes.truncate(5000)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        (0..200).for_each(|_| _ = record(&store, received("ns", "hook")));
        store.flush().await.unwrap();
        drop(store);
        let file = folder.path().join("history/history.db");
        // The writer is still ending.
        let lock = crate::base::directory::lock(&folder.path().join("history")).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        drop(lock);
        let store = open(&folder);
        let id = record(&store, received("ns", "hook"));
        assert!(store.event(id).await.unwrap().is_some(), "{what}");
        assert!(folder.path().join("history/history.db.damaged").exists(), "{what}");
    }
}

#[tokio::test]
async fn damage_that_is_found_later_begins_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let lost = record(&store, received("ns", "hook"));
    store.flush().await.unwrap();
    store.shared.found_damage();
    eventually("a new file to be there", async || {
        let id = record(&store, received("ns", "hook"));
        store.event(lost).await.is_ok_and(|event| event.is_none())
            && store.event(id).await.is_ok_and(|event| event.is_some())
    })
    .await;
    assert!(folder.path().join("history/history.db.damaged").exists());
}

#[tokio::test]
async fn only_one_process_opens_a_directory_which_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    record(&store, received("ns", "hook"));
    store.flush().await.unwrap();
    let error = small(&folder).open().unwrap_err();
    assert_eq!(error.to_string(), "another process uses this directory");
    let directory = folder.path().join("history");
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o077, 0, "{:?}", file.path());
    }
    symlink(&directory, folder.path().join("link")).unwrap();
    let error = SqliteHistory::new(folder.path().join("link")).open().unwrap_err();
    assert!(error.to_string().starts_with("expected a directory, found a symbolic link"), "{error}");
}

/// The disk is a mock that fails.
#[tokio::test]
async fn a_failing_disk_costs_entries_which_are_counted_and_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let fault = Arc::clone(&fails);
    let limits = buffer::Limits { entries: 100, ..buffer::Limits::default() };
    let fault = Arc::new(move || if fault.load(Ordering::Relaxed) { Err(io::Error::other("a mock")) } else { Ok(()) });
    let store = small(&folder).store(limits, Expiry::Clock(Clock::start()), fault).unwrap();
    let first = record(&store, received("ns", "hook"));
    store.flush().await.unwrap();
    fails.store(true, Ordering::Relaxed);
    let began = Instant::now();
    (0..300).for_each(|_| _ = record(&store, received("ns", "hook")));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    eventually("the history to fail", async || store.status().is_failing).await;
    assert!(store.status().dropped >= 200);
    assert!(store.event(first).await.unwrap().is_some(), "it can still be read");
    fails.store(false, Ordering::Relaxed);
    eventually("the history to be written again", async || {
        let id = record(&store, received("ns", "hook"));
        store.event(id).await.unwrap().is_some() && !store.status().is_failing
    })
    .await;
}

/// The disk is a mock that needs 100 ms for each write.
#[tokio::test]
async fn a_slow_disk_delays_no_request_and_loses_nothing_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let fault = Arc::new(|| {
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    });
    let store = small(&folder).store(buffer::Limits::default(), Expiry::Clock(Clock::start()), fault).unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..1500 {
        let sent = received("ns", "hook");
        let began = Instant::now();
        record(&store, sent);
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    assert!(slowest < Duration::from_millis(80), "{slowest:?}");
    store.flush().await.unwrap();
    assert_eq!(store.summary(EventQuery::default()).await.unwrap().total, 1500);
    assert_eq!((store.status().dropped, store.status().dropped_bodies), (0, 0));
}

#[tokio::test]
async fn a_directory_that_is_gone_is_used_again_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    record(&store, received("ns", "hook"));
    store.flush().await.unwrap();
    fs::remove_dir_all(folder.path().join("history")).unwrap();
    eventually("the history to fail", async || {
        record(&store, received("ns", "hook"));
        store.status().is_failing
    })
    .await;
    assert!(!folder.path().join("history").exists(), "the directory may be a file system that is not mounted");
    fs::create_dir(folder.path().join("history")).unwrap();
    eventually("the history to be written again", async || {
        let id = record(&store, received("ns", "hook"));
        store.event(id).await.is_ok_and(|event| event.is_some())
    })
    .await;
}

/// A file system in memory, which root can mount.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(at: std::path::PathBuf, options: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        mount(&at, options).then_some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).stderr(Stdio::null()).status();
    mount.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_full_disk_costs_entries_and_is_used_again_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::new(folder.path().join("disk"), "size=2m") else {
        println!("skipped: this test needs root");
        return;
    };
    let limits = buffer::Limits { entries: 500, ..buffer::Limits::default() };
    let history = SqliteHistory::new(disk.0.join("history")).max_bytes(64 << 20);
    let store = history.store(limits, Expiry::Clock(Clock::start()), Arc::new(|| Ok(()))).unwrap();
    let sent = || Received { body: Body::Whole(vec![b'1'; 8000].into()), ..received("ns", "hook") };
    eventually("the disk to be full, and entries to be left out", async || {
        (0..20).for_each(|_| _ = record(&store, sent()));
        store.status().is_failing && store.status().dropped > 0
    })
    .await;
    assert!(mount(&disk.0, "remount,size=64m"));
    eventually("the history to be written again", async || {
        let id = record(&store, sent());
        store.event(id).await.is_ok_and(|event| event.is_some()) && !store.status().is_failing
    })
    .await;
    drop(store);
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Prints figures. Run it alone.
#[tokio::test]
#[ignore = "it measures, and tests nothing"]
async fn measure_lists_of_200_000_events() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let words = ["apple", "pear", "plum", "fig", "date", "lime", "kiwi", "grape"];
    let began = Instant::now();
    for nth in 0..200_000_usize {
        let text: String = (0..120)
            .map(|at| format!("{} {}", words[(nth + at * 7) % 8], (nth * 31 + at) % 5000))
            .collect::<Vec<_>>()
            .join(" ");
        let body = Body::Whole(format!(r#"{{"order": "order{nth}", "text": "{text}"}}"#).into());
        let (namespace, webhook) = (format!("ns{}", nth % 10), format!("hook{}", nth % 100));
        let mut sent = Received { body, ..received(&namespace, &webhook) };
        if nth % 1000 == 7 {
            (sent.outcome, sent.status, sent.kind) = (Outcome::Failed, StatusCode::BAD_GATEWAY, Some("connect"));
        }
        record(&store, sent);
        // 2,000 a second.
        let due = Duration::from_micros(500 * nth as u64);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            tokio::time::sleep(early).await;
        }
    }
    let recorded = began.elapsed();
    let _ = store.flush().await;
    println!("recorded in {recorded:?}, written in {:?}: {:?}", began.elapsed(), store.status());
    let query = |change: &dyn Fn(&mut EventQuery)| {
        let mut query = EventQuery { limit: 100, ..EventQuery::default() };
        change(&mut query);
        query
    };
    for (name, query) in [
        ("all", query(&|_| ())),
        ("webhook", query(&|query| query.webhook = Some("hook7".into()))),
        (
            "webhook and failed",
            query(&|query| (query.webhook, query.outcomes) = (Some("hook7".into()), vec![Outcome::Failed])),
        ),
        ("namespace and 5xx", query(&|query| (query.namespace, query.status) = (Some("ns7".into()), Some((500, 599))))),
        (
            "namespace and 4xx, of which there are none",
            query(&|query| (query.namespace, query.status) = (Some("ns7".into()), Some((400, 499)))),
        ),
        ("4xx, of which there are none", query(&|query| query.status = Some((400, 499)))),
        ("failed", query(&|query| query.outcomes = vec![Outcome::Failed])),
        ("refused, of which there are none", query(&|query| query.outcomes = vec![Outcome::Refused])),
        ("a rare text", query(&|query| query.text = Some("order19999".into()))),
        ("a frequent text", query(&|query| query.text = Some("apple".into()))),
        (
            "a frequent text of a webhook",
            query(&|query| (query.text, query.webhook) = (Some("apple".into()), Some("hook7".into()))),
        ),
    ] {
        let began = Instant::now();
        let page = store.events(query.clone()).await;
        let listed = began.elapsed();
        let summary = store.summary(query).await.map(|summary| (summary.total, summary.is_at_least));
        println!(
            "{name}: list {listed:?} ({:?} rows), summary {:?} ({summary:?})",
            page.map(|page| page.events.len()),
            began.elapsed() - listed
        );
    }
    let began = Instant::now();
    println!("activity of {} webhooks in {:?}", store.activity(None).await.unwrap().len(), began.elapsed());
}

/// Prints how many events of 1 KiB a second the writer writes, each with its attempt. Run it alone.
#[tokio::test]
#[ignore = "it measures, and tests nothing"]
async fn measure_how_fast_events_are_written() {
    const EVENTS: usize = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let body = |nth: usize| {
        let words: String = (0..200).map(|at| format!("w{} ", (nth * 31 + at * 7) % 5000)).collect();
        Body::Whole(format!(r#"{{"id": "evt_{nth}", "text": "{}"}}"#, &words[..990]).into())
    };
    let began = Instant::now();
    for nth in 0..EVENTS {
        let sent = Received { body: body(nth), ..received("ns", "hook") };
        let stamp = Stamp { id: sent.id, at: sent.at };
        // Two thirds of the room are one namespace's.
        while store.shared.buffer.waiting() > 8_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        store.record(Entry::Attempt(Box::new(sample::attempt("ns", "hook", stamp, 1, Outcome::Delivered))));
        record(&store, sent);
    }
    store.flush().await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{:.0} events of 1 KiB a second: {:?}", EVENTS as f64 / seconds, store.status());
    assert_eq!((store.status().dropped, store.status().dropped_bodies), (0, 0));
}
