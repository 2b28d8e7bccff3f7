//! What an operator is shown.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Snapshot;

/// What the source of the configuration is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceState {
    /// Nothing has been tried yet.
    Starting,
    /// It follows every change.
    Live,
    /// It has not heard from its peer for longer than it should, and is asking.
    Stale,
    /// It cannot see changes; the last configuration is served. With the reason.
    Disconnected(String),
}

impl SourceState {
    /// A short, stable word for status pages and metric labels.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "healthy",
            Self::Stale => "stale",
            Self::Disconnected(_) => "disconnected",
        }
    }

    /// Why it is disconnected.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Disconnected(reason) => Some(reason),
            _ => None,
        }
    }
}

/// The state of the configuration, for status pages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The kind of the source.
    pub source: &'static str,
    /// What the source is doing.
    pub state: SourceState,
    /// Since when.
    pub state_since: SystemTime,
    /// Keys of the source that are neither a webhook's nor a connection's.
    pub ignored_keys: u64,
    /// What is served.
    pub snapshot: Arc<Snapshot>,
    pub(super) proven: Option<Instant>,
}

impl Status {
    /// How old what is served may be at most: the time since the source was asked, and answered that nothing else had
    /// changed. `None` from a source that cannot tell, and before the first answer.
    pub fn staleness(&self) -> Option<Duration> {
        self.proven.map(|at| at.elapsed())
    }
}
