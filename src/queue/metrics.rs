//! Metrics of a queue, through the `metrics` facade; no-ops without the feature `metrics`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

use super::QueueStatus;

pub(super) fn status(status: &QueueStatus) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!("tower_webhook_queue_waiting").set(status.waiting as f64);
        metrics::gauge!("tower_webhook_queue_bytes").set(status.bytes as f64);
        metrics::gauge!("tower_webhook_queue_dead_letters").set(status.dead_letters as f64);
    }
}
