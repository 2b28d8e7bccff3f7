//! Metrics of the worker, through the `metrics` facade; no-ops without the feature `metrics`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

use std::time::SystemTime;

/// Measures the time from the receipt of an event to its delivery.
pub(super) fn delivered(received_at: SystemTime) {
    #[cfg(feature = "metrics")]
    {
        // The event may have been received by an earlier process, so the wall clock must do.
        let seconds = SystemTime::now().duration_since(received_at).unwrap_or_default();
        metrics::histogram!("tower_webhook_delivery_seconds").record(seconds);
    }
}

/// Counts attempts by outcome: `delivered`, or the kind of the error.
pub(super) fn attempted(outcome: &'static str, attempts: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_delivery_attempts_total", "outcome" => outcome).increment(attempts as u64);
}
