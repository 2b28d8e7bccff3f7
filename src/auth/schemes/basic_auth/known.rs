//! The passwords of a user that have been right lately.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::fits::Fits;
use crate::base::lock::lock;

/// An entry that has not been used for this long is removed.
const KEPT: Duration = Duration::from_secs(60);

/// Digests of passwords that were right. There are at most as many as the user has passwords.
pub(super) struct Known {
    most: usize,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    digest: [u8; 32],
    fits: Fits,
    used: Instant,
}

impl Known {
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Mutex::default() }
    }

    /// Which configured passwords the password with this digest matches; `None` if it is not known.
    pub(super) fn find(&self, digest: &[u8; 32]) -> Option<Fits> {
        self.find_at(digest, Instant::now())
    }

    /// `fits` is not empty.
    pub(super) fn remember(&self, digest: [u8; 32], fits: Fits) {
        self.remember_at(digest, fits, Instant::now());
    }

    fn find_at(&self, digest: &[u8; 32], now: Instant) -> Option<Fits> {
        let mut entries = lock(&self.entries);
        entries.retain(|entry| now.saturating_duration_since(entry.used) < KEPT);
        let found = entries.iter_mut().find(|entry| entry.digest.ct_eq(digest).into())?;
        found.used = now.max(found.used);
        Some(found.fits)
    }

    fn remember_at(&self, digest: [u8; 32], fits: Fits, now: Instant) {
        let mut entries = lock(&self.entries);
        entries.retain(|entry| entry.digest != digest);
        if entries.len() >= self.most
            && let Some(oldest) = (0..entries.len()).min_by_key(|at| entries[*at].used)
        {
            entries.swap_remove(oldest);
        }
        entries.push(Entry { digest, fits, used: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(at: usize) -> Fits {
        Fits::of((0..16).map(|other| other == at))
    }

    #[test]
    fn a_password_is_known_for_as_long_as_it_is_used() {
        let (known, start) = (Known::new(1), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(known.find_at(&[1; 32], at(0)), None);
        known.remember_at([1; 32], fits(0), at(0));
        assert_eq!(known.find_at(&[1; 32], at(59)), Some(fits(0)));
        assert_eq!(known.find_at(&[1; 32], at(118)), Some(fits(0)));
        assert_eq!(known.find_at(&[2; 32], at(118)), None);
        assert_eq!(known.find_at(&[1; 32], at(178)), None);
        assert!(lock(&known.entries).is_empty(), "nothing of it is left");
    }

    #[test]
    fn no_more_are_known_than_the_user_has_passwords() {
        let (known, start) = (Known::new(2), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        known.remember_at([1; 32], fits(0), at(0));
        known.remember_at([2; 32], fits(0), at(1));
        assert_eq!(known.find_at(&[1; 32], at(2)), Some(fits(0)));
        known.remember_at([3; 32], fits(0), at(3));
        let found = [1, 2, 3].map(|digest| known.find_at(&[digest; 32], at(4)).is_some());
        assert_eq!(found, [true, false, true], "the one goes that was used longest ago");
        known.remember_at([3; 32], fits(1), at(5));
        assert_eq!(known.find_at(&[3; 32], at(5)), Some(fits(1)));
        assert_eq!(lock(&known.entries).len(), 2);
    }
}
