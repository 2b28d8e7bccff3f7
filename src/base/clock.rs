//! When the wall clock may be believed.
//!
//! A wall clock is set: a machine starts in 1970 and is set right a little later, or it is a year ahead for a minute.
//! What such a clock says must neither make anything wait longer nor make anything expire. So waits and ages that
//! begin in this process are measured by the monotonic clock alone; the age of anything that is older than the process is
//! known only once both clocks have agreed for [`AGREED`].

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::base::lock::lock;

/// The wall clock is believed when it has gone as the monotonic one for so long.
pub(crate) const AGREED: Duration = Duration::from_secs(600);

/// Both may drift apart by so much from one look to the next: a leap second, or a small correction.
const TOLERANCE: i128 = Duration::from_secs(5).as_micros() as i128;

/// Both clocks of this process, looked at with each question.
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

    /// One that began so long ago, and has agreed since.
    #[cfg(test)]
    pub(crate) fn started_before(ago: Duration) -> Self {
        let started = Instant::now().checked_sub(ago).unwrap();
        Self { started, agreement: Mutex::new(Agreement::begin(SystemTime::now() - ago, Duration::ZERO)) }
    }

    /// How long this process has known of this clock.
    #[cfg(feature = "queue-disk")]
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time that things of an earlier process may expire by, if it is known.
    pub(crate) fn for_expiry(&self) -> Option<SystemTime> {
        self.look(|agreement, now| agreement.for_expiry(now))
    }

    /// The best that is known of the time, to be written down.
    pub(crate) fn for_stamps(&self) -> SystemTime {
        self.look(|agreement, now| agreement.for_stamps(now))
    }

    fn look<T>(&self, ask: impl FnOnce(&Agreement, Duration) -> T) -> T {
        // Nothing that runs under the lock leaves it half changed.
        let mut agreement = lock(&self.agreement);
        let now = self.started.elapsed();
        agreement.observe(SystemTime::now(), now);
        ask(&agreement, now)
    }
}

/// What two clocks have said of each other. It has no clock of its own: it is fed pairs of a wall time and a monotonic
/// time, the latter since some start.
#[derive(Debug)]
struct Agreement {
    /// The wall time at the monotonic clock's start, as last seen, in microseconds since 1970.
    offset: i128,
    /// Since when they agree, and when that was last seen.
    since: Duration,
    seen: Duration,
    /// The offset when they had last agreed for long enough.
    believed: Option<i128>,
}

impl Agreement {
    fn begin(wall: SystemTime, monotonic: Duration) -> Self {
        Self { offset: offset(wall, monotonic), since: monotonic, seen: monotonic, believed: None }
    }

    fn observe(&mut self, wall: SystemTime, monotonic: Duration) {
        let offset = offset(wall, monotonic);
        if (offset - self.offset).abs() > TOLERANCE {
            self.since = monotonic;
        }
        self.offset = offset;
        self.seen = monotonic;
        if self.agrees() {
            self.believed = Some(offset);
        }
    }

    fn agrees(&self) -> bool {
        self.seen.saturating_sub(self.since) >= AGREED
    }

    fn for_expiry(&self, monotonic: Duration) -> Option<SystemTime> {
        self.believed.filter(|_| self.agrees()).map(|offset| wall(offset, monotonic))
    }

    fn for_stamps(&self, monotonic: Duration) -> SystemTime {
        wall(self.believed.unwrap_or(self.offset), monotonic)
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

    /// Feeds pairs of a wall time and a monotonic time, in seconds. Returns what may be used for expiry at each.
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
    fn a_clock_is_believed_after_ten_minutes() {
        let seen = feed(&[(TODAY, 0), (TODAY + 599, 599), (TODAY + 600, 600), (TODAY + 4000, 4000)]);
        assert_eq!(seen, [None, None, Some(TODAY + 600), Some(TODAY + 4000)]);
    }

    #[test]
    fn a_clock_that_is_set_is_believed_ten_minutes_later() {
        let seen = feed(&[(0, 0), (TODAY, 5), (TODAY + 599, 604), (TODAY + 600, 605)]);
        assert_eq!(seen, [None, None, None, Some(TODAY + 600)]);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_minute_is_not_believed() {
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
    fn small_corrections_are_no_steps() {
        let seen = feed(&[(TODAY, 0), (TODAY + 301, 300), (TODAY + 599, 600)]);
        assert_eq!(seen.last(), Some(&Some(TODAY + 599)));
    }

    #[test]
    fn stamps_are_those_of_the_clock_that_was_believed_last() {
        let mut agreement = Agreement::begin(at(0), Duration::ZERO);
        let mut stamp = |wall: u64, monotonic: u64| {
            agreement.observe(at(wall), Duration::from_secs(monotonic));
            agreement.for_stamps(Duration::from_secs(monotonic)).duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(stamp(3, 3), 3, "there is none better");
        assert_eq!(stamp(TODAY, 5), TODAY);
        assert_eq!(stamp(TODAY + 600, 605), TODAY + 600);
        assert_eq!(stamp(TODAY + YEAR, 610), TODAY + 605, "it was right until now");
        assert_eq!(stamp(60, 615), TODAY + 610);
    }

    proptest! {
        /// Whatever the clock does: nothing expires before ten minutes of agreement, and then by what both say.
        #[test]
        fn no_step_of_the_last_ten_minutes_is_believed(steps in prop::collection::vec((0..3 * TODAY, 1..900_u64), 1..40)) {
            let mut agreement = Agreement::begin(at(TODAY), Duration::ZERO);
            let (mut monotonic, mut stepped) = (0, 0);
            let mut last = TODAY;
            for (wall, wait) in steps {
                // Every third goes on steadily.
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
