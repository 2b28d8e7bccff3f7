//! Metrics of the spool and its worker, through the `metrics` facade; nothing without the feature of that name.
//!
//! Labels are bounded: no webhook's name.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

/// Events were accepted, by one sync.
pub(crate) fn accepted(events: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_spool_events_total").increment(events as u64);
}

pub(crate) fn synced() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_spool_syncs_total").increment(1);
}

/// The disk failed.
pub(crate) fn failed() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_spool_failures_total").increment(1);
}

/// Bytes of a segment are of no frame.
pub(crate) fn damaged(bytes: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_spool_damaged_bytes_total").increment(bytes);
}

/// Accepted events became unreadable.
pub(crate) fn lost(events: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_spool_lost_events_total").increment(events as u64);
}

pub(crate) fn state(waiting: usize, bytes: u64, dead: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!("tower_webhook_spool_waiting").set(waiting as f64);
        metrics::gauge!("tower_webhook_spool_bytes").set(bytes as f64);
        metrics::gauge!("tower_webhook_spool_dead_letters").set(dead as f64);
    }
}

/// Attempts of the worker ended: `delivered`, or the kind of the error.
pub(crate) fn attempted(outcome: &'static str, attempts: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_delivery_attempts_total", "outcome" => outcome).increment(attempts as u64);
}
