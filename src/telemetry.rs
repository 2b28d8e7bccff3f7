//! Metrics, through the `metrics` facade; nothing without the feature of that name.
//!
//! Labels are bounded: nothing a stranger sent, no webhook's name.

pub(crate) use self::imp::{Timer, dedup, dedup_entries, published, reported, source_state};
#[cfg(feature = "spool")]
pub(crate) use self::imp::{dedup_damaged, dedup_disk_error};

/// What an event with an id turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dedup {
    First,
    Duplicate,
    InProgress,
    MissingId,
}

#[cfg(feature = "metrics")]
mod imp {
    use std::time::Instant;

    use http::Response;
    use metrics::{counter, gauge, histogram};

    use super::Dedup;
    use crate::rejection::Rejection;
    use crate::store::{Snapshot, SourceReport, SourceState};

    pub(crate) fn published(snapshot: &Snapshot) {
        let counts = snapshot.counts();
        gauge!("tower_webhook_config_revision").set(snapshot.revision() as f64);
        gauge!("tower_webhook_config_webhooks").set(counts.webhooks as f64);
        gauge!("tower_webhook_config_open_webhooks").set(counts.open as f64);
        gauge!("tower_webhook_config_fenced_webhooks").set(counts.fenced as f64);
        gauge!("tower_webhook_config_namespaces").set(counts.namespaces as f64);
        gauge!("tower_webhook_config_connections").set(counts.connections as f64);
        gauge!("tower_webhook_config_refused_keys").set(counts.refused as f64);
    }

    pub(crate) fn source_state(state: &SourceState) {
        let live = matches!(state, SourceState::Live);
        gauge!("tower_webhook_source_live").set(f64::from(u8::from(live)));
        counter!("tower_webhook_source_states_total", "state" => state.label()).increment(1);
    }

    pub(crate) fn reported(report: &SourceReport) {
        gauge!("tower_webhook_source_epoch").set(report.epoch as f64);
        gauge!("tower_webhook_source_from_saved_copy").set(f64::from(u8::from(report.from_saved_copy)));
        counter!("tower_webhook_source_connects_total").absolute(report.connects);
        counter!("tower_webhook_source_anomalies_total").absolute(report.anomalies);
        counter!("tower_webhook_source_audits_total").absolute(report.audits);
        for (reason, lists) in &report.lists {
            counter!("tower_webhook_source_lists_total", "reason" => reason.label()).absolute(*lists);
        }
        for (kind, errors) in &report.errors {
            counter!("tower_webhook_source_errors_total", "kind" => kind.label()).absolute(*errors);
        }
    }

    pub(crate) fn dedup(outcome: Dedup) {
        let outcome = match outcome {
            Dedup::First => "first",
            Dedup::Duplicate => "duplicate",
            Dedup::InProgress => "in_progress",
            Dedup::MissingId => "missing_id",
        };
        counter!("tower_webhook_dedup_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn dedup_entries(entries: usize, forgotten: u64) {
        gauge!("tower_webhook_dedup_entries").set(entries as f64);
        if forgotten > 0 {
            counter!("tower_webhook_dedup_forgotten_total").increment(forgotten);
        }
    }

    #[cfg(feature = "spool")]
    pub(crate) fn dedup_disk_error() {
        counter!("tower_webhook_dedup_disk_errors_total").increment(1);
    }

    #[cfg(feature = "spool")]
    pub(crate) fn dedup_damaged(records: u64) {
        counter!("tower_webhook_dedup_damaged_records_total").increment(records);
    }

    /// Times one request. Dropped before it is stopped, it counts as one whose sender hung up.
    #[derive(Debug)]
    pub(crate) struct Timer {
        started: Instant,
        is_stopped: bool,
    }

    impl Timer {
        pub(crate) fn start() -> Self {
            Self { started: Instant::now(), is_stopped: false }
        }

        pub(crate) fn stop<B>(&mut self, answer: &Response<B>) {
            self.is_stopped = true;
            record(
                self.started,
                match answer.extensions().get::<Rejection>() {
                    Some(rejection) => rejection.kind().label(),
                    None if answer.status().is_success() => "accepted",
                    None => "other",
                },
            );
        }
    }

    impl Drop for Timer {
        fn drop(&mut self) {
            if !self.is_stopped {
                record(self.started, "aborted");
            }
        }
    }

    fn record(started: Instant, outcome: &'static str) {
        counter!("tower_webhook_requests_total", "outcome" => outcome).increment(1);
        histogram!("tower_webhook_request_seconds", "outcome" => outcome).record(started.elapsed());
    }
}

#[cfg(not(feature = "metrics"))]
mod imp {
    use http::Response;

    use crate::store::{Snapshot, SourceReport, SourceState};

    pub(crate) fn published(_: &Snapshot) {}

    pub(crate) fn reported(_: &SourceReport) {}

    pub(crate) fn source_state(_: &SourceState) {}

    pub(crate) fn dedup(_: super::Dedup) {}

    pub(crate) fn dedup_entries(_: usize, _: u64) {}

    #[cfg(feature = "spool")]
    pub(crate) fn dedup_disk_error() {}

    #[cfg(feature = "spool")]
    pub(crate) fn dedup_damaged(_: u64) {}

    #[derive(Debug)]
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn start() -> Self {
            Self
        }

        pub(crate) fn stop<B>(&mut self, _: &Response<B>) {}
    }
}
