//! The journal's directory: which files there are, what is in them, and when one is removed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{Record, SIZE};
use crate::dedup::rule::Event;
use crate::dedup::table::Taken;
use crate::directory;
use crate::telemetry;

/// `taken-v1-` and the second in which it was begun; another format gets another name.
const PREFIX: &str = "taken-v1-";

/// A file gets no more records than this, nor after this many seconds: then it is removed as a whole some day.
pub(super) const MAX_RECORDS: usize = 128 * 1024;
pub(super) const MAX_AGE: u32 = 3600;

#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// The newest last.
    files: VecDeque<JournalFile>,
    /// The newest of them, open for appending.
    current: Option<Arc<File>>,
    max_records: usize,
    _lock: File,
}

#[derive(Debug)]
struct JournalFile {
    /// Rises from file to file.
    begun: u32,
    records: usize,
    /// The last second in which anything in it is remembered.
    until: u32,
}

impl Files {
    /// Locks the directory, made if it is missing, and reads what is in it.
    pub(super) fn open(
        directory: &Path,
        max_records: usize,
        now: u32,
        mut found: impl FnMut(Event, Taken),
    ) -> io::Result<Self> {
        let at = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        directory::create(directory).map_err(|error| at(directory, error))?;
        let lock = directory::lock(directory).map_err(|error| at(directory, error))?;
        let mut this =
            Self { directory: directory.to_owned(), files: VecDeque::new(), current: None, max_records, _lock: lock };
        let mut begun = this.list().map_err(|error| at(directory, error))?;
        begun.sort_unstable();
        for begun in begun {
            let path = this.path(begun);
            let file = read(&path, begun, &mut found).map_err(|error| at(&path, error))?;
            this.files.push_back(file);
        }
        this.tidy(None);
        this.reopen_last(now).map_err(|error| at(directory, error))?;
        Ok(this)
    }

    /// Writes records down, all or none of them.
    pub(super) fn append(&mut self, records: &[Record], now: u32) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(records.len() * SIZE);
        records.iter().for_each(|record| record.encode(&mut bytes));
        let file = self.current(now)?;
        let Some(last) = self.files.back_mut() else { return Err(io::Error::other("the file is not listed")) };
        let mut target = &*file;
        if let Err(error) = target.write_all(&bytes) {
            // Half a record would make rubbish of those behind it.
            if file.set_len((last.records * SIZE) as u64).is_err() {
                self.current = None;
            }
            return Err(error);
        }
        last.records += records.len();
        last.until = records.iter().map(|record| record.taken.until).fold(last.until, u32::max);
        Ok(())
    }

    /// The file that is being written.
    pub(super) fn open_file(&self) -> Option<&Arc<File>> {
        self.current.as_ref()
    }

    /// Removes the files of which nothing is remembered any more: its time is over, or so much has come since that it is
    /// forgotten. Without the time it is only the latter.
    pub(super) fn tidy(&mut self, now: Option<u32>) {
        let mut newer: usize = self.files.iter().map(|file| file.records).sum();
        let newest = self.files.back().map(|file| file.begun);
        let directory = &self.directory;
        self.files.retain(|file| {
            newer -= file.records;
            let is_over = now.is_some_and(|now| file.until < now);
            let is_needed = !is_over && newer < self.max_records;
            // The newest may be open. Its turn comes when it is the newest no more.
            if is_needed || Some(file.begun) == newest {
                return true;
            }
            match fs::remove_file(directory.join(name(file.begun))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = name(file.begun), %error, "a file that is not needed any more cannot be removed");
                    true
                }
                _ => false,
            }
        });
    }

    /// The file to write to: a new one if there is none, or the newest has had its share.
    fn current(&mut self, now: u32) -> io::Result<Arc<File>> {
        if let (Some(open), Some(last)) = (&self.current, self.files.back())
            && last.has_room(now)
        {
            return Ok(Arc::clone(open));
        }
        let begun = self.files.back().map_or(now, |last| now.max(last.begun.saturating_add(1)));
        let path = self.path(begun);
        let file = Arc::new(OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?);
        if let Err(error) = directory::sync(&self.directory) {
            // Else there would be one more at each try.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        self.files.push_back(JournalFile { begun, records: 0, until: 0 });
        self.current = Some(Arc::clone(&file));
        self.tidy(None);
        Ok(file)
    }

    /// Goes on with the newest file, so that restarts leave no crowd of small ones.
    fn reopen_last(&mut self, now: u32) -> io::Result<()> {
        let Some(last) = self.files.back() else { return Ok(()) };
        if !last.has_room(now) {
            return Ok(());
        }
        let file = OpenOptions::new().append(true).open(self.path(last.begun))?;
        // What a crash has left of a record.
        file.set_len((last.records * SIZE) as u64)?;
        self.current = Some(Arc::new(file));
        Ok(())
    }

    /// When each file was begun.
    fn list(&self) -> io::Result<Vec<u32>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            // Another's files are left alone.
            all.extend(name.to_str().and_then(begun));
        }
        Ok(all)
    }

    fn path(&self, begun: u32) -> PathBuf {
        self.directory.join(name(begun))
    }
}

impl JournalFile {
    fn has_room(&self, now: u32) -> bool {
        self.records < MAX_RECORDS && now.saturating_sub(self.begun) < MAX_AGE
    }
}

fn name(begun: u32) -> String {
    format!("{PREFIX}{begun:010}")
}

fn begun(of: &str) -> Option<u32> {
    let begun = of.strip_prefix(PREFIX)?.parse().ok()?;
    (name(begun) == of).then_some(begun)
}

/// Reads a file to its end, or to where the disk cannot read it.
fn read(path: &Path, begun: u32, found: &mut impl FnMut(Event, Taken)) -> io::Result<JournalFile> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?);
    let (mut file, mut damaged) = (JournalFile { begun, records: 0, until: 0 }, 0);
    let mut bytes = [0; SIZE];
    loop {
        match reader.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        file.records += 1;
        match Record::decode(&bytes) {
            Some(Record { event, taken }) => {
                file.until = file.until.max(taken.until);
                found(event, taken);
            }
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        telemetry::dedup_damaged(damaged);
        tracing::error!(path = %path.display(), damaged, "damaged records: events that are sent again may be processed again");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::super::record::sample;
    use super::*;

    struct Fixture(TempDir);

    impl Fixture {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn directory(&self) -> PathBuf {
            self.0.path().join("spool/dedup")
        }

        /// Opens the journal and says which of the samples are in it.
        fn open_at(&self, max_records: usize, now: u32) -> (Files, Vec<u8>) {
            let mut found = Vec::new();
            let files = Files::open(&self.directory(), max_records, now, |event, taken| {
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

    fn samples(numbers: std::ops::Range<u8>) -> Vec<Record> {
        numbers.map(|number| sample(number, 1000, 5000)).collect()
    }

    #[test]
    fn what_was_written_is_found_again() {
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
    fn a_cut_at_any_place_costs_only_what_was_cut_off() {
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
            assert_eq!(fixture.open().1, [&left[..], &[9]].concat(), "written behind a cut at {cut}");
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
    fn a_file_is_removed_when_everything_in_it_is_over() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open();
        files.append(&[sample(0, 1000, 5000), sample(1, 1000, 9000)], 1000).unwrap();
        files.append(&[sample(2, 1000 + MAX_AGE, 50_000)], 1000 + MAX_AGE).unwrap();
        assert_eq!(fixture.files().len(), 2, "an hour has its own file");
        files.tidy(Some(9000));
        assert_eq!(fixture.files().len(), 2, "in its last second it is remembered");
        files.tidy(Some(9001));
        assert_eq!(fixture.files().len(), 1);
        drop(files);
        assert_eq!(fixture.open_at(1000, 9001).1, [2]);
    }

    #[test]
    fn a_file_is_removed_when_so_much_has_come_since() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open_at(3, 1000);
        for hour in 0..4_u8 {
            let now = 1000 + u32::from(hour) * MAX_AGE;
            files.append(&[sample(hour * 2, now, 100_000), sample(hour * 2 + 1, now, 100_000)], now).unwrap();
        }
        // Three are remembered: they are in the last two files.
        files.tidy(None);
        drop(files);
        assert_eq!(fixture.open_at(3, 20_000).1, [4, 5, 6, 7]);
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
        files.tidy(Some(1_000_000));
        assert_eq!(fixture.files().len(), 5);
    }

    #[test]
    fn two_do_not_share_a_directory() {
        let fixture = Fixture::new();
        let first = fixture.open();
        let error = Files::open(&fixture.directory(), 10, 1000, |_, _| {}).unwrap_err().to_string();
        assert!(error.ends_with("another process uses this directory"), "{error}");
        drop(first);
        fixture.open();
    }

    #[test]
    fn what_is_no_directory_is_told_by_its_name() {
        let fixture = Fixture::new();
        fs::write(fixture.0.path().join("spool"), "").unwrap();
        let error = Files::open(&fixture.directory(), 10, 1000, |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("spool/dedup: "), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_left_for_another() {
        let fixture = Fixture::new();
        let (mut files, _) = fixture.open();
        files.append(&samples(0..1), 1000).unwrap();
        // It can be neither written nor cut.
        files.current = Some(Arc::new(File::open(&fixture.files()[0]).unwrap()));
        assert!(files.append(&samples(1..2), 1000).is_err());
        files.append(&samples(2..3), 1000).unwrap();
        drop(files);
        assert_eq!(fixture.files().len(), 2);
        assert_eq!(fixture.open().1, [0, 2]);
    }

    #[test]
    fn a_file_that_cannot_be_begun_is_tried_again() {
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
