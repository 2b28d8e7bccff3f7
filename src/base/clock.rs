//! Decides when the wall clock may be trusted.
//!
//! A wall clock can step: a machine starts in 1970 and is set a little later, or its clock is a year ahead for a minute.
//! Such a step must neither make anything wait longer nor make anything expire. Waits and ages that begin in this process
//! are therefore measured by the monotonic clock alone. The age of anything older than the process is known only once
//! both clocks have advanced alike for [`AGREED`].

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::base::lock::lock;

/// The wall clock is trusted once it has advanced like the monotonic clock for this long.
pub(crate) const AGREED: Duration = Duration::from_secs(600);

/// How far the clocks may drift apart between two readings: by a leap second, or a small correction.
const TOLERANCE: i128 = Duration::from_secs(5).as_micros() as i128;

/// Both clocks of this process. Each call reads both.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    agreement: Mutex<Agreement>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let started = Instant::now();
        Self { started, agreement: Mutex::new(Agreement::begin(SystemTime::now(), Duration::ZERO)) }
    }

    /// A clock that was started `ago`, and whose clocks have agreed since.
    #[cfg(test)]
    pub(crate) fn started_before(ago: Duration) -> Self {
        let started = Instant::now().checked_sub(ago).unwrap();
        Self { started, agreement: Mutex::new(Agreement::begin(SystemTime::now() - ago, Duration::ZERO)) }
    }

    /// How long ago the clock was started.
    #[cfg(feature = "queue-disk")]
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time by which things of an earlier process may expire; `None` while the wall clock is not trusted.
    pub(crate) fn for_expiry(&self) -> Option<SystemTime> {
        self.look(|agreement, now| agreement.for_expiry(now))
    }

    /// The best estimate of the time, for timestamps.
    #[cfg(any(feature = "durable", feature = "queue-disk"))]
    pub(crate) fn for_stamps(&self) -> SystemTime {
        self.look(|agreement, now| agreement.for_stamps(now))
    }

    fn look<T>(&self, ask: impl FnOnce(&Agreement, Duration) -> T) -> T {
        // No code under this lock leaves the agreement half changed.
        let mut agreement = lock(&self.agreement);
        let now = self.started.elapsed();
        agreement.observe(SystemTime::now(), now);
        ask(&agreement, now)
    }
}

/// Whether two clocks agree. Pure: the times of both clocks come in, the monotonic time since its start.
#[derive(Debug)]
struct Agreement {
    /// The wall time at the start of the monotonic clock, by the last reading, in microseconds since 1970.
    offset: i128,
    /// Since when the clocks agree.
    since: Duration,
    /// The time of the last reading.
    seen: Duration,
    /// The offset when the clocks had last agreed for long enough.
    trusted: Option<i128>,
}

impl Agreement {
    fn begin(wall: SystemTime, monotonic: Duration) -> Self {
        Self { offset: offset(wall, monotonic), since: monotonic, seen: monotonic, trusted: None }
    }

    fn observe(&mut self, wall: SystemTime, monotonic: Duration) {
        let offset = offset(wall, monotonic);
        if (offset - self.offset).abs() > TOLERANCE {
            self.since = monotonic;
        }
        self.offset = offset;
        self.seen = monotonic;
        if self.agrees() {
            self.trusted = Some(offset);
        }
    }

    fn agrees(&self) -> bool {
        self.seen.saturating_sub(self.since) >= AGREED
    }

    fn for_expiry(&self, monotonic: Duration) -> Option<SystemTime> {
        self.trusted.filter(|_| self.agrees()).map(|offset| wall(offset, monotonic))
    }

    #[cfg(any(feature = "durable", feature = "queue-disk"))]
    fn for_stamps(&self, monotonic: Duration) -> SystemTime {
        wall(self.trusted.unwrap_or(self.offset), monotonic)
    }
}

fn offset(wall: SystemTime, monotonic: Duration) -> i128 {
    let since_1970 = match wall.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_micros() as i128,
        Err(before) => -(before.duration().as_micros() as i128),
    };
    since_1970 - monotonic.as_micros() as i128
}

/// Never before 1970.
fn wall(offset: i128, monotonic: Duration) -> SystemTime {
    let micros = (offset + monotonic.as_micros() as i128).clamp(0, i128::from(i64::MAX));
    UNIX_EPOCH + Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TODAY: u64 = 1_795_410_874;
    const YEAR: u64 = 365 * 24 * 3600;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Feeds pairs of a wall time and a monotonic time, in seconds. Returns the time for expiry after each pair.
    fn feed(pairs: &[(u64, u64)]) -> Vec<Option<u64>> {
        let mut agreement: Option<Agreement> = None;
        let seen = pairs.iter().map(|&(wall, monotonic)| {
            let monotonic = Duration::from_secs(monotonic);
            let agreement = agreement.get_or_insert_with(|| Agreement::begin(at(wall), monotonic));
            agreement.observe(at(wall), monotonic);
            let time = agreement.for_expiry(monotonic);
            time.map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
        });
        seen.collect()
    }

    #[test]
    fn a_clock_is_trusted_after_ten_minutes() {
        let seen = feed(&[(TODAY, 0), (TODAY + 599, 599), (TODAY + 600, 600), (TODAY + 4000, 4000)]);
        assert_eq!(seen, [None, None, Some(TODAY + 600), Some(TODAY + 4000)]);
    }

    #[test]
    fn a_clock_that_is_set_is_trusted_ten_minutes_later() {
        let seen = feed(&[(0, 0), (TODAY, 5), (TODAY + 599, 604), (TODAY + 600, 605)]);
        assert_eq!(seen, [None, None, None, Some(TODAY + 600)]);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_minute_is_not_trusted() {
        let ahead = TODAY + YEAR;
        let seen = feed(&[
            (TODAY, 0),
            (TODAY + 600, 600),
            (ahead + 660, 660),
            (ahead + 719, 719),
            (TODAY + 720, 720),
            (TODAY + 1319, 1319),
            (TODAY + 1320, 1320),
        ]);
        assert_eq!(seen, [None, Some(TODAY + 600), None, None, None, None, Some(TODAY + 1320)]);
        assert_eq!(feed(&[(ahead, 0), (ahead + 60, 60), (TODAY + 61, 61), (TODAY + 600, 600)]), [None; 4]);
    }

    #[test]
    fn a_small_correction_is_no_step() {
        let seen = feed(&[(TODAY, 0), (TODAY + 301, 300), (TODAY + 599, 600)]);
        assert_eq!(seen.last(), Some(&Some(TODAY + 599)));
    }

    #[test]
    fn timestamps_follow_the_clock_that_was_trusted_last() {
        let mut agreement = Agreement::begin(at(0), Duration::ZERO);
        let mut stamp = |wall: u64, monotonic: u64| {
            agreement.observe(at(wall), Duration::from_secs(monotonic));
            agreement.for_stamps(Duration::from_secs(monotonic)).duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(stamp(3, 3), 3, "no better time is known");
        assert_eq!(stamp(TODAY, 5), TODAY);
        assert_eq!(stamp(TODAY + 600, 605), TODAY + 600);
        assert_eq!(stamp(TODAY + YEAR, 610), TODAY + 605, "the clock was right until now");
        assert_eq!(stamp(60, 615), TODAY + 610);
    }

    proptest! {
        /// Whatever the wall clock does, nothing expires before both clocks have agreed for ten minutes.
        #[test]
        fn no_step_of_the_last_ten_minutes_is_trusted(steps in prop::collection::vec((0..3 * TODAY, 1..900_u64), 1..40)) {
            let mut agreement = Agreement::begin(at(TODAY), Duration::ZERO);
            let (mut monotonic, mut stepped) = (0, 0);
            let mut last = TODAY;
            for (wall, wait) in steps {
                // Two of three readings advance steadily.
                let steady = last + wait;
                monotonic += wait;
                let wall = if wall % 3 == 0 { wall } else { steady };
                if wall.abs_diff(steady) > 5 {
                    stepped = monotonic;
                }
                last = wall;
                agreement.observe(at(wall), Duration::from_secs(monotonic));
                let usable = agreement.for_expiry(Duration::from_secs(monotonic));
                prop_assert_eq!(usable, (monotonic - stepped >= 600).then(|| at(wall)));
            }
        }
    }
}
