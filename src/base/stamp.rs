//! The identity and the times of a file, by which a change is noticed without reading the file.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// File times are coarse: a file that changed less than this before it was read may change again with the same times.
const RACY: Duration = Duration::from_secs(2);

/// The identity and the times of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    Missing,
    File { size: u64, changed: SystemTime, identity: Identity },
}

impl Stamp {
    /// Follows symbolic links: the target counts.
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(file) = fs::metadata(path) else { return Self::Missing };
        // On a system without file times the stamp is never settled, so that the file is read each time.
        let changed = changed(&file).unwrap_or_else(SystemTime::now);
        Self::File { size: file.len(), changed, identity: identity(&file) }
    }

    /// Whether any change after `looked_at` is certain to change the stamp. File times are coarse, so a change right
    /// after the last one may not.
    pub(crate) fn is_settled(&self, looked_at: SystemTime) -> bool {
        match self {
            Self::Missing => true,
            Self::File { changed, .. } => looked_at.duration_since(*changed).is_ok_and(|age| age > RACY),
        }
    }
}

/// Distinguishes files of the same size and time.
type Identity = (u64, u64, Option<SystemTime>);

#[cfg(unix)]
fn identity(file: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino(), file.modified().ok())
}

#[cfg(not(unix))]
fn identity(file: &fs::Metadata) -> Identity {
    (0, 0, file.modified().ok())
}

/// When anything of the file was changed, its times included.
#[cfg(unix)]
fn changed(file: &fs::Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    let nanos = u32::try_from(file.ctime_nsec()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(file.ctime().unsigned_abs(), nanos))
}

#[cfg(not(unix))]
fn changed(file: &fs::Metadata) -> Option<SystemTime> {
    file.modified().ok()
}
