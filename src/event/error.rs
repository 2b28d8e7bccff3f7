//! The errors of a module that could not deliver an event.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// No event waits longer than this for its next attempt, whatever the target asks for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The error of a module that could not deliver an event.
#[derive(Clone, Debug)]
pub struct DeliverError {
    kind: DeliverErrorKind,
    reason: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// The module that failed, if it is an item of a chain.
    module: Option<Arc<str>>,
}

/// The kind of a delivery error. A webhook's `retry` names the kinds to retry, and the kind determines the sender's status
/// code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeliverErrorKind {
    /// There was no connection to the target, or it broke: 502.
    Connect,
    /// There was no answer in time: 504.
    Timeout,
    /// A resource of this machine failed, such as a disk: 503.
    Io,
    /// The target cannot take events now, but maybe later (a 5xx, a broker that is starting or has no leader): 502.
    Unavailable,
    /// The target limits the rate, or a quota is used up (a 429): 502.
    Throttled,
    /// The target refused the credentials: 502.
    Auth,
    /// The module is configured in a way that cannot work: 502.
    Config,
    /// The target will never take this event: 502.
    Permanent,
    /// The event has passed too many webhooks, which may be a loop: 508.
    Loop,
}

impl DeliverErrorKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Timeout,
        Self::Io,
        Self::Unavailable,
        Self::Throttled,
        Self::Auth,
        Self::Config,
        Self::Permanent,
        Self::Loop,
    ];

    /// The name of the kind in configurations, logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Io => "io",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Auth => "auth",
            Self::Config => "config",
            Self::Permanent => "permanent",
            Self::Loop => "loop",
        }
    }
}

impl DeliverError {
    /// An error with a reason for the operator's log. The sender learns only the status code of the kind.
    pub fn new(kind: DeliverErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, reason: reason.into(), retry_after: None, module: None }
    }

    /// Adds the time that the target asked to wait before the next attempt.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Adds the item of a chain that failed, and its module.
    pub(crate) fn in_chain(self, item: usize, module: &Arc<str>) -> Self {
        let reason = format!("chain.{item} {module}: {}", self.reason).into();
        Self { reason, module: Some(Arc::clone(module)), ..self }
    }

    /// The name of the module that failed, if it is an item of a chain.
    pub(crate) fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// The kind of the error.
    pub fn kind(&self) -> DeliverErrorKind {
        self.kind
    }

    /// The time that the target asked to wait, if it did.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for DeliverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DeliverError {}
