//! Which refused requests are kept in a flood.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Refused requests of a namespace that are kept in each second. Of more, one of [`SAMPLE`] is kept.
const REFUSED: u32 = 50;
const SAMPLE: u32 = 50;

/// Which refused requests are kept in a flood.
#[derive(Default)]
pub(super) struct Sampling {
    second: Option<Instant>,
    seen: HashMap<Box<str>, u32>,
}

impl Sampling {
    pub(super) fn begin(&mut self, now: Instant) {
        if self.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.seen.clear();
        }
    }

    pub(super) fn keeps(&mut self, namespace: &str) -> bool {
        let seen = match self.seen.get_mut(namespace) {
            Some(seen) => seen,
            None => self.seen.entry(namespace.into()).or_default(),
        };
        *seen += 1;
        *seen <= REFUSED || *seen % SAMPLE == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refused_requests_is_sampled_by_namespace() {
        let mut sampling = Sampling::default();
        let now = Instant::now();
        sampling.begin(now);
        assert_eq!((0..10_000).filter(|_| sampling.keeps("loud")).count(), 50 + 199);
        assert_eq!((0..50).filter(|_| sampling.keeps("quiet")).count(), 50);
        sampling.begin(now + Duration::from_millis(999));
        assert!((0..49).all(|_| !sampling.keeps("quiet")));
        sampling.begin(now + Duration::from_secs(1));
        assert!(sampling.keeps("quiet"));
    }
}
