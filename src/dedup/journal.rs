//! The journal: taken events on disk.
//!
//! The journal consists of files with records of a fixed size, each with its own checksum, so that damage to one record
//! affects no other. Records are only appended, to the newest file. The oldest file is removed as a whole; records in it
//! that are still remembered are appended to the newest file before. One thread writes and another one syncs, so that a
//! disk that hangs delays neither the runtime nor, for long, an answer.

mod files;
mod record;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::files::Files;
use self::record::Record;
#[cfg(fuzzing)]
pub(crate) use self::record::fuzz;
use self::writer::{Entry, Writer, failed, seconds};
use super::durable::Durable;
use super::rule::EventDigest;
use super::table::{Answer, Taken};
use crate::base::clock::Clock;

/// The largest number of records that wait to be written.
const QUEUE: usize = 16 * 1024;

/// How long an answer waits for its record to be written. After that it goes out without the record.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Journal {
    writer: SyncSender<Entry>,
    clock: Arc<Clock>,
    /// Set after an answer has waited in vain: no further answer waits until the writer has written again.
    is_stuck: Arc<AtomicBool>,
}

impl Journal {
    /// Opens the journal and calls `found` for each record, roughly the oldest first, expired ones and copies included.
    /// The journal keeps the records for which `is_remembered` returns `true`, which are at most about `max_records`.
    pub(crate) fn open(
        directory: &Path,
        max_records: usize,
        clock: Clock,
        is_remembered: impl Fn(EventDigest, Answer) -> bool + Send + 'static,
        found: impl FnMut(EventDigest, Taken),
    ) -> io::Result<Self> {
        let clock = Arc::new(clock);
        let is_remembered = Box::new(move |record: &Record| is_remembered(record.event, record.taken.answer));
        let files = Files::open(directory, max_records, seconds(clock.for_stamps()), is_remembered, found)?;
        let (writer, entries) = sync_channel(QUEUE);
        let is_stuck = Arc::<AtomicBool>::default();
        Writer::spawn(files, Arc::clone(&clock), entries, Arc::clone(&is_stuck))?;
        Ok(Self { writer, clock, is_stuck })
    }
}

impl Durable for Journal {
    fn time_for_expiry(&self) -> Option<u32> {
        self.clock.for_expiry().map(seconds)
    }

    fn append(&self, event: EventDigest, answer: Answer, ttl: u32) -> BoxFuture<'static, ()> {
        let at = seconds(self.clock.for_stamps());
        let taken = Taken { answer, at, until: at.saturating_add(ttl) };
        let (written, was_written) = oneshot::channel();
        if self.writer.try_send((Record { event, taken }, written)).is_err() {
            failed("the disk does not keep up");
        }
        let is_stuck = Arc::clone(&self.is_stuck);
        Box::pin(async move {
            if is_stuck.load(Ordering::Relaxed) {
                return;
            }
            // The writer has already logged its errors.
            if timeout(PATIENCE, was_written).await.is_err() {
                is_stuck.store(true, Ordering::Relaxed);
                failed("the disk hangs");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::record::sample;
    use super::*;

    fn open(directory: &Path) -> (Journal, Vec<u8>) {
        let mut found = Vec::new();
        let journal = Journal::open(directory, 1000, Clock::start(), |_, _| true, |event, _| found.push(event.0[0]));
        (journal.unwrap(), found)
    }

    #[tokio::test]
    async fn a_record_is_in_the_file_before_its_answer_goes_out() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        for number in 0..50 {
            let Record { event, taken } = sample(number, 0, 0);
            journal.append(event, taken.answer, 60).await;
            let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
            assert_eq!(files.sum::<u64>() as usize, (usize::from(number) + 1) * record::SIZE, "before the answer");
        }
        drop(journal);
        assert_eq!(open(folder.path()).1, (0..50).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn a_disk_that_fails_delays_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        // No file can be created any more.
        std::fs::remove_dir_all(folder.path()).unwrap();
        let began = std::time::Instant::now();
        let Record { event, taken } = sample(1, 0, u32::MAX);
        journal.append(event, taken.answer, 60).await;
        assert!(began.elapsed() < PATIENCE, "an error does not wait for the timeout");
        std::fs::create_dir(folder.path()).unwrap();
        journal.append(event, taken.answer, 60).await;
        drop(journal);
        assert_eq!(open(folder.path()).1, [1], "records are written again once the directory is back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_delays_one_answer_by_the_timeout_and_no_others() {
        let (writer, hangs) = sync_channel(2);
        let journal = Journal { writer, clock: Arc::new(Clock::start()), is_stuck: Arc::default() };
        let Record { event, taken } = sample(1, 0, u32::MAX);
        let began = tokio::time::Instant::now();
        journal.append(event, taken.answer, 60).await;
        assert_eq!(began.elapsed(), PATIENCE);
        for _ in 0..10 {
            journal.append(event, taken.answer, 60).await;
        }
        assert_eq!(began.elapsed(), PATIENCE, "the others do not wait, and the queue does not grow");
        assert_eq!(hangs.try_iter().count(), 2);
    }
}
