//! A rate limit for log lines that requests can cause.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::base::lock::lock;

/// The default limit.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(5);

/// Beyond this number of keys, further keys share one limit.
const MAX_KEYS: usize = 1024;

/// Limits how often a line is logged, separately for each key.
///
/// A key may have a burst of lines, and then one line for each interval. The next line that is logged says how many
/// lines were left out before it. Memory is bounded: at most 1,024 keys have a limit of their own at the same time; all
/// other keys share one.
///
/// ```
/// use std::time::Duration;
/// use tower_webhook::LogLimit;
///
/// let limit = LogLimit::new(2, Duration::from_secs(60));
/// let logged: Vec<_> = (0..5).filter_map(|_| limit.admit("10.1.2.3")).collect();
/// assert_eq!(logged, [0, 0]);
/// ```
pub struct LogLimit<K> {
    buckets: Mutex<Buckets<K>>,
}

impl<K: Eq + Hash> LogLimit<K> {
    /// A key may have `burst` lines at once (at least one), and then one line for each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { buckets: Mutex::new(Buckets::new(burst, interval)) }
    }

    /// Asks whether a line about `key` may be logged now. If so, returns how many lines about it were left out since the
    /// last one.
    pub fn admit(&self, key: K) -> Option<u64> {
        self.lock().admit(key, Instant::now())
    }

    /// Takes the counts of left-out lines that no later line has reported, for each key without a new left-out line for
    /// `quiet`. Keys without a limit of their own are counted together, as `None`.
    ///
    /// Call it from time to time, so that the last lines of a flood are counted too.
    pub fn take_rest(&self, quiet: Duration) -> Vec<(Option<K>, u64)>
    where
        K: Clone,
    {
        self.lock().take_rest(quiet, Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Buckets<K>> {
        lock(&self.buckets)
    }
}

/// Ten lines at once, and then one for each 5 s.
impl<K: Eq + Hash> Default for LogLimit<K> {
    fn default() -> Self {
        Self::new(BURST, INTERVAL)
    }
}

impl<K> fmt::Debug for LogLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLimit").finish_non_exhaustive()
    }
}

/// The limits of all keys. Pure: the time comes in.
struct Buckets<K> {
    /// How far the lines of a key may be ahead of one line for each interval.
    tolerance: Duration,
    interval: Duration,
    buckets: HashMap<K, Bucket, RandomState>,
    /// For keys that find no room in `buckets`.
    others: Bucket,
    /// When keys were last removed to make room.
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The time at which all logged lines would be due, at one line for each interval. It is in the past if the whole burst
    /// is available.
    due: Option<Instant>,
    left_out: u64,
    /// When a line was last left out.
    silenced: Option<Instant>,
}

impl Bucket {
    fn admit(&mut self, now: Instant, interval: Duration, tolerance: Duration) -> Option<u64> {
        let due = self.due.map_or(now, |due| due.max(now));
        if due.duration_since(now) > tolerance {
            self.left_out = self.left_out.saturating_add(1);
            self.silenced = Some(now);
            return None;
        }
        // A time that overflows never comes.
        self.due = Some(due.checked_add(interval).unwrap_or(due));
        Some(std::mem::take(&mut self.left_out))
    }

    fn take_rest(&mut self, quiet: Duration, now: Instant) -> Option<u64> {
        let is_quiet = self.silenced.is_none_or(|last| now.saturating_duration_since(last) >= quiet);
        (is_quiet && self.left_out > 0).then(|| std::mem::take(&mut self.left_out))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(burst: u32, interval: Duration) -> Self {
        let tolerance = interval.saturating_mul(burst.saturating_sub(1));
        Self { tolerance, interval, buckets: HashMap::default(), others: Bucket::default(), swept: None }
    }

    fn admit(&mut self, key: K, now: Instant) -> Option<u64> {
        let (interval, tolerance) = (self.interval, self.tolerance);
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.admit(now, interval, tolerance);
        }
        if self.buckets.len() >= MAX_KEYS {
            self.sweep(now);
        }
        let bucket = match self.buckets.len() < MAX_KEYS {
            true => self.buckets.entry(key).or_default(),
            false => &mut self.others,
        };
        bucket.admit(now, interval, tolerance)
    }

    fn take_rest(&mut self, quiet: Duration, now: Instant) -> Vec<(Option<K>, u64)>
    where
        K: Clone,
    {
        let own = self.buckets.iter_mut().map(|(key, bucket)| (Some(key.clone()), bucket));
        let all = own.chain([(None, &mut self.others)]);
        all.filter_map(|(key, bucket)| Some((key, bucket.take_rest(quiet, now)?))).collect()
    }

    /// Removes the keys whose whole burst is available again. Visits every key, so it runs at most once per interval.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < self.interval) {
            return;
        }
        self.swept = Some(now);
        let others = &mut self.others;
        self.buckets.retain(|_, bucket| {
            let stays = !bucket.is_fresh(now);
            if !stays {
                others.left_out = others.left_out.saturating_add(bucket.left_out);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_logged_and_then_one_line_for_each_interval() {
        let (mut buckets, start) = (Buckets::new(3, 10 * SECOND), Instant::now());
        let mut at = |seconds: u32| buckets.admit("a", start + SECOND * seconds);
        assert_eq!([at(0), at(0), at(0), at(0), at(9)], [Some(0), Some(0), Some(0), None, None]);
        assert_eq!([at(10), at(10), at(20), at(20)], [Some(2), None, Some(1), None]);
        // However long the silence, only the burst is available.
        assert_eq!([at(999), at(999), at(999), at(999)], [Some(1), Some(0), Some(0), None]);
    }

    #[test]
    fn one_key_does_not_silence_another() {
        let (mut buckets, now) = (Buckets::new(1, SECOND), Instant::now());
        for key in 0..10 {
            assert_eq!([buckets.admit(key, now), buckets.admit(key, now)], [Some(0), None]);
        }
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_every_line_is_counted() {
        let (mut buckets, start) = (Buckets::new(1, SECOND), Instant::now());
        let (mut logged, mut left_out) = (0, 0);
        let keys = 3 * MAX_KEYS;
        for round in 0..10 {
            for key in 0..keys {
                if let Some(before) = buckets.admit(key, start + 5 * SECOND * round) {
                    (logged, left_out) = (logged + 1, left_out + before);
                }
            }
            assert!(buckets.buckets.len() <= MAX_KEYS);
        }
        let pending: u64 = buckets.buckets.values().chain([&buckets.others]).map(|bucket| bucket.left_out).sum();
        assert_eq!(logged + left_out + pending, 10 * keys as u64);
        assert_eq!(logged, 10 * (MAX_KEYS as u64 + 1));
    }

    #[test]
    fn the_end_of_a_flood_is_counted_once_it_is_quiet() {
        let (mut buckets, start) = (Buckets::new(1, 60 * SECOND), Instant::now());
        for second in 0..10 {
            buckets.admit("flood", start + SECOND * second);
        }
        buckets.admit("single", start);
        assert_eq!(buckets.take_rest(2 * SECOND, start + 10 * SECOND), []);
        assert_eq!(buckets.take_rest(2 * SECOND, start + 11 * SECOND), [(Some("flood"), 9)]);
        assert_eq!(buckets.take_rest(2 * SECOND, start + 12 * SECOND), [], "once");
        assert_eq!(buckets.admit("flood", start + 12 * SECOND), None, "and the limit stays");
        let mut many = Buckets::new(1, SECOND);
        for key in 0..2 * MAX_KEYS {
            many.admit(key, start);
        }
        assert_eq!(many.take_rest(Duration::ZERO, start), [(None, MAX_KEYS as u64 - 1)]);
    }

    #[test]
    fn extreme_limits_do_not_panic() {
        for (burst, interval) in [(0, Duration::ZERO), (u32::MAX, Duration::MAX), (0, Duration::MAX)] {
            let mut buckets = Buckets::new(burst, interval);
            assert_eq!(buckets.admit((), Instant::now()), Some(0));
            buckets.admit((), Instant::now());
        }
    }
}
