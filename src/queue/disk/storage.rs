//! The storage of segments: files in a directory, or a fake disk in tests.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::directory;

/// Stores segments by number.
pub(super) trait Disk: Send + Sync + 'static {
    /// The numbers of all segments, in any order.
    fn list(&self) -> io::Result<Vec<u32>>;

    /// Creates a segment that survives a power cut, with its head. The file may be longer than the head, with any bytes
    /// behind it.
    fn create(&self, number: u32, head: &[u8]) -> io::Result<Arc<dyn Segment>>;

    fn open(&self, number: u32) -> io::Result<Arc<dyn Segment>>;

    /// Removes a segment so that a power cut does not bring it back.
    fn remove(&self, number: u32) -> io::Result<()>;

    /// Removes a segment in the same way, and keeps its file for the next segment that is created.
    fn recycle(&self, number: u32) -> io::Result<()>;
}

/// A file of bytes. One thread writes, many read. Only a segment that this process created is appended to.
pub(super) trait Segment: Send + Sync + 'static {
    /// Appends all bytes. On an error some of them may have been written.
    fn append(&self, bytes: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Writes all bytes at this offset. On an error some of them may have been written. The position of the next append
    /// does not change.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Once this has returned, everything written before survives a power cut.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file off at `length`.
    fn truncate(&self, length: u64) -> io::Result<()>;

    fn length(&self) -> io::Result<u64>;

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length()?).map_err(io::Error::other)?];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A directory with one file for each segment, locked against other processes.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

const SUFFIX: &str = ".log";

/// The recycled file that the next segment is made of.
const SPARE: &str = "spare";

impl Directory {
    /// Opens the directory, or creates it for this user alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        directory::create(path)?;
        let lock = directory::lock(path)?;
        directory::sync(path)?;
        // An earlier process may have been killed between creating the directory and syncing its parent.
        if let Some(parent) = std::path::absolute(path)?.parent() {
            directory::sync(parent)?;
        }
        let directory = Self { path: path.to_owned(), _lock: lock };
        // The ledger does not count a spare file of an earlier process.
        directory.unlink(&directory.spare())?;
        Ok(directory)
    }

    fn spare(&self) -> PathBuf {
        self.path.join(SPARE)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.gone(std::fs::remove_file(path))
    }

    /// Syncs the directory after a file's name was removed; a name that was already missing is no error.
    fn gone(&self, outcome: io::Result<()>) -> io::Result<()> {
        match outcome {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => directory::sync(&self.path),
        }
    }

    fn make(&self, number: u32, head: &[u8]) -> io::Result<Arc<dyn Segment>> {
        let mut options = OpenOptions::new();
        let spare = self.spare();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&spare)?;
        (&file).write_all(head)?;
        // Synced before the file gets its name: under an old head, the old bytes behind it would pass for events.
        file.sync_data()?;
        std::fs::rename(spare, self.file(number))?;
        directory::sync(&self.path)?;
        Ok(Arc::new(file))
    }

    fn file(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:010}{SUFFIX}"))
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).filter(|number| number.len() == 10);
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        Ok(numbers)
    }

    fn create(&self, number: u32, head: &[u8]) -> io::Result<Arc<dyn Segment>> {
        self.make(number, head).inspect_err(|_| {
            // The next segment gets another number, and nothing else would remove these files.
            for path in [self.spare(), self.file(number)] {
                let _ = std::fs::remove_file(path);
            }
        })
    }

    fn open(&self, number: u32) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.file(number))?))
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        self.unlink(&self.file(number))
    }

    fn recycle(&self, number: u32) -> io::Result<()> {
        self.gone(std::fs::rename(self.file(number), self.spare()))
    }
}

impl Segment for File {
    fn append(&self, mut bytes: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut file = self;
        IoSlice::advance_slices(&mut bytes, 0);
        while !bytes.is_empty() {
            match file.write_vectored(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut bytes, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }
}
