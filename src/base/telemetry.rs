//! Metrics, through the `metrics` facade; nothing without the feature of that name.
//!
//! Labels are bounded: nothing a stranger sent, no webhook's name.

pub(crate) use self::imp::{Requests, Timer, dedup, dedup_entries, gone, published, reported, source_state};
#[cfg(feature = "durable")]
pub(crate) use self::imp::{dedup_damaged, dedup_disk_error};

/// What an event with an id turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dedup {
    First,
    Duplicate,
    InProgress,
    MissingId,
}

/// What became of an event whose sender did not wait for the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gone {
    Taken,
    Refused,
    BrokenOff,
    Dropped,
}

#[cfg(feature = "metrics")]
mod imp {
    use std::fmt;
    use std::sync::{Arc, OnceLock};
    use std::time::Instant;

    use http::Response;
    use metrics::{Counter, Histogram, counter, gauge, histogram};

    use super::{Dedup, Gone};
    use crate::request::{Rejection, RejectionKind};
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
        gauge!("tower_webhook_config_warned_keys").set(counts.warned as f64);
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
        counter!("tower_webhook_source_differences_total").absolute(report.differences);
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

    pub(crate) fn gone(outcome: Gone) {
        let outcome = match outcome {
            Gone::Taken => "taken",
            Gone::Refused => "refused",
            Gone::BrokenOff => "broken_off",
            Gone::Dropped => "dropped",
        };
        counter!("tower_webhook_senders_gone_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn dedup_entries(entries: usize, forgotten: u64) {
        gauge!("tower_webhook_dedup_entries").set(entries as f64);
        if forgotten > 0 {
            counter!("tower_webhook_dedup_forgotten_total").increment(forgotten);
        }
    }

    #[cfg(feature = "durable")]
    pub(crate) fn dedup_disk_error() {
        counter!("tower_webhook_dedup_disk_errors_total").increment(1);
    }

    #[cfg(feature = "durable")]
    pub(crate) fn dedup_damaged(records: u64) {
        counter!("tower_webhook_dedup_damaged_records_total").increment(records);
    }

    /// What is recorded of requests. The recorder is asked for each series once, with the first request of its outcome.
    #[derive(Clone, Default)]
    pub(crate) struct Requests(Arc<[OnceLock<Series>; OUTCOMES]>);

    struct Series {
        total: Counter,
        seconds: Histogram,
    }

    #[derive(Clone, Copy)]
    enum Outcome {
        Accepted,
        Refused(RejectionKind),
        Other,
        /// The sender hung up.
        Aborted,
    }

    const OUTCOMES: usize = RejectionKind::COUNT + 3;

    impl Outcome {
        fn of<B>(answer: &Response<B>) -> Self {
            match answer.extensions().get::<Rejection>() {
                Some(rejection) => Self::Refused(rejection.kind()),
                None if answer.status().is_success() => Self::Accepted,
                None => Self::Other,
            }
        }

        fn label(self) -> &'static str {
            match self {
                Self::Accepted => "accepted",
                Self::Refused(kind) => kind.label(),
                Self::Other => "other",
                Self::Aborted => "aborted",
            }
        }

        fn index(self) -> usize {
            match self {
                Self::Refused(kind) => kind as usize,
                Self::Accepted => RejectionKind::COUNT,
                Self::Other => RejectionKind::COUNT + 1,
                Self::Aborted => RejectionKind::COUNT + 2,
            }
        }
    }

    impl Requests {
        fn record(&self, started: Instant, outcome: Outcome) {
            let series = self.0[outcome.index()].get_or_init(|| Series {
                total: counter!("tower_webhook_requests_total", "outcome" => outcome.label()),
                seconds: histogram!("tower_webhook_request_seconds", "outcome" => outcome.label()),
            });
            series.total.increment(1);
            series.seconds.record(started.elapsed());
        }
    }

    impl fmt::Debug for Requests {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Requests").finish_non_exhaustive()
        }
    }

    /// Times one request. Dropped before it is stopped, it counts as one whose sender hung up.
    #[derive(Debug)]
    pub(crate) struct Timer {
        requests: Option<Requests>,
        started: Instant,
    }

    impl Timer {
        pub(crate) fn start(requests: &Requests) -> Self {
            Self { requests: Some(requests.clone()), started: Instant::now() }
        }

        pub(crate) fn stop<B>(&mut self, answer: &Response<B>) {
            self.record(Outcome::of(answer));
        }

        fn record(&mut self, outcome: Outcome) {
            if let Some(requests) = self.requests.take() {
                requests.record(self.started, outcome);
            }
        }
    }

    impl Drop for Timer {
        fn drop(&mut self) {
            self.record(Outcome::Aborted);
        }
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

    pub(crate) fn gone(_: super::Gone) {}

    pub(crate) fn dedup_entries(_: usize, _: u64) {}

    #[cfg(feature = "durable")]
    pub(crate) fn dedup_disk_error() {}

    #[cfg(feature = "durable")]
    pub(crate) fn dedup_damaged(_: u64) {}

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Requests;

    #[derive(Debug)]
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn start(_: &Requests) -> Self {
            Self
        }

        pub(crate) fn stop<B>(&mut self, _: &Response<B>) {}
    }
}
