//! The status of the configuration, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::snapshot::Snapshot;

/// The kind of an error between a source and the system that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The endpoint cannot be reached.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// A certificate was not accepted, on either side.
    Tls,
    /// The user name or password was refused.
    Unauthenticated,
    /// The user lacks permission to read the keys.
    PermissionDenied,
    /// The cluster has no leader, or this member does not know one.
    NoLeader,
    /// The member is a learner, which serves no reads until it is promoted.
    Learner,
    /// The requested revision has been compacted.
    Compacted,
    /// A message exceeded the size limit.
    TooLarge,
    /// The peer violated the protocol, or speaks another one.
    Protocol,
    /// The source now has another history: it was wiped, or restored from a backup.
    HistoryChanged,
    /// A change was missed.
    LostEvents,
    /// A file cannot be read, or its content is invalid.
    File,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// A short, stable name for status pages and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NoLeader => "no_leader",
            Self::Learner => "learner",
            Self::Compacted => "compacted",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
            Self::HistoryChanged => "history_changed",
            Self::LostEvents => "lost_events",
            Self::File => "file",
            Self::Other => "other",
        }
    }
}

/// Why the source read everything, instead of only the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ListReason {
    /// The source has just started.
    Start,
    /// The changes since the last known revision have been compacted.
    Compacted,
    /// The changes since the last known revision do not fit in a message.
    TooLarge,
    /// The source now has another history.
    HistoryChanged,
    /// A change was missed.
    LostEvents,
}

impl ListReason {
    /// A short, stable name for status pages and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Compacted => "compacted",
            Self::TooLarge => "too_large",
            Self::HistoryChanged => "history_changed",
            Self::LostEvents => "lost_events",
        }
    }
}

/// The state of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceState {
    /// The source has not tried to connect yet.
    Starting,
    /// The source follows every change.
    Live,
    /// The source has heard nothing for longer than expected, and asks.
    Stale,
    /// The source cannot see changes, for this reason; the last configuration is served.
    Disconnected(String),
}

impl SourceState {
    /// A short, stable name for status pages and metric labels.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "healthy",
            Self::Stale => "stale",
            Self::Disconnected(_) => "disconnected",
        }
    }

    /// Why the source is disconnected.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Disconnected(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Facts about a source, beside its state.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceReport {
    /// The endpoint that the source is connected to, or was last.
    pub endpoint: Option<String>,
    /// The version of the server, if it reported one.
    pub server_version: Option<String>,
    /// Faults that the server reports itself, such as the alarm of a full or corrupt store. The source asks for them
    /// with each connection and every 10 s, and keeps reading from such a server.
    pub server_errors: Vec<String>,
    /// Things that an operator should look at although the source works, such as credentials that the server does not
    /// ask for.
    pub warnings: Vec<String>,
    /// The number of histories followed so far: it grows when the source turns out to have another history.
    pub epoch: u64,
    /// The number of connections made.
    pub connects: u64,
    /// The number of times everything was read, by reason.
    pub lists: BTreeMap<ListReason, u64>,
    /// The number of times a missed change was detected.
    pub anomalies: u64,
    /// The number of complete comparisons of all keys and values with the source that found no difference.
    pub audits: u64,
    /// The number of complete comparisons that found a difference.
    pub differences: u64,
    /// The number of errors, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// The last error.
    pub last_error: Option<LastError>,
    /// Whether the configuration that is served comes from the saved copy, because the source has not been reached
    /// since the start.
    pub from_saved_copy: bool,
    /// Why the copy cannot be written; `None` if it can.
    pub copy_error: Option<String>,
}

/// The last error of a source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastError {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The reason, for operators. It holds no secret.
    pub reason: String,
    /// When the error happened.
    pub at: SystemTime,
}

impl SourceReport {
    /// Records an error. The reason is shown to operators and must not hold a secret.
    pub fn failed(&mut self, kind: ErrorKind, reason: String) {
        *self.errors.entry(kind).or_default() += 1;
        self.last_error = Some(LastError { kind, reason, at: SystemTime::now() });
    }
}

/// A key of the source that is neither a webhook's nor a connection's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredKey {
    /// The key, with control characters escaped. A long key is cut.
    pub key: String,
    /// Why it is ignored.
    pub reason: String,
    /// The nearest valid key, if one is near.
    pub hint: Option<String>,
}

/// The state of the configuration, for status pages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The kind of the source.
    pub source: &'static str,
    /// The state of the source.
    pub state: SourceState,
    /// When the source entered this state.
    pub state_since: SystemTime,
    /// The number of keys of the source that are neither a webhook's nor a connection's.
    pub ignored_keys: u64,
    /// The first of these keys, at most 100.
    pub ignored: Arc<[IgnoredKey]>,
    /// Facts about the source, beside its state.
    pub report: SourceReport,
    /// The configuration that is served.
    pub snapshot: Arc<Snapshot>,
    pub(super) proven: Option<Instant>,
}

impl Status {
    /// The most that the configuration can be out of date: the time since the source was last asked for changes and
    /// confirmed that there were no others. `None` before the first confirmation, and from a source that cannot
    /// confirm.
    pub fn staleness(&self) -> Option<Duration> {
        self.proven.map(|at| at.elapsed())
    }
}
