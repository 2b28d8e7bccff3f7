//! The copy of the configuration on disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;
use tower_webhook::Registry;
use tower_webhook::source::EtcdOptions;

use crate::support::etcd::{Etcd, Version};
use crate::support::{against_each_etcd, follow, follow_with, lists, live, reached, ready, stamp, stamped, until};

against_each_etcd!(
    without_etcd_the_copy_serves_and_is_gone_on_from,
    no_value_of_a_copy_is_served_for_a_bad_one_of_another_history,
    the_last_good_value_outlives_a_restart,
    changes_that_were_compacted_meanwhile_are_caught_up_with,
    a_damaged_copy_is_reported_and_not_used,
    no_secret_from_the_environment_is_saved,
    a_directory_that_cannot_be_written_is_reported,
    files_planted_beside_the_copy_are_neither_read_nor_written,
);

fn options(etcd: &Etcd, directory: &Path) -> EtcdOptions {
    EtcdOptions::new([etcd.endpoint()]).saved_copy(directory)
}

/// Waits until the copy contains a text.
async fn saved(directory: &TempDir, text: &str) {
    let file = directory.path().join("tower-webhook/etcd.saved");
    for _ in 0..400 {
        let bytes = std::fs::read(&file).unwrap_or_default();
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{text:?} was not saved");
}

async fn without_etcd_the_copy_serves_and_is_gone_on_from(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(version).await;
    etcd.put("global/connections/db", r#"{"type": "http", "url": "http://example.com/"}"#).await;
    etcd.put("default/webhooks/linked", r#"{"module": "discard", "connection": "db", "metadata": 3}"#).await;
    etcd.put("default/foreign", "x").await;
    let revision = etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    saved(&directory, &stamped(1)).await;
    drop(following);
    etcd.kill();

    let (store, _following) = follow(options(&etcd, directory.path()));
    ready(&store).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    assert_eq!(stamp(&store, "default", "linked"), Some(3));
    let status = store.status();
    assert_eq!((status.snapshot.revision(), status.snapshot.counts().refused), (revision, 0));
    assert!(status.report.from_saved_copy && status.ignored_keys == 1 && status.staleness().is_none());

    etcd.run().await;
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    live(&store).await;
    assert_eq!(stamp(&store, "default", "a"), Some(2));
    assert_eq!(lists(&store), 0, "the watch goes on from the copy");
    until("it is not audited", &store, |store| store.status().report.audits > 0).await;
    assert!(!store.status().report.from_saved_copy);
}

async fn the_last_good_value_outlives_a_restart(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/a", r#"{"modul": 1}"#).await).await;
    reached(&store, etcd.put("default/webhooks/a", r#"{"modul": 2}"#).await).await;
    saved(&directory, r#"{"modul": 2}"#).await;
    drop(following);
    etcd.kill();

    let (store, _following) = follow(options(&etcd, directory.path()));
    ready(&store).await;
    until("the last good value does not serve", &store, |store| {
        stamp(store, "default", "a") == Some(1) && store.snapshot().counts().refused == 1
    })
    .await;
    etcd.run().await;
    reached(&store, etcd.put("default/webhooks/a", stamped(3)).await).await;
    assert_eq!((stamp(&store, "default", "a"), store.snapshot().counts().refused), (Some(3), 0));
}

async fn no_value_of_a_copy_is_served_for_a_bad_one_of_another_history(version: Version) {
    const BAD: &str = r#"{"modul": 1}"#;
    let directory = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/a", BAD).await).await;
    saved(&directory, BAD).await;
    drop(following);
    etcd.kill();
    etcd.wipe();
    etcd.run().await;
    // The key now has other metadata: two histories with the same metadata and values cannot be distinguished.
    etcd.put("default/webhooks/a", BAD).await;
    etcd.put("default/webhooks/new", stamped(2)).await;

    for _ in 0..2 {
        let (store, _following) = follow(options(&etcd, directory.path()));
        until("the new history is not served", &store, |store| stamp(store, "default", "new") == Some(2)).await;
        assert_eq!((stamp(&store, "default", "a"), store.snapshot().counts().fenced), (None, 1));
        live(&store).await;
        // The copy that remains does not serve the old value either.
        saved(&directory, "webhooks/new").await;
    }
}

async fn changes_that_were_compacted_meanwhile_are_caught_up_with(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/gone", stamped(1)).await;
    etcd.put("default/webhooks/bad", stamped(1)).await;
    let (store, following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    reached(&store, etcd.put("default/webhooks/bad", "{").await).await;
    saved(&directory, "webhooks/bad").await;
    sleep(Duration::from_secs(7)).await;
    drop(following);
    etcd.delete("default/webhooks/gone").await;
    let revision = etcd.put("default/webhooks/new", stamped(2)).await;
    etcd.compact(revision).await;

    let (store, _following) = follow(options(&etcd, directory.path()));
    reached(&store, revision).await;
    assert_eq!(lists(&store), 1);
    assert_eq!(stamp(&store, "default", "gone"), None);
    assert_eq!(stamp(&store, "default", "new"), Some(2));
    assert_eq!(stamp(&store, "default", "bad"), Some(1), "the last good value");
}

async fn a_damaged_copy_is_reported_and_not_used(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    saved(&directory, &stamped(1)).await;
    drop(following);
    let file = directory.path().join("tower-webhook/etcd.saved");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let (store, _following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    assert_eq!((stamp(&store, "default", "a"), lists(&store)), (Some(1), 1));
    assert!(!store.status().report.from_saved_copy);
    // The copy is replaced.
    reached(&store, etcd.put("default/webhooks/a", stamped(77)).await).await;
    saved(&directory, &stamped(77)).await;
}

async fn no_secret_from_the_environment_is_saved(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(version).await;
    let value = r#"{"module": "discard", "authorization": "Bearer {$TOKEN}"}"#;
    etcd.put("default/webhooks/a", value).await;
    let registry = Registry::builtin().variables(|name| (name == "TOKEN").then(|| "hunter2".to_owned()));
    let (store, _following) = follow_with(options(&etcd, directory.path()), registry);
    live(&store).await;
    saved(&directory, "{$TOKEN}").await;
    let bytes = std::fs::read(directory.path().join("tower-webhook/etcd.saved")).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}

async fn a_directory_that_cannot_be_written_is_reported(version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(options(&etcd, &blocked));
    live(&store).await;
    until("it is not told", &store, |store| store.status().report.copy_error.is_some()).await;
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
}

/// The directory is on a volume that every user may write to.
async fn files_planted_beside_the_copy_are_neither_read_nor_written(version: Version) {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let victim = elsewhere.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let plant = |name: &str| std::os::unix::fs::symlink(&victim, directory.path().join(name)).unwrap();
    // The paths that the copy and its temporary file would have without a directory of our own.
    plant("etcd.saved");
    plant(&format!(".etcd.saved.{}", std::process::id()));
    let (store, following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    saved(&directory, &stamped(1)).await;
    drop(following);
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");

    // A link in place of that directory leads to a copy with other values.
    let own = directory.path().join("tower-webhook");
    let planted = elsewhere.path().join("planted");
    std::fs::rename(&own, &planted).unwrap();
    std::os::unix::fs::symlink(&planted, &own).unwrap();
    let (store, _following) = follow(options(&etcd, directory.path()));
    live(&store).await;
    assert!(!store.status().report.from_saved_copy && lists(&store) == 1, "the planted copy is served");
    until("it is not told", &store, |store| store.status().report.copy_error.is_some()).await;
    let file = planted.join("etcd.saved");
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before, "the planted copy is written to");
}
