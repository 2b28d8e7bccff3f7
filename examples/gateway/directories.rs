//! Directories in which nothing can be written are told of at the start, not by the first event.

use std::io::{self, Write};
use std::path::Path;

use crate::settings::{Backend, Settings};

/// Warns of each directory in which nothing can be written. In the background: a disk may hang.
pub(crate) fn check(settings: &Settings) {
    let cache = settings.config_cache.as_ref().filter(|_| matches!(settings.backend, Backend::Etcd(_)));
    let root = ("SAVE_TO_DISK_ROOT", "the module save_to_disk will refuse events", &settings.save_to_disk_root);
    let cache = cache.map(|cache| ("CONFIG_CACHE_DIR", "the configuration will not be kept for the next start", cache));
    for (variable, loss, directory) in [Some(root), cache].into_iter().flatten() {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = try_to_write(&directory) {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "{variable}: nothing can be written there, and {loss}");
            }
        });
    }
}

/// Writes a file and removes it again: in the directory, or where the directory will be made when it is needed.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    // Not `exists`: a directory that may not be looked at is there.
    let existing = directory.ancestors().find(|path| std::fs::symlink_metadata(path).is_ok());
    let mut file = tempfile::Builder::new().prefix(".writable-").tempfile_in(existing.unwrap_or(&directory))?;
    file.write_all(b"x")?;
    file.close()
}
