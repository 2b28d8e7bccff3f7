//! The files of the journal: reading, appending, and removing the oldest ones.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{Record, SIZE};
use crate::base::directory;
use crate::dedup::metrics;
use crate::dedup::rule::EventDigest;
use crate::dedup::table::Taken;

/// The name of a file is this prefix and the second in which the file was begun. Another format gets another prefix.
const PREFIX: &str = "taken-v1-";

/// The limits of a file, which is later removed as a whole: this many records, and this many seconds. A file gets an eighth
/// of the records that are remembered, between the minimum and the maximum.
pub(super) const MAX_RECORDS: usize = 128 * 1024;
pub(super) const MIN_RECORDS: usize = 4 * 1024;
pub(super) const MAX_AGE: u32 = 3600;

/// The largest number of records that are copied in one write.
const COPY: usize = 1024;

/// Whether the event of a record is still remembered.
pub(super) type IsRemembered = Box<dyn Fn(&Record) -> bool + Send>;

pub(super) struct Files {
    directory: PathBuf,
    is_remembered: IsRemembered,
    /// The newest last.
    files: VecDeque<JournalFile>,
    /// The newest file, open for appending.
    current: Option<Arc<File>>,
    max_records: usize,
    replaced: Replaced,
    /// Files that were replaced but not removed, because the copies of their records may not be on disk.
    kept: Vec<JournalFile>,
    _lock: File,
}

/// The work that remains after records were copied to make room.
#[derive(Default)]
pub(super) struct Replaced {
    /// Files with copied records, to be synced.
    pub(super) copies: Vec<Arc<File>>,
    /// Files to be removed after that.
    pub(super) originals: Vec<JournalFile>,
}

#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    /// The second in which the file was begun; larger for a newer file.
    begun: u32,
    records: usize,
    /// The expiry of the record that expires last.
    until: u32,
}

impl Files {
    /// Opens and locks the directory, which is created if it is missing, and calls `found` for each record in it.
    pub(super) fn open(
        directory: &Path,
        max_records: usize,
        now: u32,
        is_remembered: IsRemembered,
        mut found: impl FnMut(EventDigest, Taken),
    ) -> io::Result<Self> {
        let at = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        directory::create(directory).map_err(|error| at(directory, error))?;
        let lock = directory::lock(directory).map_err(|error| at(directory, error))?;
        let mut this = Self {
            directory: directory.to_owned(),
            is_remembered,
            files: VecDeque::new(),
            current: None,
            max_records,
            replaced: Replaced::default(),
            kept: Vec::new(),
            _lock: lock,
        };
        let mut begun = this.list().map_err(|error| at(directory, error))?;
        begun.sort_unstable();
        for begun in begun {
            let path = this.path(begun);
            match read(path.clone(), begun, &mut found) {
                Ok(file) => this.files.push_back(file),
                // An earlier store of this process may be removing a replaced file just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path, error)),
            }
        }
        this.reopen_last(now).map_err(|error| at(directory, error))?;
        Ok(this)
    }

    /// Appends all records, or none.
    pub(super) fn append(&mut self, records: &[Record], now: u32) -> io::Result<()> {
        let newest = self.files.back().map(|file| file.begun);
        self.current(now)?;
        if self.files.back().map(|file| file.begun) != newest {
            self.make_room(now);
        }
        self.write(records, now)
    }

    fn write(&mut self, records: &[Record], now: u32) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(records.len() * SIZE);
        records.iter().for_each(|record| record.encode(&mut bytes));
        let file = self.current(now)?;
        let Some(last) = self.files.back_mut() else { return Err(io::Error::other("the file is not listed")) };
        let mut target = &*file;
        if let Err(error) = target.write_all(&bytes) {
            // A partial record would misalign all records after it.
            if file.set_len((last.records * SIZE) as u64).is_err() {
                self.current = None;
            }
            return Err(error);
        }
        last.records += records.len();
        last.until = records.iter().map(|record| record.taken.until).fold(last.until, u32::max);
        Ok(())
    }

    /// The file that records are appended to.
    pub(super) fn open_file(&self) -> Option<&Arc<File>> {
        self.current.as_ref()
    }

    /// The work that remains after the last calls of [`append`](Self::append).
    pub(super) fn take_replaced(&mut self) -> Replaced {
        std::mem::take(&mut self.replaced)
    }

    /// Keeps replaced files until all their records have expired, because their copies may not be on disk. The records are
    /// not copied again: on a failing disk, that would only fill it.
    pub(super) fn keep(&mut self, originals: Vec<JournalFile>) {
        self.kept.extend(originals);
    }

    /// Removes the files whose records have all expired.
    pub(super) fn tidy(&mut self, now: u32) {
        let newest = self.files.back().map(|file| file.begun);
        // The newest file may be open. It is removed later, when another one is the newest.
        self.files.retain(|file| file.until >= now || Some(file.begun) == newest || !file.remove());
        self.kept.retain(|file| file.until >= now || !file.remove());
    }

    /// Replaces the oldest files while there are more than twice as many records as can be remembered. Records that are
    /// still remembered are copied first, so that a webhook with a flood of events makes the journal forget no event of
    /// another webhook. No more records are copied than have arrived, and the number of records on disk is bounded.
    fn make_room(&mut self, now: u32) {
        let most = self.max_records.max(self.file_records()).saturating_mul(2);
        for _ in 1..self.files.len() {
            if self.files.iter().map(|file| file.records).sum::<usize>() <= most {
                return;
            }
            let Some(oldest) = self.files.front().map(|file| file.path.clone()) else { return };
            if let Err(error) = self.copy_remembered(&oldest, now) {
                tracing::warn!(path = %oldest.display(), %error, "a file of the dedup journal is kept: its records that are still needed cannot be copied");
                return;
            }
            self.replaced.originals.extend(self.files.pop_front());
        }
    }

    fn copy_remembered(&mut self, path: &Path, now: u32) -> io::Result<()> {
        let mut remembered = Vec::new();
        let read = records(path, |record| remembered.extend(record.filter(&self.is_remembered)));
        if let Err(error) = read {
            // The file is replaced all the same: reading it again would fail again.
            tracing::error!(path = %path.display(), %error, "cannot read records of the dedup journal: events that are sent again after a restart may be processed again");
        }
        for some in remembered.chunks(COPY) {
            self.write(some, now)?;
            if let Some(file) = &self.current
                && !self.replaced.copies.last().is_some_and(|last| Arc::ptr_eq(last, file))
            {
                self.replaced.copies.push(Arc::clone(file));
            }
        }
        Ok(())
    }

    /// The largest number of records in a file.
    fn file_records(&self) -> usize {
        (self.max_records / 8).clamp(MIN_RECORDS, MAX_RECORDS)
    }

    fn has_room(&self, file: &JournalFile, now: u32) -> bool {
        file.records < self.file_records() && now.saturating_sub(file.begun) < MAX_AGE
    }

    /// The file to append to: a new one if there is none, or if the newest is full or too old.
    fn current(&mut self, now: u32) -> io::Result<Arc<File>> {
        if let (Some(open), Some(last)) = (&self.current, self.files.back())
            && self.has_room(last, now)
        {
            return Ok(Arc::clone(open));
        }
        let begun = self.files.back().map_or(now, |last| now.max(last.begun.saturating_add(1)));
        let path = self.path(begun);
        let file = Arc::new(OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?);
        if let Err(error) = directory::sync(&self.directory) {
            // Otherwise each try would leave one more file.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        self.files.push_back(JournalFile { path, begun, records: 0, until: 0 });
        self.current = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Continues the newest file, so that restarts do not leave many small ones.
    fn reopen_last(&mut self, now: u32) -> io::Result<()> {
        let Some(last) = self.files.back() else { return Ok(()) };
        if !self.has_room(last, now) {
            return Ok(());
        }
        let file = OpenOptions::new().append(true).open(&last.path)?;
        // Cuts off the partial record that a crash has left.
        file.set_len((last.records * SIZE) as u64)?;
        self.current = Some(Arc::new(file));
        Ok(())
    }

    /// The second in which each file was begun.
    fn list(&self) -> io::Result<Vec<u32>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            // Other files are left alone.
            all.extend(name.to_str().and_then(begun));
        }
        Ok(all)
    }

    fn path(&self, begun: u32) -> PathBuf {
        self.directory.join(name(begun))
    }
}

impl JournalFile {
    /// An empty file.
    #[cfg(test)]
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, begun: 0, records: 0, until: 0 }
    }

    /// Removes the file. Returns `false` if that failed.
    pub(super) fn remove(&self) -> bool {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a file of the dedup journal that is not needed any more");
                false
            }
            _ => true,
        }
    }
}

fn name(begun: u32) -> String {
    format!("{PREFIX}{begun:010}")
}

fn begun(of: &str) -> Option<u32> {
    let begun = of.strip_prefix(PREFIX)?.parse().ok()?;
    (name(begun) == of).then_some(begun)
}

/// Reads a file, and calls `found` for each record in it.
fn read(path: PathBuf, begun: u32, found: &mut impl FnMut(EventDigest, Taken)) -> io::Result<JournalFile> {
    let (mut file, mut damaged) = (JournalFile { path: path.clone(), begun, records: 0, until: 0 }, 0);
    records(&path, |record| {
        file.records += 1;
        match record {
            Some(Record { event, taken }) => {
                file.until = file.until.max(taken.until);
                found(event, taken);
            }
            None => damaged += 1,
        }
    })?;
    if damaged > 0 {
        metrics::damaged(damaged);
        tracing::error!(path = %path.display(), damaged, "damaged records in the dedup journal: their events, if sent again, may be processed again");
    }
    Ok(file)
}

/// Calls `found` for each record of a file, with `None` for a damaged one. Stops at the first read error.
fn records(path: &Path, mut found: impl FnMut(Option<Record>)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?);
    let mut bytes = [0; SIZE];
    loop {
        match reader.read_exact(&mut bytes) {
            Ok(()) => found(Record::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;
    use crate::dedup::journal::record::sample;

    struct Fixture(TempDir);

    impl Fixture {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn directory(&self) -> PathBuf {
            self.0.path().join("spool/dedup")
        }

        /// Opens the journal, and returns the numbers of the samples in it.
        fn open_at(&self, max_records: usize, now: u32) -> (Files, Vec<u8>) {
            let mut found = Vec::new();
            let files = Files::open(&self.directory(), max_records, now, Box::new(|_| true), |event, taken| {
                assert_eq!(taken, sample(event.0[0], taken.at, taken.until).taken);
                found.push(event.0[0]);
            });
            (files.unwrap(), found)
        }

        fn open(&self) -> (Files, Vec<u8>) {
            self.open_at(1000, 1000)
        }

        /// The files with records, the oldest first.
        fn files(&self) -> Vec<PathBuf> {
            let entries = fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries.filter(|path| !path.ends_with(directory::LOCK)).collect();
            files.sort();
            files
        }
    }

    fn open_error(fixture: &Fixture) -> io::Error {
        Files::open(&fixture.directory(), 10, 1000, Box::new(|_| true), |_, _| {}).err().unwrap()
    }

    fn samples(numbers: std::ops::Range<u8>) -> Vec<Record> {
        numbers.map(|number| sample(number, 1000, 5000)).collect()
    }

    #[test]
    fn records_are_found_after_a_restart() {
        let fixture = Fixture::new();
        let (mut files, found) = fixture.open();
        assert!(found.is_empty());
        files.append(&samples(0..3), 1000).unwrap();
        files.append(&samples(3..4), 1000).unwrap();
        drop(files);
        let (mut files, found) = fixture.open();
        assert_eq!(found, [0, 1, 2, 3]);
        files.append(&samples(4..5), 1001).unwrap();
        drop(files);
        assert_eq!(fixture.open().1, [0, 1, 2, 3, 4]);
        assert_eq!(fixture.files().len(), 1, "a restart alone begins no new file");
    }

    #[test]
    fn the_directory_and_the_files_are_private() {
        let fixture = Fixture::new();
        fixture.open().0.append(&samples(0..1), 1000).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode(&fixture.directory()), 0o700);
        assert_eq!(mode(&fixture.files()[0]), 0o600);
        assert_eq!(mode(&fixture.directory().join(directory::LOCK)), 0o600);
    }

    #[test]
    fn a_file_cut_anywhere_loses_only_the_records_cut_off() {
        let fixture = Fixture::new();
        fixture.open().0.append(&samples(0..4), 1000).unwrap();
        let path = fixture.files().remove(0);
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), 4 * SIZE);
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let left: Vec<u8> = (0..(cut / SIZE) as u8).collect();
            let (mut files, found) = fixture.open();
            assert_eq!(found, left, "cut at {cut}");
            files.append(&samples(9..10), 1000).unwrap();
            drop(files);
            assert_eq!(fixture.open().1, [&left[..], &[9]].concat(), "appended after a cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_costs_its_own_record() {
        let fixture = Fixture::new();
        fixture.open().0.append(&samples(0..4), 1000).unwrap();
        let path = fixture.files().remove(0);
        let whole = fs::read(&path).unwrap();
        for flip in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[flip] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let expected: Vec<u8> = (0..4).filter(|number| usize::from(*number) != flip / SIZE).collect();
            let (mut files, found) = fixture.open();
            assert_eq!(found, expected, "flipped at {flip}");
            files.append(&samples(9..10), 1000).unwrap();
            drop(files);
            assert_eq!(fixture.open().1, [&expected[..], &[9]].concat(), "flipped at {flip}");
        }
    }

    #[test]
    fn a_file_is_removed_when_all_its_records_have_expired() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open();
        files.append(&[sample(0, 1000, 5000), sample(1, 1000, 9000)], 1000).unwrap();
        files.append(&[sample(2, 1000 + MAX_AGE, 50_000)], 1000 + MAX_AGE).unwrap();
        assert_eq!(fixture.files().len(), 2, "each hour has its own file");
        files.tidy(9000);
        assert_eq!(fixture.files().len(), 2, "a record is remembered through its last second");
        files.tidy(9001);
        assert_eq!(fixture.files().len(), 1);
        drop(files);
        assert_eq!(fixture.open_at(1000, 9001).1, [2]);
    }

    /// Fills one file with each of these samples, in this order. Neither syncs nor removes files.
    fn flood(files: &mut Files, numbers: std::ops::Range<u8>) {
        for number in numbers {
            files.append(&vec![sample(number, 1000, 5000); MIN_RECORDS], 1000).unwrap();
        }
    }

    fn done(files: &mut Files) {
        let replaced = files.take_replaced();
        replaced.originals.iter().for_each(|file| assert!(file.remove()));
    }

    #[test]
    fn a_flood_removes_no_record_that_is_still_remembered() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open_at(MIN_RECORDS, 1000);
        // Samples below 3 belong to another webhook than the flood.
        files.is_remembered = Box::new(|record| record.event.0[0] < 3);
        files.append(&samples(0..3), 1000).unwrap();
        let mut most = 0;
        for number in 10..30 {
            flood(&mut files, number..number + 1);
            done(&mut files);
            most = most.max(fixture.files().iter().map(|path| path.metadata().unwrap().len()).sum());
        }
        assert!(most as usize <= 4 * MIN_RECORDS * SIZE, "{most} bytes");
        drop(files);
        let (_, found) = fixture.open_at(MIN_RECORDS, 1000);
        for number in 0..3 {
            assert_eq!(found.iter().filter(|found| **found == number).count(), 1, "{number}");
        }
        assert!(!found.contains(&20) && found.contains(&29));
    }

    #[test]
    fn copied_records_are_on_disk_twice_until_the_copies_are_synced() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open_at(MIN_RECORDS, 1000);
        files.is_remembered = Box::new(|record| record.event.0[0] < 3);
        files.append(&samples(0..3), 1000).unwrap();
        flood(&mut files, 10..13);
        let Replaced { copies, originals } = files.take_replaced();
        assert_eq!((copies.len(), originals.len()), (1, 1));
        assert!(originals[0].path.exists());
        drop(files);
        let (_, found) = fixture.open_at(MIN_RECORDS, 1000);
        assert_eq!(found.iter().filter(|number| **number < 3).count(), 6);
    }

    #[test]
    fn a_file_whose_copies_may_be_lost_is_removed_when_its_records_have_expired() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open_at(MIN_RECORDS, 1000);
        files.is_remembered = Box::new(|record| record.event.0[0] < 3);
        files.append(&samples(0..3), 1000).unwrap();
        flood(&mut files, 10..13);
        let originals = files.take_replaced().originals;
        let oldest = fixture.files().remove(0);
        assert_eq!(originals[0].path, oldest);
        files.keep(originals);
        files.tidy(5000);
        assert!(oldest.exists(), "its records are still remembered");
        // Its records are not copied again.
        flood(&mut files, 20..21);
        assert!(files.take_replaced().originals.iter().all(|file| file.path != oldest));
        files.tidy(5001);
        assert!(!oldest.exists() && files.kept.is_empty());
    }

    #[test]
    fn a_file_whose_records_cannot_be_copied_is_kept() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open_at(MIN_RECORDS, 1000);
        files.append(&samples(0..3), 1000).unwrap();
        flood(&mut files, 10..12);
        let oldest = fixture.files().remove(0);
        // A read-only file can be neither written nor truncated.
        files.current = Some(Arc::new(File::open(&oldest).unwrap()));
        files.files.back_mut().unwrap().records = 0;
        files.files.front_mut().unwrap().records = 3 * MIN_RECORDS;
        files.make_room(1000);
        assert!(files.take_replaced().originals.is_empty() && oldest.exists());
    }

    #[test]
    fn a_large_file_is_followed_by_another() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open_at(usize::MAX, 1000);
        let many = vec![sample(1, 1000, 5000); MAX_RECORDS];
        files.append(&many, 1000).unwrap();
        files.append(&samples(0..1), 1000).unwrap();
        files.append(&samples(0..1), 1000).unwrap();
        let sizes: Vec<_> = fixture.files().iter().map(|path| path.metadata().unwrap().len() as usize / SIZE).collect();
        assert_eq!(sizes, [MAX_RECORDS, 2]);
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let fixture = Fixture::new();
        drop(fixture.open());
        for name in ["taken-v2-0000000001", "taken-v1-1", "taken-v1-x", "notes"] {
            fs::write(fixture.directory().join(name), "x").unwrap();
        }
        let (mut files, found) = fixture.open();
        assert!(found.is_empty());
        files.append(&samples(0..1), 1000).unwrap();
        files.tidy(1_000_000);
        assert_eq!(fixture.files().len(), 5);
    }

    #[test]
    fn a_directory_can_be_opened_only_once() {
        let fixture = Fixture::new();
        let first = fixture.open();
        let error = open_error(&fixture).to_string();
        assert!(error.ends_with("another process uses this directory"), "{error}");
        drop(first);
        fixture.open();
    }

    #[test]
    fn an_error_names_the_directory() {
        let fixture = Fixture::new();
        fs::write(fixture.0.path().join("spool"), "").unwrap();
        let error = open_error(&fixture).to_string();
        assert!(error.contains("spool/dedup: "), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_replaced_by_another() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open();
        files.append(&samples(0..1), 1000).unwrap();
        // A read-only file can be neither written nor truncated.
        files.current = Some(Arc::new(File::open(&fixture.files()[0]).unwrap()));
        assert!(files.append(&samples(1..2), 1000).is_err());
        files.append(&samples(2..3), 1000).unwrap();
        drop(files);
        assert_eq!(fixture.files().len(), 2);
        assert_eq!(fixture.open().1, [0, 2]);
    }

    #[test]
    fn creating_a_file_is_tried_again_after_a_failure() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open();
        fs::remove_dir_all(fixture.directory()).unwrap();
        assert!(files.append(&samples(0..1), 1000).is_err());
        fs::create_dir(fixture.directory()).unwrap();
        files.append(&samples(1..2), 1000).unwrap();
        drop(files);
        assert_eq!(fixture.open().1, [1]);
    }
}
