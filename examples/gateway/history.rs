//! The history of events: its variables, its start, and the end of its writing.

use std::path::{Path, PathBuf};

use tower_webhook::history::History;
use tower_webhook::history::sqlite::SqliteHistory;

use crate::settings::is_below;
use crate::settings::values::{Problems, amount, choice, found, var, whole_days, wrong};
use crate::{Error, units};

const DIR: &str = "HISTORY_DIR";
const BODY_DAYS: &str = "HISTORY_BODY_DAYS";

/// The history that the variables describe; `None` without a directory.
pub(crate) struct Settings(Option<(PathBuf, SqliteHistory)>);

impl Settings {
    /// Reads the variables. Webhooks may write files below `writable`.
    pub(crate) fn from_env(problems: &mut Problems, writable: &Path) -> Self {
        let directory = problems.collect(var(DIR)).map(PathBuf::from);
        if directory.as_ref().is_some_and(|directory| is_below(directory, writable)) {
            problems.add(wrong(DIR, "the directory is below SAVE_TO_DISK_ROOT, where webhooks may write"));
        }
        let max_bytes = problems.collect(max_bytes());
        let days = problems.collect(whole_days("HISTORY_DAYS"));
        let body_days = problems.collect(body_days(days));
        let full_text = problems.collect(choice("HISTORY_FULL_TEXT", &["true", "false"])) != "false";
        Self(directory.map(|directory| {
            let history = SqliteHistory::new(&directory).max_bytes(max_bytes).days(days).full_text(full_text);
            let history = match body_days {
                Some(days) => history.body_days(days),
                None => history,
            };
            (directory, history)
        }))
    }

    /// Opens the history.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used.
    pub(crate) fn open(&self) -> Result<Option<History>, Error> {
        let Some((directory, history)) = &self.0 else { return Ok(None) };
        let history = history.open().map_err(|error| wrong(DIR, format!("{}: {error}", directory.display())))?;
        Ok(Some(history))
    }
}

fn max_bytes() -> Result<u64, Error> {
    amount("HISTORY_MAX_BYTES", units::size, 4 << 20..=u64::MAX, units::SIZE, "at least 4MiB and below 2^64 bytes")
}

fn body_days(days: u32) -> Result<Option<u32>, Error> {
    let Some(text) = var(BODY_DAYS)? else { return Ok(None) };
    let body_days = whole_days(BODY_DAYS)?;
    // Without valid HISTORY_DAYS there is nothing to compare with, and an error about them.
    match body_days <= days || days == 0 {
        true => Ok(Some(body_days)),
        false => Err(found(BODY_DAYS, &text, format!("at most HISTORY_DAYS ({days})"))),
    }
}

/// Writes the last entries before the process ends.
pub(crate) async fn finish(history: &History) {
    if let Err(error) = history.flush().await {
        tracing::warn!(%error, "the last entries of the history are lost");
    }
}
