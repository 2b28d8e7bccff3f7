//! A directory that belongs to this user alone, inside a directory that others may write to.
//!
//! Every file is opened relative to the open directory, never by its path. Another user with access to the parent can move
//! this directory away and put another one in its place, but cannot make this process read or write there.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::process::geteuid;

use super::directory;

/// The mode bits of the group and of other users.
const OTHERS: u32 = 0o077;

pub(crate) struct PrivateDirectory {
    directory: OwnedFd,
}

impl PrivateDirectory {
    /// Opens `parent/name`, and creates both if they are missing, `name` with mode 0700.
    ///
    /// # Errors
    ///
    /// When `parent/name` is a symbolic link or not a directory, belongs to another user, or stays open to other users.
    pub(crate) fn create(parent: &Path, name: &str) -> io::Result<Self> {
        directory::create(parent)?;
        let path = parent.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => directory::sync(parent)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Self::open(&path)
    }

    /// Opens `parent/name`; `None` if it is missing.
    ///
    /// # Errors
    ///
    /// The same as [`create`](Self::create).
    pub(crate) fn find(parent: &Path, name: &str) -> io::Result<Option<Self>> {
        match Self::open(&parent.join(name)) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                return Err(foreign("found something other than a directory"));
            }
            Err(error) => return Err(error.into()),
        };
        let this = Self { directory };
        let opened = this.metadata()?;
        if opened.uid() != geteuid().as_raw() {
            return Err(foreign("it belongs to another user"));
        }
        if opened.mode() & OTHERS != 0 {
            // The mount of a volume may have opened the directory to a group.
            rustix::fs::fchmod(&this.directory, Mode::RWXU)?;
            if this.metadata()?.mode() & OTHERS != 0 {
                return Err(foreign("the file system does not close it to other users"));
            }
        }
        Ok(this)
    }

    /// Reads a file; `None` if it is missing.
    ///
    /// # Errors
    ///
    /// When it is not a regular file, has a second hard link, or belongs to another user.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // A pipe without a writer would block the open.
        let mut file = match self.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(foreign("found something other than a regular file with a single link"));
        }
        if metadata.uid() != geteuid().as_raw() {
            return Err(foreign("it belongs to another user"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Replaces the content of the file `name` with `bytes`, with mode 0600, or leaves the file as it was. Once this has
    /// returned, the file is synced.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Every process has its own temporary file.
        let temporary = format!("{}{}", temporary_prefix(name), std::process::id());
        let outcome = self
            .write(&temporary, bytes)
            .and_then(|()| Ok(renameat(&self.directory, &temporary, &self.directory, name)?))
            .and_then(|()| Ok(rustix::fs::fsync(&self.directory)?));
        if outcome.is_err() {
            self.remove(&temporary);
        }
        outcome
    }

    /// Removes the temporary files of `name` that killed processes have left. A locked one is still being written, and stays.
    pub(crate) fn remove_left_over(&self, name: &str) {
        let Ok(entries) = Dir::read_from(&self.directory) else { return };
        for entry in entries.flatten() {
            let Ok(found) = entry.file_name().to_str() else { continue };
            let is_left_over = found.starts_with(&temporary_prefix(name))
                && self.open_file(found, OFlags::RDONLY | OFlags::NONBLOCK).is_ok_and(|file| file.try_lock().is_ok());
            if is_left_over {
                self.remove(found);
            }
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // An earlier process with this id may have left a file.
        self.remove(name);
        let mut file = self.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        // The lock is for `remove_left_over`. Not every file system can lock.
        let _ = file.try_lock();
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(file.into()),
            Err(rustix::io::Errno::LOOP) => Err(foreign("it is a symbolic link")),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, if it exists. Errors are ignored.
    fn remove(&self, name: &str) {
        let _ = unlinkat(&self.directory, name, AtFlags::empty());
    }

    fn metadata(&self) -> io::Result<std::fs::Metadata> {
        File::from(self.as_fd().try_clone_to_owned()?).metadata()
    }
}

impl AsFd for PrivateDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn temporary_prefix(name: &str) -> String {
    format!(".{name}.")
}

fn foreign(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, format!("{reason}: remove it, it will be created again"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    const NAME: &str = "own";

    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        folder
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    fn refused(outcome: io::Result<impl Sized>) -> String {
        outcome.err().unwrap().to_string()
    }

    #[test]
    fn a_file_is_private_and_complete_even_inside_a_directory_open_to_all() {
        let folder = folder();
        let directory = PrivateDirectory::create(folder.path(), NAME).unwrap();
        assert_eq!(directory.read("file").unwrap(), None);
        directory.replace("file", b"one").unwrap();
        directory.replace("file", b"two").unwrap();
        assert_eq!(directory.read("file").unwrap().unwrap(), b"two");
        assert_eq!((mode(&folder.path().join(NAME)), mode(&folder.path().join("own/file"))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(folder.path().join(NAME)).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_a_mount_has_opened_to_a_group_is_closed_again() {
        let folder = folder();
        let path = folder.path().join(NAME);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).unwrap();
        PrivateDirectory::create(folder.path(), NAME).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_symbolic_link_in_place_of_the_directory_is_not_followed() {
        let (folder, elsewhere) = (folder(), folder());
        symlink(elsewhere.path(), folder.path().join(NAME)).unwrap();
        for outcome in [
            PrivateDirectory::create(folder.path(), NAME).map(drop),
            PrivateDirectory::find(folder.path(), NAME).map(drop),
        ] {
            assert_eq!(refused(outcome), "found something other than a directory: remove it, it will be created again");
        }
        std::fs::remove_file(folder.path().join(NAME)).unwrap();
        std::fs::write(folder.path().join(NAME), "").unwrap();
        assert!(PrivateDirectory::create(folder.path(), NAME).is_err());
    }

    #[test]
    fn planted_links_and_pipes_are_neither_read_nor_written_through() {
        let folder = folder();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let directory = PrivateDirectory::create(folder.path(), NAME).unwrap();
        let own = folder.path().join(NAME);
        let temporary = own.join(format!(".file.{}", std::process::id()));

        symlink(&victim, own.join("file")).unwrap();
        symlink(&victim, &temporary).unwrap();
        assert_eq!(refused(directory.read("file")), "it is a symbolic link: remove it, it will be created again");
        directory.replace("file", b"new").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert_eq!(directory.read("file").unwrap().unwrap(), b"new");

        let pipe = std::process::Command::new("mkfifo").arg(own.join("pipe")).status().unwrap();
        assert!(pipe.success());
        assert!(
            refused(directory.read("pipe")).starts_with("found something other than a regular file"),
            "the read does not block"
        );
        std::fs::hard_link(&victim, own.join("linked")).unwrap();
        assert!(refused(directory.read("linked")).starts_with("found something other than a regular file"));
    }

    #[test]
    fn a_directory_that_was_moved_away_is_still_written_to() {
        let folder = folder();
        let directory = PrivateDirectory::create(folder.path(), NAME).unwrap();
        std::fs::rename(folder.path().join(NAME), folder.path().join("moved")).unwrap();
        std::fs::create_dir(folder.path().join(NAME)).unwrap();
        directory.replace("file", b"x").unwrap();
        assert!(!folder.path().join("own/file").exists() && folder.path().join("moved/file").exists());
    }

    /// Changing the owner needs root.
    #[test]
    fn a_directory_of_another_user_is_refused() {
        let folder = folder();
        std::fs::create_dir(folder.path().join(NAME)).unwrap();
        if std::os::unix::fs::chown(folder.path().join(NAME), Some(12345), None).is_err() {
            println!("skipped: this test needs root");
            return;
        }
        let outcome = PrivateDirectory::create(folder.path(), NAME);
        assert_eq!(refused(outcome.map(drop)), "it belongs to another user: remove it, it will be created again");
    }

    #[test]
    fn a_temporary_file_that_was_left_is_removed_unless_it_is_being_written() {
        let folder = folder();
        let directory = PrivateDirectory::create(folder.path(), NAME).unwrap();
        let (left, busy) = (folder.path().join("own/.file.1"), folder.path().join("own/.file.2"));
        std::fs::write(&left, "").unwrap();
        let lock = File::create(&busy).unwrap();
        lock.try_lock().unwrap();
        directory.remove_left_over("file");
        assert_eq!((left.exists(), busy.exists()), (false, true));
    }
}
