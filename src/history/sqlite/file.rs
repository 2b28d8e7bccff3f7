//! The file of a history, open for its writer.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::keep::Limits;
use super::save::Ledger;
use super::schema::{Place, is_damage};

/// An open file.
pub(super) struct OpenFile {
    pub(super) place: Place,
    pub(super) identity: Option<(u64, u64)>,
    pub(super) connection: Connection,
    pub(super) ledger: Ledger,
}

impl OpenFile {
    /// Opens the file in this directory, or begins a new one.
    pub(super) fn open(directory: &Path, limits: &Limits) -> io::Result<Self> {
        Self::at(Place::open(directory)?, limits)
    }

    fn at(place: Place, limits: &Limits) -> io::Result<Self> {
        let mut connection = place.writer(limits.room)?;
        let ledger = match Ledger::read(&connection) {
            Err(error) if is_damage(&error) => {
                drop(connection);
                place.move_aside()?;
                connection = place.writer(limits.room)?;
                Ledger::read(&connection)
            }
            read => read,
        };
        let mut ledger = ledger.map_err(io::Error::other)?;
        if !limits.full_text {
            ledger.gens.drop_all(&connection).map_err(io::Error::other)?;
        }
        Ok(Self { identity: place.identity(), place, connection, ledger })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.place.file()
    }
}
