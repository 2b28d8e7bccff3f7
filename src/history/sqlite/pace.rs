//! How much the writer does when it cannot keep up.
//!
//! Its thread has a low priority, so it falls behind when all cores are busy with requests. Then entries are left out in any
//! case, and only a sample is kept: a larger one would tell an operator little more, and the core that writes it would be
//! missing to the requests.

use std::time::{Duration, Instant};

/// How often the pace is decided.
const WINDOW: Duration = Duration::from_millis(250);

/// A sample is written if it would take more than this part of a core to write everything, and some of that is left out.
const MUCH: f64 = 0.25;

/// Everything is written again if it would take less than this.
const LITTLE: f64 = 0.2;

/// The writer rests so many times as long as it worked, while it writes a sample: it takes a twentieth of a core.
const RESTS: u32 = 19;

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    /// Entries that came, whether they were kept or left out.
    pub(super) came: u64,
    /// Entries that were left out.
    pub(super) dropped: u64,
    /// Entries that were written.
    pub(super) written: u64,
    /// The time that a core has worked for the writer. The disk's time is not in it.
    pub(super) worked: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The last decision, and the state then.
    last: Option<(Instant, Flow)>,
    /// The work for one entry, in seconds.
    cost: f64,
    is_sampling: bool,
}

impl Pace {
    /// Whether only a sample is written from now on.
    pub(super) fn decide(&mut self, now: Instant, flow: Flow) -> bool {
        let Some((since, before)) = self.last else {
            self.last = Some((now, flow));
            return self.is_sampling;
        };
        let time = now.saturating_duration_since(since);
        if time < WINDOW {
            return self.is_sampling;
        }
        self.last = Some((now, flow));
        let written = flow.written.saturating_sub(before.written);
        if written > 0 {
            self.cost = flow.worked.saturating_sub(before.worked).as_secs_f64() / written as f64;
        }
        // The part of a core that it would take to write everything.
        let needed = self.cost * flow.came.saturating_sub(before.came) as f64 / time.as_secs_f64();
        self.is_sampling = match self.is_sampling {
            true => needed > LITTLE,
            false => needed > MUCH && flow.dropped > before.dropped,
        };
        self.is_sampling
    }

    /// How long the writer rests after this work.
    pub(super) fn rest(&self, worked: Duration) -> Duration {
        if self.is_sampling { worked * RESTS } else { Duration::ZERO }
    }
}

/// The time that a core has worked for this thread.
pub(super) fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays windows in which so many entries come and are left out, while the writer needs a core for 2,500 of them.
    fn play(pace: &mut Pace, windows: &[(u64, u64)]) -> Vec<bool> {
        let start = Instant::now();
        let mut flow = Flow::default();
        pace.decide(start, flow);
        let window = |(nth, (came, dropped)): (u32, &(u64, u64))| {
            flow.came += came;
            flow.dropped += dropped;
            flow.written += 1000;
            flow.worked += Duration::from_millis(100);
            assert_eq!(pace.decide(start + WINDOW * nth - Duration::from_millis(1), flow), pace.is_sampling);
            pace.decide(start + WINDOW * nth, flow)
        };
        (1..).zip(windows).map(window).collect()
    }

    #[test]
    fn a_sample_is_written_while_the_writer_cannot_keep_up_and_would_take_much_of_a_core() {
        let mut pace = Pace::default();
        let windows = [(5000, 0), (600, 50), (5000, 50), (550, 0), (450, 0), (600, 50)];
        assert_eq!(play(&mut pace, &windows), [false, false, true, true, false, false]);
    }

    #[test]
    fn a_writer_of_samples_takes_a_twentieth_of_a_core() {
        let mut pace = Pace::default();
        let work = Duration::from_millis(5);
        assert_eq!(pace.rest(work), Duration::ZERO);
        play(&mut pace, &[(5000, 50)]);
        assert_eq!(work + pace.rest(work), work * 20);
    }

    #[test]
    fn only_work_counts_and_not_the_time_that_a_disk_takes() {
        let before = worked();
        std::thread::sleep(Duration::from_millis(50));
        assert!(worked() - before < Duration::from_millis(20));
    }
}
