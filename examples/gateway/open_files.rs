//! How many connections the limit of open files allows: each needs an open file.
//!
//! A part of the files is reserved. Otherwise strangers who only connect could use up the files that the gateway needs for
//! events, for targets and for etcd.

/// A quarter of the files is reserved for everything but connections, and at least this many.
const LEAST_KEPT: u64 = 128;

/// The operator's listener gets at most one in this many files.
const ADMIN_PART: u64 = 8;

/// How many connections each listener may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) webhooks: usize,
    pub(crate) admin: usize,
}

impl Places {
    /// As many of the `wanted` connections as a limit of `files` allows.
    pub(crate) fn within(files: u64, wanted: Self) -> Self {
        let admin = (wanted.admin as u64).min(files / ADMIN_PART);
        let left = files.saturating_sub(kept(files)).saturating_sub(admin);
        // At least one, or there would be no point in starting.
        let webhooks = (wanted.webhooks as u64).min(left).max(1);
        Self { webhooks: to_usize(webhooks), admin: to_usize(admin) }
    }

    /// A limit of open files that allows all of these connections.
    pub(crate) fn files(self) -> u64 {
        let connections = (self.webhooks as u64).saturating_add(self.admin as u64);
        let kept = connections.div_ceil(3).max(LEAST_KEPT);
        connections.saturating_add(kept).max((self.admin as u64).saturating_mul(ADMIN_PART))
    }
}

fn kept(files: u64) -> u64 {
    (files / 4).max(LEAST_KEPT)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(files: u64, webhooks: usize, admin: usize) -> (usize, usize) {
        let places = Places::within(files, Places { webhooks, admin });
        (places.webhooks, places.admin)
    }

    #[test]
    fn connections_leave_a_quarter_of_the_files() {
        assert_eq!(within(1 << 20, 10_000, 128), (10_000, 128));
        assert_eq!(within(1024, 10_000, 0), (768, 0));
        assert_eq!(within(1024, 10_000, 128), (640, 128));
        assert_eq!(within(1024, 600, 128), (600, 128));
        assert_eq!(within(256, 10_000, 128), (96, 32));
        for files in 0..200 {
            assert!(within(files, 10_000, 128).0 > 0, "{files}");
        }
        assert_eq!(within(u64::MAX, usize::MAX, 0).0, usize::MAX - usize::MAX / 4);
    }

    #[test]
    fn the_limit_that_is_named_is_enough() {
        for webhooks in (0..40_000).step_by(7).chain([1, usize::MAX]) {
            for admin in [0, 128] {
                let wanted = Places { webhooks: webhooks.max(1), admin };
                let files = wanted.files();
                assert!(files == u64::MAX || Places::within(files, wanted) == wanted, "{wanted:?} in {files}");
            }
        }
    }
}
