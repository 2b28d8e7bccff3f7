//! The options of `log`.

use serde::Deserialize;

/// The options of [`Log`](super::Log).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Whether an event is printed over several lines, indented. Off by default.
    pub pretty_print: bool,
    /// Whether secrets are redacted. On by default.
    pub redact_sensitive: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { pretty_print: false, redact_sensitive: true }
    }
}
