//! Metrics of the queue on disk, through the `metrics` facade; no-ops without the feature `metrics`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

/// This many events were accepted with one sync.
pub(super) fn accepted(events: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_events_total").increment(events as u64);
}

pub(super) fn synced() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_syncs_total").increment(1);
}

/// A write or sync failed.
pub(super) fn failed() {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_failures_total").increment(1);
}

/// Bytes of accepted events are damaged.
pub(super) fn damaged(bytes: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_damaged_bytes_total").increment(bytes);
}

/// Accepted events became unreadable.
pub(super) fn lost(events: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("tower_webhook_queue_lost_events_total").increment(events as u64);
}
