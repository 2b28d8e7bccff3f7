//! The thread that writes, and the one that syncs.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::files::{Files, Replaced};
use super::record::Record;
use crate::base::clock::Clock;
use crate::base::telemetry;

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
    unsynced: Unsynced,
    synced: Instant,
    tidied: Instant,
}

#[derive(Default)]
struct Unsynced {
    /// Files that were written to since they were synced; the last one is the current one.
    files: Vec<Arc<File>>,
    /// Files that may be removed once all of these are synced.
    then_remove: Vec<PathBuf>,
}

impl Writer {
    /// Writes what `entries` bring, until nobody can bring more.
    pub(super) fn spawn(
        files: Files,
        clock: Arc<Clock>,
        entries: Receiver<Entry>,
        is_stuck: Arc<AtomicBool>,
    ) -> io::Result<()> {
        let (syncer, to_sync) = sync_channel(1);
        let now = Instant::now();
        let writer = Self { files, clock, is_stuck, syncer, unsynced: Unsynced::default(), synced: now, tidied: now };
        std::thread::Builder::new().name("dedup-sync".into()).spawn(move || to_sync.iter().for_each(Unsynced::sync))?;
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
                if let Some(now) = self.clock.for_expiry() {
                    self.files.tidy(seconds(now));
                }
                self.tidied = Instant::now();
            }
        }
        self.unsynced.sync();
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
    fn sync(self) {
        // Of each, whatever becomes of the others.
        let failures = self.files.iter().filter(|file| !is_synced(file)).count();
        // Else what was copied out of the old files may be nowhere after a power cut. The next start reads them.
        if failures > 0 {
            return;
        }
        for path in self.then_remove {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a file that is not needed any more cannot be removed");
            }
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
    telemetry::dedup_disk_error();
    let Ok(mut told) = TOLD.try_lock() else { return };
    if told.is_some_and(|told: Instant| told.elapsed() < TELL) {
        return;
    }
    *told = Some(Instant::now());
    tracing::error!(%error, "an event that was taken is remembered in memory only: sent again after a restart, it is processed again");
}
