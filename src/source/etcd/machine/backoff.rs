//! The time to wait before the next attempt.

use std::time::Duration;

/// Backoff with full jitter: each wait is drawn uniformly from below a bound that doubles with each failure in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

/// The shortest wait, so that no error can cause a tight loop.
pub(super) const LEAST_WAIT: Duration = Duration::from_millis(20);

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    pub(super) fn next(&mut self, random: &mut fastrand::Rng) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random.f64()).max(LEAST_WAIT)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_are_never_zero() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut random = fastrand::Rng::with_seed(1);
        let mut seen = Duration::ZERO;
        for _ in 0..50 {
            let mut backoff = Backoff::new(first, longest);
            for failure in 0..40 {
                let wait = backoff.next(&mut random);
                assert!(wait >= LEAST_WAIT && wait <= longest);
                assert!(failure > 0 || wait <= first);
                seen = seen.max(wait);
            }
            backoff.reset();
            assert!(backoff.next(&mut random) <= first);
        }
        assert!(seen > longest / 2);
    }
}
