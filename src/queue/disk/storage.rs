//! Where segments are kept: files, or what a test makes of them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::directory;

/// Keeps segments, by number.
pub(super) trait Disk: Send + Sync + 'static {
    /// The numbers of all segments, in any order.
    fn list(&self) -> io::Result<Vec<u32>>;

    /// Makes a segment that will still be there, with its head, after a power cut. There may be room behind the head, with
    /// anything in it.
    fn create(&self, number: u32, head: &[u8]) -> io::Result<Arc<dyn Segment>>;

    fn open(&self, number: u32) -> io::Result<Arc<dyn Segment>>;

    /// Removes a segment, for good: it will not be there again after a power cut.
    fn remove(&self, number: u32) -> io::Result<()>;

    /// The same, but for the room: the next that is made has it.
    fn recycle(&self, number: u32) -> io::Result<()>;
}

/// A sequence of bytes. One thread writes, many read; appended to is only one that was made by the same process.
pub(super) trait Segment: Send + Sync + 'static {
    /// Writes all of it behind what was appended before, or fails having written some of it.
    fn append(&self, bytes: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Writes all of it at this place, or fails having written some of it. What is appended next stays where it would
    /// stand.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// What was appended survives a power cut once this has returned.
    fn sync(&self) -> io::Result<()>;

    /// Cuts off what is behind `length`.
    fn truncate(&self, length: u64) -> io::Result<()>;

    fn length(&self) -> io::Result<u64>;

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length()?).map_err(io::Error::other)?];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A directory with a file for each segment. No other process can have it at the same time.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

const SUFFIX: &str = ".log";

/// The file that the next segment is made of, if there is one already.
const SPARE: &str = "spare";

impl Directory {
    /// Makes the directory if it is missing, for this user alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        directory::create(path)?;
        let lock = directory::lock(path)?;
        directory::sync(path)?;
        // A process that was killed may have made it and not come to sync it into the one above.
        if let Some(parent) = std::path::absolute(path)?.parent() {
            directory::sync(parent)?;
        }
        let directory = Self { path: path.to_owned(), _lock: lock };
        // What it has is not known any more.
        directory.unlink(&directory.spare())?;
        Ok(directory)
    }

    fn spare(&self) -> PathBuf {
        self.path.join(SPARE)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.gone(std::fs::remove_file(path))
    }

    /// A file is not under its name any more, for good; also if it was so already.
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
        // Before it has its name: what is left behind another head would be taken for events.
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
            // The next one is made of another file, and nobody would remove this one.
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
