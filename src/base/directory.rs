//! Directories whose contents must survive a power cut.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Creates the directory and its missing parents, for this user alone, and syncs each new entry.
pub(crate) fn create(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    let missing: Vec<_> = directory.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Syncs the directory: the files created, renamed or removed in it stay so after a power cut.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The name of the lock file in a directory.
#[cfg(any(feature = "durable", feature = "history", feature = "queue-disk"))]
pub(crate) const LOCK: &str = "lock";

/// Locks the directory for this process while the returned file is open. Waits 2 s for a process that is just ending.
#[cfg(any(feature = "durable", feature = "history", feature = "queue-disk"))]
pub(crate) fn lock(directory: &Path) -> io::Result<File> {
    use std::fs::{OpenOptions, TryLockError};
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(2);

    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process uses this directory"));
            }
        }
    }
}
