//! The writer thread and the syncer thread of the journal.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::files::{Files, JournalFile, Replaced};
use super::record::Record;
use crate::base::clock::Clock;
use crate::dedup::metrics;

/// The shortest time between two log lines about a failing disk. The metrics count every failure.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);

/// A record, and the sender that reports that it was written.
pub(super) type Entry = (Record, oneshot::Sender<()>);

/// The largest number of records in one write.
const BATCH: usize = 1024;

/// How often written records are synced.
const SYNC: Duration = Duration::from_secs(1);

/// How often expired files are looked for.
const TIDY: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    files: Files,
    clock: Arc<Clock>,
    is_stuck: Arc<AtomicBool>,
    syncer: SyncSender<Unsynced>,
    /// Files that [`Unsynced::sync`] could not remove.
    to_keep: Receiver<Vec<JournalFile>>,
    unsynced: Unsynced,
    synced: Instant,
    tidied: Instant,
}

#[derive(Default)]
struct Unsynced {
    /// Files with unsynced records; the last one is the current file.
    files: Vec<Arc<File>>,
    /// Files that may be removed once all of `files` are synced.
    then_remove: Vec<JournalFile>,
}

impl Writer {
    /// Starts both threads. They end when all senders of `entries` are dropped.
    pub(super) fn spawn(
        files: Files,
        clock: Arc<Clock>,
        entries: Receiver<Entry>,
        is_stuck: Arc<AtomicBool>,
    ) -> io::Result<()> {
        let (syncer, to_sync) = sync_channel::<Unsynced>(1);
        let (keep, to_keep) = channel();
        let (unsynced, now) = (Unsynced::default(), Instant::now());
        let writer = Self { files, clock, is_stuck, syncer, to_keep, unsynced, synced: now, tidied: now };
        // After the writer has ended, files that could not be removed are left for the next start.
        let sync = move || to_sync.iter().map(Unsynced::sync).for_each(|kept| drop(keep.send(kept)));
        std::thread::Builder::new().name("dedup-sync".into()).spawn(sync)?;
        std::thread::Builder::new().name("dedup-write".into()).spawn(move || writer.run(&entries))?;
        Ok(())
    }

    fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            match entries.recv_timeout(if self.unsynced.files.is_empty() { TIDY } else { SYNC }) {
                Ok(first) => self.write(std::iter::once(first).chain(entries.try_iter().take(BATCH - 1)).collect()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.synced.elapsed() >= SYNC {
                self.hand_to_syncer();
            }
            if self.tidied.elapsed() >= TIDY {
                self.to_keep.try_iter().for_each(|kept| self.files.keep(kept));
                if let Some(now) = self.clock.for_expiry() {
                    self.files.tidy(seconds(now));
                }
                self.tidied = Instant::now();
            }
        }
        // The next start reads the files that could not be removed.
        drop(self.unsynced.sync());
    }

    fn write(&mut self, batch: Vec<Entry>) {
        let (records, written): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let appended = self.files.append(&records, seconds(self.clock.for_stamps()));
        let Replaced { copies, originals } = self.files.take_replaced();
        self.unsynced.files.extend(copies);
        self.unsynced.then_remove.extend(originals);
        match appended {
            Ok(()) => {
                if let Some(file) = self.files.open_file()
                    && !self.unsynced.files.last().is_some_and(|last| Arc::ptr_eq(last, file))
                {
                    self.unsynced.files.push(Arc::clone(file));
                }
            }
            Err(error) => failed(format_args!("{} records cannot be written: {error}", records.len())),
        }
        self.is_stuck.store(false, Ordering::Relaxed);
        for written in written {
            // The waiting request may be gone.
            let _ = written.send(());
        }
    }

    /// Passes the unsynced files to the syncer. If the syncer is still busy, they wait for the next call.
    fn hand_to_syncer(&mut self) {
        if self.unsynced.files.is_empty() && self.unsynced.then_remove.is_empty() {
            return;
        }
        match self.syncer.try_send(std::mem::take(&mut self.unsynced)) {
            Ok(()) => self.synced = Instant::now(),
            Err(error) => self.unsynced = unsent(error),
        }
    }
}

fn unsent<T>(error: std::sync::mpsc::TrySendError<T>) -> T {
    match error {
        std::sync::mpsc::TrySendError::Full(files) | std::sync::mpsc::TrySendError::Disconnected(files) => files,
    }
}

impl Unsynced {
    /// Syncs, then removes. Returns the files that were not removed; they are removed when all their records have expired.
    #[must_use]
    fn sync(self) -> Vec<JournalFile> {
        // Every file is synced, even if another one fails.
        let failures = self.files.iter().filter(|file| !is_synced(file)).count();
        // After a failed sync the copies may be lost in a power cut, even if a later sync succeeds.
        match failures {
            0 => self.then_remove.into_iter().filter(|file| !file.remove()).collect(),
            _ => self.then_remove,
        }
    }
}

fn is_synced(file: &File) -> bool {
    let synced = file.sync_data();
    if let Err(error) = &synced {
        failed(format_args!("records cannot be synced: {error}"));
    }
    synced.is_ok()
}

/// Seconds since 1970. From the year 2106 on, events no longer expire.
pub(super) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Counts and logs a record that could not be written. The event was delivered, so its sender gets the answer all the
/// same.
pub(super) fn failed(error: impl std::fmt::Display) {
    metrics::disk_error();
    let Ok(mut logged) = LOGGED.try_lock() else { return };
    if logged.is_some_and(|at: Instant| at.elapsed() < LOG_INTERVAL) {
        return;
    }
    *logged = Some(Instant::now());
    tracing::error!(%error, "a processed event is remembered in memory only: if it is sent again after a restart, it is processed again");
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_replaced_file_is_removed_only_if_the_copies_are_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("original");
        let good = Arc::new(File::create(directory.path().join("copy")).unwrap());
        // Syncing a pipe fails.
        let bad = Arc::new(File::from(OwnedFd::from(std::io::pipe().unwrap().1)));
        let sync = |files: &[&Arc<File>]| {
            std::fs::write(&path, "").unwrap();
            let files = files.iter().map(|file| Arc::clone(file)).collect();
            Unsynced { files, then_remove: vec![JournalFile::at(path.clone())] }.sync().len()
        };
        assert_eq!((sync(&[&bad, &good]), path.exists()), (1, true));
        assert_eq!((sync(&[&good]), path.exists()), (0, false));
    }
}
