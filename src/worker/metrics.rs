//! Metrics of the worker, through the `metrics` facade; nothing without the feature of that name.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

/// Attempts ended: `delivered`, or the kind of the error. No webhook's name: labels are bounded.
pub(super) fn attempted(outcome: &'static str, attempts: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_delivery_attempts_total", "outcome" => outcome).increment(attempts as u64);
}
