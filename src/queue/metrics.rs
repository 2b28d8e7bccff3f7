//! Metrics of a queue, through the `metrics` facade; no-ops without the feature `metrics`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

use super::QueueStatus;

pub(super) fn status(status: &QueueStatus) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!("tower_webhook_queue_waiting").set(status.waiting as f64);
        let age = status.oldest.map(|at| std::time::SystemTime::now().duration_since(at).unwrap_or_default());
        metrics::gauge!("tower_webhook_queue_oldest_seconds").set(age.unwrap_or_default().as_secs_f64());
        metrics::gauge!("tower_webhook_queue_under_way").set(status.under_way as f64);
        metrics::gauge!("tower_webhook_queue_bytes").set(status.bytes as f64);
        metrics::gauge!("tower_webhook_queue_max_bytes").set(status.max_bytes as f64);
        metrics::gauge!("tower_webhook_queue_dead_letters").set(status.dead_letters as f64);
    }
}
