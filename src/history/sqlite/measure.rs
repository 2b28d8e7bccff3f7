//! Metrics of the history in SQLite.

use std::sync::OnceLock;
use std::time::Duration;

use crate::base::metrics::{Counter, counter, gauge, histogram};
use crate::history::HistoryStatus;

/// Entries were written.
pub(super) fn written(entries: u64, time: Duration) {
    counter!("tower_webhook_history_entries_total").increment(entries);
    histogram!("tower_webhook_history_write_seconds").record(time.as_secs_f64());
}

/// Counts what requests leave out. The recorder is asked for each series once: this happens at every request when the disk is
/// too slow.
#[derive(Default)]
pub(super) struct Dropped {
    entries: OnceLock<Counter>,
    bodies: OnceLock<Counter>,
}

impl Dropped {
    pub(super) fn entry(&self) {
        self.entries.get_or_init(|| series("entry")).increment(1);
    }

    pub(super) fn body(&self) {
        self.bodies.get_or_init(|| series("body")).increment(1);
    }
}

fn series(what: &'static str) -> Counter {
    counter!("tower_webhook_history_dropped_total", "what" => what)
}

/// Bodies, entries or refused requests were left out.
pub(super) fn dropped(what: &'static str, count: u64) {
    series(what).increment(count);
}

/// A write failed.
pub(super) fn failed() {
    counter!("tower_webhook_history_failures_total").increment(1);
}

pub(super) fn status(status: &HistoryStatus) {
    gauge!("tower_webhook_history_bytes").set(status.bytes as f64);
    gauge!("tower_webhook_history_events").set(status.events as f64);
}
