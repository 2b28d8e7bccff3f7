//! Metrics of events whose senders did not wait for the answer.

use crate::base::metrics::counter;

/// What became of such an event.
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

/// The processing of such an event ended with this `outcome`.
pub(super) fn gone(outcome: Outcome) {
    counter!("tower_webhook_senders_gone_total", "outcome" => outcome.label()).increment(1);
}
