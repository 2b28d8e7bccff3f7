//! The wall clock that dates are compared with: when a secret expires, how old a signature is.
//!
//! Ages that begin in this process are measured by the monotonic clock, and whether the wall clock may be believed is a
//! question of its own.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Where the time comes from that the dates of secrets and signatures are compared with: the system's clock, or a function
/// of yours.
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

    /// A clock that says what `now` says: for tests, and for events that were queued before they are verified.
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
