//! Metrics of events whose senders have hung up.

use crate::base::metrics::counter;

/// How the processing of such an event ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Taken,
    Refused,
    BrokenOff,
    Dropped,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::BrokenOff => "broken_off",
            Self::Dropped => "dropped",
        }
    }
}

/// The processing of such an event has ended with `outcome`.
pub(super) fn gone(outcome: Outcome) {
    counter!("tower_webhook_senders_gone_total", "outcome" => outcome.label()).increment(1);
}
