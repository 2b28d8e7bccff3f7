//! The thread that writes, and the one that syncs.

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

/// How often the log is told of a disk that fails; the metrics count each time.
const TELL: Duration = Duration::from_secs(1);

static TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// A record, and whom to tell that it was written.
pub(super) type Entry = (Record, oneshot::Sender<()>);

/// How many records are written at a time.
const BATCH: usize = 1024;

/// How often what was written is synced.
const SYNC: Duration = Duration::from_secs(1);

/// How often files are looked at when nothing is written.
const TIDY: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    files: Files,
    clock: Arc<Clock>,
    is_stuck: Arc<AtomicBool>,
    syncer: SyncSender<Unsynced>,
    /// What [`Unsynced::sync`] could not remove.
    to_keep: Receiver<Vec<JournalFile>>,
    unsynced: Unsynced,
    synced: Instant,
    tidied: Instant,
}

#[derive(Default)]
struct Unsynced {
    /// Files that were written to since they were synced; the last one is the current one.
    files: Vec<Arc<File>>,
    /// Files that may be removed once all of these are synced.
    then_remove: Vec<JournalFile>,
}

impl Writer {
    /// Writes what `entries` bring, until nobody can bring more.
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
        // Nobody keeps what comes when the writer is gone: the next start reads it.
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
                self.pass_on();
            }
            if self.tidied.elapsed() >= TIDY {
                self.to_keep.try_iter().for_each(|kept| self.files.keep(kept));
                if let Some(now) = self.clock.for_expiry() {
                    self.files.tidy(seconds(now));
                }
                self.tidied = Instant::now();
            }
        }
        // What is not removed is read by the next start.
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
            // Who waited for it may have hung up.
            let _ = written.send(());
        }
    }

    /// Has synced what was written, unless the last time is not over yet: then later.
    fn pass_on(&mut self) {
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
    /// Returns the files that are not removed, to be removed when the time of their records is over.
    #[must_use]
    fn sync(self) -> Vec<JournalFile> {
        // Of each, whatever becomes of the others.
        let failures = self.files.iter().filter(|file| !is_synced(file)).count();
        // What was copied out of the old files may be nowhere after a power cut, also if a later sync succeeds.
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

/// Since 1970. In the year 2106 every event will be remembered.
pub(super) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The event was delivered, so its sender is told so all the same.
pub(super) fn failed(error: impl std::fmt::Display) {
    metrics::disk_error();
    let Ok(mut told) = TOLD.try_lock() else { return };
    if told.is_some_and(|told: Instant| told.elapsed() < TELL) {
        return;
    }
    *told = Some(Instant::now());
    tracing::error!(%error, "an event that was taken is remembered in memory only: sent again after a restart, it is processed again");
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn what_was_replaced_is_removed_only_if_the_copies_are_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("original");
        let good = Arc::new(File::create(directory.path().join("copy")).unwrap());
        // No pipe can be synced.
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
