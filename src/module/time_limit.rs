//! The option `timeout` of a module or a connection.

use std::time::Duration;

use crate::config::BuildError;

/// The longest time limit, in seconds.
const LONGEST: f64 = 300.0;

/// A time limit from its number of seconds.
///
/// # Errors
///
/// When it is not more than 0 and at most 300.
pub(super) fn time_limit(seconds: f64) -> Result<Duration, BuildError> {
    // The value may be NaN, from an environment variable.
    match seconds > 0.0 && seconds <= LONGEST {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("`timeout` must be more than 0 and at most 300 seconds".into()),
    }
}
