//! Metrics of `dedup`.

use crate::base::metrics::{counter, gauge};

/// The outcome of looking up an event.
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

/// Counts the outcome for an event of a webhook with `dedup`.
pub(crate) fn looked_up(outcome: Outcome) {
    counter!("tower_webhook_dedup_total", "outcome" => outcome.label()).increment(1);
}

/// Sets the number of remembered ids, and counts those that were forgotten for lack of room.
pub(super) fn entries(entries: usize, forgotten: u64) {
    gauge!("tower_webhook_dedup_entries").set(entries as f64);
    if forgotten > 0 {
        counter!("tower_webhook_dedup_forgotten_total").increment(forgotten);
    }
}

/// Counts an id that could not be written to the journal.
#[cfg(feature = "durable")]
pub(super) fn disk_error() {
    counter!("tower_webhook_dedup_disk_errors_total").increment(1);
}

/// Counts records of the journal that are damaged.
#[cfg(feature = "durable")]
pub(super) fn damaged(records: u64) {
    counter!("tower_webhook_dedup_damaged_records_total").increment(records);
}
