//! The thread that writes.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::activity::{self, Change};
use super::buffer::{Erasure, Work};
use super::file::OpenFile;
use super::keep::{self, Expiry, Limits};
use super::pace::{Pace, worked};
use super::sampling::Sampling;
use super::save::Ledger;
use super::schema::is_damage;
use super::shared::Shared;
use super::waiting::Waiting;
use super::{measure, number};
use crate::base::lock::lock;
use crate::base::log_limit::LogLimit;
use crate::event::EventId;
use crate::history::{HistoryStatus, Outcome};

/// How often old events are looked for, and the figures of the status are taken.
const TICK: Duration = Duration::from_secs(1);

/// How often that happens when nothing is written.
const IDLE: Duration = Duration::from_secs(30);

/// How long the writer waits after an error.
const BACKOFF: Duration = Duration::from_secs(1);

/// How often the log is emptied because events expire.
const TRUNCATING: Duration = Duration::from_secs(10);

/// How often entries are tried to be written.
const TRIES: usize = 2;

/// The most events of the last hour that are counted when a file is opened.
const RECOUNTED: usize = 200_000;

/// The nice value of the thread: it gets a quarter of a core that another thread wants too.
#[cfg(all(target_os = "linux", not(test)))]
const NICE: i32 = 5;

/// Makes a write slow, or fail: a mock of the disk.
#[cfg(test)]
pub(super) type Fault = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// The writer, and its file if that is open.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: PathBuf,
    pub(super) limits: Limits,
    pub(super) expiry: Expiry,
    pub(super) file: Option<OpenFile>,
    pub(super) sampling: Sampling,
    pub(super) pace: Pace,
    /// When old events were last looked for.
    pub(super) ticked: Option<Instant>,
    /// Whether there is more to do than to wait for entries.
    pub(super) is_busy: bool,
    /// Whether bytes that were erased, or have expired, may still be in the log.
    pub(super) must_truncate: bool,
    /// When the log was last emptied.
    pub(super) truncated: Option<Instant>,
    pub(super) log: LogLimit<()>,
    /// Makes a write slow, or fail.
    #[cfg(test)]
    pub(super) fault: Fault,
}

/// The entries of one event.
type Group = (EventId, Vec<Waiting>);

impl Writer {
    pub(super) fn run(mut self) {
        step_back();
        self.tick();
        let mut written = 0;
        loop {
            let began = worked();
            let patience = if self.is_busy || self.shared.is_failing() { TICK } else { IDLE };
            let work = self.shared.buffer.take(patience, self.limits.room.batch);
            let (until, is_last) = (work.until, work.is_last);
            written += work.entries.len() as u64;
            self.work(work);
            self.shared.buffer.settled(until);
            if is_last {
                return self.end();
            }
            if self.ticked.is_none_or(|ticked| ticked.elapsed() >= TICK) {
                self.tick();
            }
            self.shared.buffer.rest(&mut self.pace, written, began);
        }
    }

    fn work(&mut self, work: Work) {
        let entries = self.sample(work.entries);
        let count = entries.len();
        let groups = group(entries);
        for tried in 1..=TRIES {
            if groups.is_empty() || self.write(&groups, count) {
                break;
            }
            if tried == TRIES || self.shared.buffer.is_closed() {
                self.shared.buffer.gave_up(count);
                break;
            }
            self.shared.buffer.pause(BACKOFF);
        }
        for Erasure { id, done } in work.erasures {
            // Nobody may be waiting any more.
            let _ = done.send(self.erase(id));
        }
    }

    /// Writes entries in one transaction. Returns whether that succeeded.
    fn write(&mut self, groups: &[Group], count: usize) -> bool {
        let began = Instant::now();
        let save = |connection: &Connection, ledger: &mut Ledger, limits: &Limits| {
            keep::begin(connection, ledger, limits)?;
            let mut changes = Vec::with_capacity(groups.len());
            for (id, entries) in groups {
                changes.extend(ledger.save(connection, *id, entries)?);
            }
            keep::make_room(connection, ledger, limits.room.used)?;
            Ok(changes)
        };
        let written = self.transaction(save).or_else(|failure| {
            if !failure.is_out_of_room {
                return Err(failure);
            }
            self.transaction(|connection, ledger, limits| {
                keep::make_room(connection, ledger, limits.room.used / 10 * 9).map(drop)
            })?;
            self.transaction(save)
        });
        match written {
            Ok(changes) => {
                measure::written(count as u64, began.elapsed());
                self.count(&changes);
                if self.shared.set_failed(false) {
                    tracing::info!("the history is written again");
                }
                true
            }
            Err(failure) => {
                self.failed(&failure.error);
                false
            }
        }
    }

    fn count(&self, changes: &[Change]) {
        let mut activity = lock(&self.shared.activity);
        changes.iter().for_each(|change| activity.change(change));
    }

    /// Runs `change` in a transaction. When it fails, nothing has changed.
    fn transaction<T>(
        &mut self,
        change: impl FnOnce(&Connection, &mut Ledger, &Limits) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        self.shared.set_busy(true);
        let done = self.try_transaction(change);
        self.shared.set_busy(false);
        done
    }

    fn try_transaction<T>(
        &mut self,
        change: impl FnOnce(&Connection, &mut Ledger, &Limits) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        #[cfg(test)]
        (self.fault)()?;
        let limits = self.limits;
        let file = self.opened()?;
        let done = file.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            let done = change(&transaction, &mut file.ledger, &limits)?;
            file.ledger.write(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        let error = match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // The tables in memory may be ahead of the file now.
        match Ledger::read(&file.connection) {
            Ok(ledger) => file.ledger = ledger,
            Err(_) => self.file = None,
        }
        if is_damage(&error) {
            self.begin_anew();
        }
        let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        let is_at_limit = self.file.as_ref().is_some_and(|file| keep::is_at_limit(&file.connection, limits.room));
        Err(Failure { is_out_of_room: is_full && is_at_limit, error: error.to_string() })
    }

    /// The file, which is opened again if it was closed, moved or removed.
    fn opened(&mut self) -> io::Result<&mut OpenFile> {
        if self.file.as_ref().is_some_and(|file| file.identity != file.place.identity()) {
            tracing::error!(directory = %self.directory.display(), "the file of the history is gone: it is opened anew");
            self.file = None;
        }
        if self.file.is_none() {
            // A directory that is gone may be a file system that is not mounted: nothing is created in its place.
            self.directory.metadata()?;
            let file = OpenFile::open(&self.directory, &self.limits)?;
            self.shared.next_file();
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("the history is closed"))
    }

    /// Moves a damaged file aside. The next write begins a new one.
    fn begin_anew(&mut self) {
        if let Some(OpenFile { place, connection, .. }) = self.file.take() {
            drop(connection);
            if let Err(error) = place.move_aside() {
                self.failed(&error.to_string());
            }
            self.shared.next_file();
        }
    }

    fn failed(&self, error: &str) {
        self.shared.set_failed(true);
        measure::failed();
        if let Some(left_out) = self.log.admit(()) {
            tracing::error!(%error, left_out, directory = %self.directory.display(), "the history cannot be written; it is tried again");
        }
    }

    /// Erases an event, also from the log.
    fn erase(&mut self, id: EventId) -> io::Result<bool> {
        let erased = self.transaction(|connection, ledger, _| ledger.erase(connection, id));
        let erased = erased.map_err(|failure| {
            self.failed(&failure.error);
            io::Error::other(failure.error)
        })?;
        if erased {
            self.must_truncate = true;
            self.truncate();
        }
        Ok(erased)
    }

    /// Copies the log into the file, and empties it. Waits 2.5 s at most for readers.
    fn truncate(&mut self) {
        let Some(file) = &self.file else { return };
        self.truncated = Some(Instant::now());
        self.shared.set_busy(true);
        let checkpoint = file.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.shared.set_busy(false);
        if matches!(checkpoint, Ok(0)) {
            self.must_truncate = false;
        }
    }

    /// Removes old events, keeps the files within their room, and takes the figures.
    fn tick(&mut self) {
        self.ticked = Some(Instant::now());
        if self.shared.take_damage() {
            self.begin_anew();
        }
        let now = self.expiry.now();
        let kept = self.transaction(|connection, ledger, limits| {
            keep::begin(connection, ledger, limits)?;
            let (expired, is_more) = match now {
                Some(now) => keep::expire(connection, ledger, limits, now)?,
                None => (0, false),
            };
            keep::make_room(connection, ledger, limits.room.used)?;
            let is_more =
                is_more | keep::compact(connection, ledger, keep::SPARSE)? | keep::shrink(connection, limits.room)?;
            Ok((expired, is_more))
        });
        match kept {
            Ok((expired, is_more)) => {
                self.must_truncate |= expired > 0;
                self.is_busy = is_more || self.must_truncate;
                self.shared.set_failed(false);
            }
            Err(failure) => self.failed(&failure.error),
        }
        let log_bytes = self.file.as_ref().map_or(0, |file| file.place.log_bytes());
        let is_due = self.truncated.is_none_or(|truncated| truncated.elapsed() >= TRUNCATING);
        if (self.must_truncate && is_due) || log_bytes > self.limits.room.log / 4 * 3 {
            self.truncate();
        }
        lock(&self.shared.activity).prune(SystemTime::now());
        self.take_figures();
    }

    fn take_figures(&self) {
        let Some(file) = &self.file else { return };
        let oldest = file.connection.query_row("SELECT min(n) FROM events", [], |row| row.get::<_, Option<i64>>(0));
        let status = HistoryStatus {
            events: file.ledger.pools.events(),
            bytes: file.place.bytes(),
            max_bytes: self.limits.max_bytes,
            oldest: oldest.ok().flatten().map(number::time),
            ..HistoryStatus::default()
        };
        measure::status(&status);
        self.shared.set_status(status);
    }

    /// Counts the last hour anew.
    pub(super) fn recount(&self) {
        let Some(file) = &self.file else { return };
        if let Ok(counts) = activity::recount(&file.connection, SystemTime::now(), RECOUNTED) {
            *lock(&self.shared.activity) = counts;
        }
    }

    fn end(mut self) {
        self.truncate();
    }

    /// Leaves out most of a flood of refused requests. They are counted in the activity nevertheless.
    fn sample(&mut self, entries: Vec<Waiting>) -> Vec<Waiting> {
        self.sampling.begin(Instant::now());
        let (kept, left_out): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| match entry {
            Waiting::Received(received, _) if received.outcome == Outcome::Refused => {
                self.sampling.keeps(received.webhook.namespace())
            }
            _ => true,
        });
        measure::dropped("refused", left_out.len() as u64);
        let changes = left_out.iter().filter_map(|entry| match entry {
            Waiting::Received(received, _) => Some(Change {
                webhook: received.webhook.clone(),
                at: received.at,
                before: None,
                outcome: received.outcome,
                duration: received.duration,
            }),
            _ => None,
        });
        self.count(&changes.collect::<Vec<_>>());
        kept
    }
}

/// Lets the threads that answer requests go first where all cores are busy: then the history is behind, and leaves out what it
/// cannot keep up with. Tests keep all cores busy, and wait for what they wrote.
fn step_back() {
    // Elsewhere than on Linux, this would be the priority of the whole process.
    #[cfg(all(target_os = "linux", not(test)))]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the history is written with the priority of the requests");
    }
}

/// Why a transaction failed.
struct Failure {
    error: String,
    /// The file is as large as it may be.
    is_out_of_room: bool,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error: error.to_string(), is_out_of_room: false }
    }
}

/// The entries by event, in the order in which the events came.
fn group(entries: Vec<Waiting>) -> Vec<Group> {
    let mut places = HashMap::with_capacity(entries.len());
    let mut groups: Vec<Group> = Vec::with_capacity(entries.len());
    for entry in entries {
        let id = entry.id();
        let place = *places.entry(id).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, group)) => group.push(entry),
            None => groups.push((id, vec![entry])),
        }
    }
    groups
}
