//! Why a module did not take an event.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// No event waits longer than this for its next attempt, whatever the target asks for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Why a module did not take an event.
#[derive(Clone, Debug)]
pub struct DeliverError {
    kind: DeliverErrorKind,
    reason: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// The module that it comes from, if that is an item of a chain.
    module: Option<Arc<str>>,
}

/// What went wrong, as far as it matters for what is done next: a webhook's `retry` names these, and the sender's answer
/// follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeliverErrorKind {
    /// No connection to the target, or it broke: 502.
    Connect,
    /// No answer in time: 504.
    Timeout,
    /// Something of this machine's own failed, as a disk: 503.
    Io,
    /// The target cannot take events now, and may later (a 5xx, a broker that is starting or has no leader): 502.
    Unavailable,
    /// The target takes no more events for now (a 429, a quota that is used up): 502.
    Throttled,
    /// The target wants other credentials: 502.
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

    /// The word for it in configuration, logs and metric labels.
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
    /// An error for the operator's log; the sender learns only what follows from the kind.
    pub fn new(kind: DeliverErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, reason: reason.into(), retry_after: None, module: None }
    }

    /// The target asked to be left alone for so long.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The same error, and whose it is: the item of a chain, and its module.
    pub(crate) fn of(self, item: usize, module: &Arc<str>) -> Self {
        let reason = format!("chain.{item} {module}: {}", self.reason).into();
        Self { reason, module: Some(Arc::clone(module)), ..self }
    }

    /// The name of the module that it comes from, if that is an item of a chain.
    pub(crate) fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// What went wrong.
    pub fn kind(&self) -> DeliverErrorKind {
        self.kind
    }

    /// How long the target asked to be left alone, if it did.
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
