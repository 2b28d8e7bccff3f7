//! The thread that writes, and the one that syncs.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::files::Files;
use super::{Entry, failed, seconds};
use crate::clock::Clock;

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
    syncer: SyncSender<Vec<Arc<File>>>,
    /// Files that were written to since they were synced; the last one is the current one.
    unsynced: Vec<Arc<File>>,
    synced: Instant,
    tidied: Instant,
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
        let writer = Self { files, clock, is_stuck, syncer, unsynced: Vec::new(), synced: now, tidied: now };
        std::thread::Builder::new().name("dedup-sync".into()).spawn(move || sync(&to_sync))?;
        std::thread::Builder::new().name("dedup-write".into()).spawn(move || writer.run(&entries))?;
        Ok(())
    }

    fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            match entries.recv_timeout(if self.unsynced.is_empty() { TIDY } else { SYNC }) {
                Ok(first) => self.write(std::iter::once(first).chain(entries.try_iter().take(BATCH - 1)).collect()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.synced.elapsed() >= SYNC {
                self.pass_on();
            }
            if self.tidied.elapsed() >= TIDY {
                self.files.tidy(self.clock.for_expiry().map(seconds));
                self.tidied = Instant::now();
            }
        }
        for file in &self.unsynced {
            synced(file);
        }
    }

    fn write(&mut self, batch: Vec<Entry>) {
        let (records, written): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match self.files.append(&records, seconds(self.clock.for_stamps())) {
            Ok(()) => {
                if let Some(file) = self.files.open_file()
                    && !self.unsynced.last().is_some_and(|last| Arc::ptr_eq(last, file))
                {
                    self.unsynced.push(Arc::clone(file));
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
        if self.unsynced.is_empty() {
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

fn sync(to_sync: &Receiver<Vec<Arc<File>>>) {
    for files in to_sync {
        files.iter().for_each(|file| synced(file));
    }
}

fn synced(file: &File) {
    if let Err(error) = file.sync_data() {
        failed(format_args!("records cannot be synced: {error}"));
    }
}
