//! What an operator is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::snapshot::Snapshot;

/// What kind of thing went wrong between a source and what it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nobody answers there.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// A certificate was not accepted, on either side.
    Tls,
    /// The user or its password was refused.
    Unauthenticated,
    /// The user may not read there.
    PermissionDenied,
    /// The cluster has no leader, or this member does not see one.
    NoLeader,
    /// The member has no vote yet, and answers nobody until it has.
    Learner,
    /// The past that was asked for is gone.
    Compacted,
    /// A message was larger than is taken.
    TooLarge,
    /// The peer said what its protocol does not allow, or it speaks another.
    Protocol,
    /// The peer tells another history than before.
    HistoryChanged,
    /// A change was missed.
    LostEvents,
    /// A file cannot be read, or does not hold what it should.
    File,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// A short, stable word for status pages and metric labels.
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

/// Why everything is read, instead of only what has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ListReason {
    /// There is nothing to go on from.
    Start,
    /// What happened since has been compacted.
    Compacted,
    /// What happened since does not fit a message.
    TooLarge,
    /// It is another history than before.
    HistoryChanged,
    /// A change was missed.
    LostEvents,
}

impl ListReason {
    /// A short, stable word for status pages and metric labels.
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

/// What a source tells of itself beside its state.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceReport {
    /// Where it is connected, or was last.
    pub endpoint: Option<String>,
    /// The version of the server there, if it told.
    pub server_version: Option<String>,
    /// Faults that the server names itself, such as the alarm of a full or corrupt store: asked for with each connection
    /// and every 10 s. The server is read all the same.
    pub server_errors: Vec<String>,
    /// Oddities that an operator should look at, though the source works: for one, credentials that the server does not
    /// ask for.
    pub warnings: Vec<String>,
    /// How many histories have been followed: one more each time it was another than before.
    pub epoch: u64,
    /// How often a connection was made.
    pub connects: u64,
    /// How often everything was read, and why.
    pub lists: BTreeMap<ListReason, u64>,
    /// How often it was found that a change had been missed.
    pub anomalies: u64,
    /// How often every key and its value was compared and found as known.
    pub audits: u64,
    /// How often the comparison of every key and its value found one that is not as known.
    pub differences: u64,
    /// How often something went wrong, and what.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// Whether what is served comes from the saved copy, and the source has not been reached since the start.
    pub from_saved_copy: bool,
    /// Why the copy cannot be written, if it cannot.
    pub copy_error: Option<String>,
}

/// What went wrong last.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastError {
    /// What kind of thing.
    pub kind: ErrorKind,
    /// In words. It holds no secret.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}

impl SourceReport {
    /// Notes that something went wrong. The reason is shown to operators and must not hold a secret.
    pub fn failed(&mut self, kind: ErrorKind, reason: String) {
        *self.errors.entry(kind).or_default() += 1;
        self.last_error = Some(LastError { kind, reason, at: SystemTime::now() });
    }
}

/// A key of the source that is neither a webhook's nor a connection's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredKey {
    /// The key, with its control characters escaped. A long one is cut.
    pub key: String,
    /// Why it is ignored.
    pub reason: String,
    /// The nearest key that would be used, if there is one.
    pub hint: Option<String>,
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
    /// How many keys of the source are neither a webhook's nor a connection's.
    pub ignored_keys: u64,
    /// The first of them, at most 100.
    pub ignored: Arc<[IgnoredKey]>,
    /// What the source tells beside its state.
    pub report: SourceReport,
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
