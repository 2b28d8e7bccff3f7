//! The time limit for an attempt.

use std::time::Duration;

use crate::config::BuildError;
use crate::module::time_limit::time_limit;

/// The time limit of a webhook without the option `timeout`.
const DEFAULT: Duration = Duration::from_secs(10);

/// The time limit for an attempt, from the option `timeout` in seconds. Without it, it is 10 s.
///
/// # Errors
///
/// When it is not more than 0 and at most 300 seconds.
pub(crate) fn limit(timeout: Option<f64>) -> Result<Duration, BuildError> {
    timeout.map_or(Ok(DEFAULT), time_limit)
}
