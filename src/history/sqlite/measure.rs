//! Metrics of the history in SQLite.

use std::time::Duration;

use crate::base::metrics::{counter, gauge, histogram};
use crate::history::HistoryStatus;

/// Entries were written.
pub(super) fn written(entries: u64, time: Duration) {
    counter!("tower_webhook_history_entries_total").increment(entries);
    histogram!("tower_webhook_history_write_seconds").record(time.as_secs_f64());
}

/// Bodies, entries or refused requests were left out.
pub(super) fn dropped(what: &'static str, count: u64) {
    counter!("tower_webhook_history_dropped_total", "what" => what).increment(count);
}

/// A write failed.
pub(super) fn failed() {
    counter!("tower_webhook_history_failures_total").increment(1);
}

pub(super) fn status(status: &HistoryStatus) {
    gauge!("tower_webhook_history_bytes").set(status.bytes as f64);
    gauge!("tower_webhook_history_events").set(status.events as f64);
}
