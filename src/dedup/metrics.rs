//! Metrics of `dedup`.

use crate::base::metrics::{counter, gauge};

/// What an event with an id turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    First,
    Duplicate,
    InProgress,
    MissingId,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Duplicate => "duplicate",
            Self::InProgress => "in_progress",
            Self::MissingId => "missing_id",
        }
    }
}

/// An event of a webhook with `dedup` was looked up, with this `outcome`.
pub(crate) fn looked_up(outcome: Outcome) {
    counter!("tower_webhook_dedup_total", "outcome" => outcome.label()).increment(1);
}

/// The ids that are remembered, and how many more were forgotten for want of room.
pub(super) fn entries(entries: usize, forgotten: u64) {
    gauge!("tower_webhook_dedup_entries").set(entries as f64);
    if forgotten > 0 {
        counter!("tower_webhook_dedup_forgotten_total").increment(forgotten);
    }
}

/// An id could not be written to the journal.
#[cfg(feature = "durable")]
pub(super) fn disk_error() {
    counter!("tower_webhook_dedup_disk_errors_total").increment(1);
}

/// Records of the journal could not be read.
#[cfg(feature = "durable")]
pub(super) fn damaged(records: u64) {
    counter!("tower_webhook_dedup_damaged_records_total").increment(records);
}
