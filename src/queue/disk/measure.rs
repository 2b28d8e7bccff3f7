//! Metrics of the files, through the `metrics` facade; nothing without the feature of that name.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

/// Events were accepted, by one sync.
pub(super) fn accepted(events: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_events_total").increment(events as u64);
}

pub(super) fn synced() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_syncs_total").increment(1);
}

/// The disk failed.
pub(super) fn failed() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_failures_total").increment(1);
}

/// Bytes of a segment are of no frame.
pub(super) fn damaged(bytes: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_damaged_bytes_total").increment(bytes);
}

/// Accepted events became unreadable.
pub(super) fn lost(events: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_lost_events_total").increment(events as u64);
}
