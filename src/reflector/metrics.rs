//! Metrics of the configuration and of its source.

use crate::base::metrics::{counter, gauge};
use crate::store::{Snapshot, SourceReport, SourceState};

/// The published configuration: its revision, and the numbers of webhooks, namespaces, connections and keys with
/// problems.
pub(super) fn published(snapshot: &Snapshot) {
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

/// Whether the source is live, and how often it entered each `state`.
pub(super) fn source_state(state: &SourceState) {
    let live = matches!(state, SourceState::Live);
    gauge!("tower_webhook_source_live").set(f64::from(u8::from(live)));
    counter!("tower_webhook_source_states_total", "state" => state.label()).increment(1);
}

/// The counters of the source: lists by `reason`, errors by `kind`.
pub(super) fn reported(report: &SourceReport) {
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
