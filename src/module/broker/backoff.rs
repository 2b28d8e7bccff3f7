//! The time to wait before the next attempt to connect.

use std::time::Duration;

/// The shortest wait, so that no error can cause a tight loop.
const LEAST: Duration = Duration::from_millis(20);

/// Backoff with jitter: each wait is drawn from the upper half below a bound that doubles with each failure in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The bound of the first wait is `first`, and no wait exceeds `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after another failure.
    pub(crate) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        Self::after(self.failures, self.first, self.longest)
    }

    /// The number of failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Begins again after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after this many failures, for clients that count them.
    pub(crate) fn after(failures: u32, first: Duration, longest: Duration) -> Duration {
        let bound = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
        bound.mul_f64(0.5 + fastrand::f64() / 2.0).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_differ() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let mut backoff = Backoff::new(first, longest);
            for failure in 0..40 {
                let wait = backoff.next();
                assert!(wait >= LEAST && wait <= longest);
                assert!(failure > 0 || (wait <= first && wait >= first / 2));
                assert!(failure < 6 || wait >= longest / 2);
                waits.insert(wait);
            }
            backoff.reset();
            assert!(backoff.next() <= first);
        }
        assert!(waits.len() > 1000, "the waits are random");
    }
}
