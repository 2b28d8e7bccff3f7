//! The wall clock for the dates of secrets and signatures.
//!
//! Ages that begin in this process are measured by the monotonic clock instead, and the module `clock` decides when events
//! may expire by the wall clock.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// The clock that the dates of secrets and signatures are compared with: the system's clock, or a function of your own.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use tower_webhook::auth::WallClock;
///
/// let stopped = WallClock::from_fn(|| UNIX_EPOCH + Duration::from_secs(1_700_000_000));
/// assert_eq!(stopped.now(), stopped.now());
/// ```
#[derive(Clone, Default)]
pub struct WallClock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl WallClock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that returns the result of `now`: for tests, and for events that were queued before they are verified.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time.
    pub fn now(&self) -> SystemTime {
        self.0.as_ref().map_or_else(SystemTime::now, |now| now())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "WallClock(a function)" } else { "WallClock(the system's)" })
    }
}
