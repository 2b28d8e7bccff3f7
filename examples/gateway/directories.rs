//! Warns at the start of directories that cannot be written, so that the first event is not the first to notice.

use std::io::{self, Write};
use std::path::Path;

use crate::settings::{Backend, Settings};

/// Warns of each directory that cannot be written. In the background, since a disk may hang.
pub(crate) fn check(settings: &Settings) {
    let cache = settings.config_cache.as_ref().filter(|_| matches!(settings.backend, Backend::Etcd(_)));
    let root = ("SAVE_TO_DISK_ROOT", "the module save_to_disk will refuse events", &settings.save_to_disk_root);
    let cache =
        cache.map(|cache| ("CONFIG_CACHE_DIR", "the configuration will not be saved for the next start", cache));
    for (variable, loss, directory) in [Some(root), cache].into_iter().flatten() {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = try_to_write(&directory) {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "{variable}: the directory cannot be written: {loss}");
            }
        });
    }
}

/// Writes a file and removes it: in the directory, or in its nearest existing parent.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    // Not `exists`, which is false for a directory that may not be read.
    let existing = directory.ancestors().find(|path| std::fs::symlink_metadata(path).is_ok());
    let mut file = tempfile::Builder::new().prefix(".writable-").tempfile_in(existing.unwrap_or(&directory))?;
    file.write_all(b"x")?;
    file.close()
}
