//! The help texts of the metrics.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Gives the installed recorder a help text for each metric of this crate. Call it once, after the recorder was installed.
///
/// ```
/// // After `metrics::set_global_recorder`:
/// tower_webhook::receiver::describe_metrics();
/// ```
pub fn describe_metrics() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(*name, *help);
    }
}

/// Names and texts.
type Texts = &'static [(&'static str, &'static str)];

const COUNTERS: Texts = &[
    ("tower_webhook_requests_total", "Requests for webhooks, by outcome."),
    ("tower_webhook_webhook_requests_total", "Requests for each webhook, by outcome."),
    ("tower_webhook_webhook_attempts_total", "Attempts to deliver accepted events of each webhook, by outcome."),
    ("tower_webhook_auth_refusals_total", "Requests that a guard refused, by guard and reason."),
    ("tower_webhook_secret_matches_total", "Requests that a secret let in, by its position in its list."),
    ("tower_webhook_senders_gone_total", "Events whose sender did not wait for the answer, by what became of them."),
    ("tower_webhook_delivery_attempts_total", "Attempts to deliver accepted events, by outcome."),
    ("tower_webhook_dedup_total", "Requests for webhooks that recognise duplicates, by outcome."),
    ("tower_webhook_dedup_forgotten_total", "Ids of events that were forgotten early, because there were too many."),
    ("tower_webhook_dedup_disk_errors_total", "Failed writes of ids of events."),
    ("tower_webhook_dedup_damaged_records_total", "Records of ids that could not be read at the start."),
    ("tower_webhook_queue_events_total", "Events that were accepted."),
    ("tower_webhook_queue_syncs_total", "Syncs of accepted events to disk."),
    ("tower_webhook_queue_failures_total", "Failed writes of accepted events."),
    ("tower_webhook_queue_damaged_bytes_total", "Bytes of the queue's files that could not be read at the start."),
    ("tower_webhook_queue_lost_events_total", "Accepted events that became unreadable on disk."),
    ("tower_webhook_history_entries_total", "Entries of the history that were written."),
    ("tower_webhook_history_dropped_total", "Bodies, entries and refused requests that the history left out."),
    ("tower_webhook_history_failures_total", "Writes of the history that failed."),
    ("tower_webhook_source_states_total", "Changes of the state of the configuration's source, by new state."),
    ("tower_webhook_source_connects_total", "Connections made to the configuration's source."),
    ("tower_webhook_source_lists_total", "Times that all keys were read, by reason."),
    ("tower_webhook_source_errors_total", "Errors of the configuration's source, by kind."),
    ("tower_webhook_source_anomalies_total", "Watch events that did not follow from what was known."),
    ("tower_webhook_source_audits_total", "Comparisons with the source that found no difference."),
    ("tower_webhook_source_differences_total", "Comparisons with the source that found a difference."),
];

const GAUGES: Texts = &[
    ("tower_webhook_config_revision", "The revision of the configuration that is served."),
    ("tower_webhook_config_webhooks", "Webhooks that are served."),
    ("tower_webhook_config_open_webhooks", "Served webhooks without a guard."),
    ("tower_webhook_config_fenced_webhooks", "Webhooks without a valid value, which answer 503."),
    ("tower_webhook_config_namespaces", "Namespaces with a webhook."),
    ("tower_webhook_config_connections", "Connections that are configured."),
    ("tower_webhook_config_refused_keys", "Keys whose newest value is invalid."),
    ("tower_webhook_config_warned_keys", "Keys that are served with a warning."),
    ("tower_webhook_source_live", "1 while changes of the configuration are followed."),
    ("tower_webhook_source_epoch", "Histories of the source that were taken over after a restore or a wipe."),
    ("tower_webhook_source_from_saved_copy", "1 while a saved copy of the configuration is served."),
    ("tower_webhook_dedup_entries", "Ids of events that are remembered."),
    ("tower_webhook_queue_waiting", "Accepted events that wait or are being delivered."),
    ("tower_webhook_queue_under_way", "Accepted events that are being delivered."),
    ("tower_webhook_queue_oldest_seconds", "Time since the oldest waiting event was received; 0 if none waits."),
    ("tower_webhook_queue_dead_letters", "Accepted events that were given up and are kept."),
    ("tower_webhook_queue_bytes", "Bytes of the queue's storage in use."),
    ("tower_webhook_queue_max_bytes", "The most bytes that the queue's storage may use; 0 if it has no limit."),
    ("tower_webhook_history_bytes", "Size of the history's files."),
    ("tower_webhook_history_events", "Events in the history."),
];

const HISTOGRAMS: Texts = &[
    ("tower_webhook_request_seconds", "Duration of requests for webhooks, by outcome."),
    ("tower_webhook_attempt_seconds", "Duration of the attempts of each module to deliver an event, by outcome."),
    ("tower_webhook_delivery_seconds", "Time from the receipt of an accepted event to its delivery."),
    ("tower_webhook_history_write_seconds", "Time of a write of the history, with up to 1,000 entries."),
];
