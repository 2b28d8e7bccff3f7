//! The file: its tables, how it is opened, and what happens to a damaged one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::base::directory;

/// The version of the tables, and of the texts in the full-text index. A file of another version is moved aside.
const VERSION: i64 = 1;

const FILE: &str = "history.db";

/// The suffix of a file that was moved aside.
const ASIDE: &str = ".damaged";

pub(super) const PAGE: u64 = 4096;

/// How long a connection waits for another one.
const BUSY: Duration = Duration::from_millis(2500);

/// `n` is the number of an event, `pool` its namespace among the refused or the other ones, `gen` the part of the full-text
/// index that has its text, or 0, and `indexed` the bytes of that. The indexes have what lists are filtered by.
const TABLES: &str = "
    CREATE TABLE hooks(hook INTEGER PRIMARY KEY, namespace TEXT NOT NULL, id TEXT NOT NULL, UNIQUE(namespace, id));
    CREATE TABLE pools(pool INTEGER PRIMARY KEY, namespace TEXT NOT NULL, is_refused INTEGER NOT NULL,
        bytes INTEGER NOT NULL, events INTEGER NOT NULL, UNIQUE(namespace, is_refused));
    CREATE TABLE gens(gen INTEGER PRIMARY KEY, began INTEGER NOT NULL, bytes INTEGER NOT NULL, events INTEGER NOT NULL,
        live INTEGER NOT NULL);
    CREATE TABLE events(n INTEGER PRIMARY KEY, id BLOB NOT NULL, pool INTEGER NOT NULL, hook INTEGER NOT NULL,
        at INTEGER NOT NULL, outcome INTEGER NOT NULL, status INTEGER NOT NULL, duration INTEGER NOT NULL,
        size INTEGER NOT NULL, attempts INTEGER NOT NULL, accepted INTEGER NOT NULL, cost INTEGER NOT NULL,
        gen INTEGER NOT NULL, indexed INTEGER NOT NULL, method TEXT NOT NULL, module TEXT NOT NULL, peer TEXT, next INTEGER, kind TEXT, reason TEXT);
    CREATE INDEX by_pool ON events(pool, n, hook, outcome, status, kind);
    CREATE INDEX by_hook ON events(hook, n, outcome, status, kind);
    CREATE INDEX by_trouble ON events(outcome, n, hook, status, kind) WHERE outcome IN (1, 2);
    CREATE TABLE details(n INTEGER PRIMARY KEY, detail TEXT NOT NULL);
    CREATE TABLE bodies(n INTEGER PRIMARY KEY, body BLOB NOT NULL);
";

/// How many bytes the file and its log may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// The largest size of the file.
    pub(super) file: u64,
    /// Events are removed when the used pages take more than this.
    pub(super) used: u64,
    /// The largest size of the write-ahead log.
    pub(super) log: u64,
    /// The most bytes of entries in one transaction.
    pub(super) batch: u64,
    /// The bytes of text in one part of the full-text index.
    pub(super) gen_bytes: u64,
}

impl Room {
    pub(super) fn of(max_bytes: u64) -> Self {
        let log = (max_bytes / 8).clamp(1 << 20, 64 << 20);
        // The index of the log takes some pages as well.
        let file = max_bytes.saturating_sub(log + log / 64 + (64 << 10)).max(1 << 20);
        Self {
            file,
            used: file / 100 * 92,
            log,
            batch: (log / 8).min(8 << 20),
            gen_bytes: (max_bytes / 128).max(128 << 10),
        }
    }
}

/// A directory with the file in it, locked against other processes.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Opens the directory, or creates it for this user alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        directory::create(path)?;
        let found = path.symlink_metadata()?;
        if !found.is_dir() {
            let reason = "expected a directory, found a symbolic link or a file: name the directory itself";
            return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        let lock = directory::lock(path)?;
        // SQLite refuses a path with a symbolic link in it: only the last parts are ours.
        Ok(Self { path: path.canonicalize()?, _lock: lock })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    fn files(&self) -> [PathBuf; 3] {
        ["", "-wal", "-shm"].map(|suffix| self.path.join(format!("{FILE}{suffix}")))
    }

    /// The bytes of the file, its log and the index of that.
    pub(super) fn bytes(&self) -> u64 {
        self.files().iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The size of the log, in bytes.
    pub(super) fn log_bytes(&self) -> u64 {
        self.files()[1].metadata().map_or(0, |file| file.len())
    }

    /// The device and the inode: they tell whether this is still the file that was opened.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        self.file().symlink_metadata().ok().map(|file| (file.dev(), file.ino()))
    }

    /// Opens the file for writing. A damaged file is moved aside, and a new one is begun.
    pub(super) fn writer(&self, room: Room) -> io::Result<Connection> {
        let opened = match self.try_writer(room) {
            Err(error) if is_damage(&error) => {
                self.move_aside()?;
                self.try_writer(room)
            }
            opened => opened,
        };
        opened.map_err(io::Error::other)
    }

    fn try_writer(&self, room: Room) -> rusqlite::Result<Connection> {
        // SQLite would create it with a mode that the umask decides.
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.file());
        if let Err(error) = created
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(rusqlite::Error::ToSqlConversionFailure(error.into()));
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(128);
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE};
             PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA secure_delete = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;
             PRAGMA cell_size_check = ON;
             PRAGMA cache_size = -16000;
             PRAGMA wal_autocheckpoint = {};
             PRAGMA journal_size_limit = {};
             PRAGMA max_page_count = {};",
            room.log / 4 / PAGE,
            room.log / 2,
            room.file / PAGE,
        ))?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        } else if version != VERSION {
            return Err(damage());
        }
        look(&connection)?;
        Ok(connection)
    }

    /// Moves the file aside. An earlier one that was moved aside is removed, so that they do not fill the disk.
    pub(super) fn move_aside(&self) -> io::Result<()> {
        let file = self.file();
        let aside = self.path.join(format!("{FILE}{ASIDE}"));
        // Its log belongs to it, and would be applied to the new file.
        for (from, suffix) in self.files().iter().zip(["", "-wal", "-shm"]) {
            let to = self.path.join(format!("{FILE}{ASIDE}{suffix}"));
            let moved = match suffix {
                "-shm" => fs::remove_file(from),
                _ => fs::rename(from, &to),
            };
            match moved {
                Err(error) if error.kind() == ErrorKind::NotFound => drop(fs::remove_file(&to)),
                moved => moved?,
            }
        }
        directory::sync(&self.path)?;
        tracing::error!(
            file = %file.display(), moved_to = %aside.display(),
            "the history is damaged, or of another version: it was moved aside and a new one begins; remove the file when nobody needs it"
        );
        Ok(())
    }
}

/// Opens the file for reading.
pub(super) fn reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_millis(500))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA cache_size = -8000;
         PRAGMA temp_store = MEMORY;",
    )?;
    Ok(connection)
}

/// Reads a little of each table, so that gross damage is found at once. Reading all of it would take minutes.
fn look(connection: &Connection) -> rusqlite::Result<()> {
    for table in ["hooks", "pools", "gens", "events", "details", "bodies"] {
        let order = if matches!(table, "events" | "details" | "bodies") { "ORDER BY n DESC" } else { "" };
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} {order} LIMIT 100"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

fn damage() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}

/// Whether the error says that the file is damaged, or is no database of this kind.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(error, message) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || message.as_ref().is_some_and(|message| message.starts_with("no such table"))
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.starts_with("no such"),
        _ => false,
    }
}
