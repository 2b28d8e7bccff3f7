//! Metrics of the worker, through the `metrics` facade; no-ops without the feature `metrics`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

/// Counts attempts by outcome: `delivered`, or the kind of the error.
pub(super) fn attempted(outcome: &'static str, attempts: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_delivery_attempts_total", "outcome" => outcome).increment(attempts as u64);
}
