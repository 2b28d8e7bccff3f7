//! The options of `log`.

use serde::Deserialize;

/// The options of [`Log`](super::Log).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Over several lines, indented.
    pub pretty_print: bool,
    /// Whether secrets are redacted; on unless it is switched off.
    pub redact_sensitive: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { pretty_print: false, redact_sensitive: true }
    }
}
