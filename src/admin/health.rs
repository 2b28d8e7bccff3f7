//! The state of the configuration, of the queue and of the history, and the session of a token.

use serde_json::{Map, Value, json};

use super::answer::{Answer, Problem, ok};
use super::state::Ask;
use super::tokens::Operator;
use super::views::{maybe_time, time};
use crate::config::Key;
use crate::store::{Snapshot, Status};

/// The version of this crate.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The features that the program was built with.
const FEATURES: &[(&str, bool)] = &[
    ("activemq", cfg!(feature = "activemq")),
    ("basic-auth", cfg!(feature = "basic-auth")),
    ("durable", cfg!(feature = "durable")),
    ("etcd", cfg!(feature = "etcd")),
    ("file", cfg!(feature = "file")),
    ("history", cfg!(feature = "history")),
    ("http-webhook", cfg!(feature = "http-webhook")),
    ("kafka", cfg!(feature = "kafka")),
    ("metrics", cfg!(feature = "metrics")),
    ("mqtt", cfg!(feature = "mqtt")),
    ("nats", cfg!(feature = "nats")),
    ("queue-disk", cfg!(feature = "queue-disk")),
    ("rabbitmq", cfg!(feature = "rabbitmq")),
    ("redis", cfg!(feature = "redis")),
    ("save-to-disk", cfg!(feature = "save-to-disk")),
    ("signature", cfg!(feature = "signature")),
    ("websocket", cfg!(feature = "websocket")),
    ("zeromq", cfg!(feature = "zeromq")),
];

/// Whose token it is, and what there is to see.
pub(super) fn session(ask: &Ask<'_>) -> Answer {
    ok(&json!({
        "name": ask.operator.name(),
        "rights": ask.operator.rights(),
        "namespaces": ask.operator.shared_namespaces().as_deref(),
        "history": ask.state.history.is_some(),
        "queue": ask.state.queue.is_some(),
        "version": VERSION,
    }))
}

pub(super) fn config_status(ask: &Ask<'_>) -> Answer {
    let (status, operator) = (ask.state.store.status(), &ask.operator);
    let counts = Counts::of(&status.snapshot, operator);
    let all = operator.sees_all();
    let ignored = status.ignored.iter().filter(|_| all);
    let ignored: Vec<_> =
        ignored.map(|ignored| json!({"key": ignored.key, "reason": ignored.reason, "hint": ignored.hint})).collect();
    let report = &status.report;
    let mut body = source(&status, operator);
    let more = json!({
        "loaded": status.snapshot.is_loaded(),
        "server_errors": report.server_errors,
        "source_warnings": all.then_some(&report.warnings),
        "epoch": report.epoch,
        "connects": report.connects,
        "anomalies": report.anomalies,
        "audits": report.audits,
        "differences": report.differences,
        "from_saved_copy": report.from_saved_copy,
        "saved_copy_error": report.copy_error,
        "webhooks": counts.webhooks,
        "open_webhooks": counts.open,
        "fenced_webhooks": counts.fenced,
        "namespaces": counts.namespaces,
        "connections": counts.connections,
        "ignored_keys": all.then_some(status.ignored_keys),
        "ignored": ignored,
        "refused_keys": refused(&status.snapshot, operator),
        "warnings": warnings(&status.snapshot, operator),
    });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    ok(&body)
}

pub(super) async fn system(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (status, operator) = (ask.state.store.status(), &ask.operator);
    let counts = Counts::of(&status.snapshot, operator);
    let features: Vec<_> = FEATURES.iter().filter(|(_, is_built)| *is_built).map(|(name, _)| *name).collect();
    Ok(ok(&json!({
        "source": source(&status, operator),
        "queue": queue(ask),
        "history": history(ask),
        "config": {
            "webhooks": counts.webhooks,
            "open_webhooks": counts.open,
            "fenced_webhooks": counts.fenced,
            "namespaces": counts.namespaces,
            "connections": counts.connections,
            "ignored_keys": operator.sees_all().then_some(status.ignored_keys),
        },
        "refused": refused(&status.snapshot, operator),
        "warnings": warnings(&status.snapshot, operator),
        "process": {"version": VERSION, "started_at": time(ask.state.started_at), "features": features},
    })))
}

/// The state of the source. Reasons may quote keys of any namespace.
fn source(status: &Status, operator: &Operator) -> Value {
    let (report, all) = (&status.report, operator.sees_all());
    let lists: Map<_, _> =
        report.lists.iter().map(|(reason, lists)| (reason.label().to_owned(), json!(lists))).collect();
    let last_error = report.last_error.as_ref().map(|error| {
        json!({
            "kind": error.kind.label(),
            "reason": all.then_some(&error.reason),
            "seconds_ago": error.at.elapsed().unwrap_or_default().as_secs_f64(),
            "count": report.errors.values().sum::<u64>(),
        })
    });
    json!({
        "source": status.source,
        "state": status.state.label(),
        "reason": status.state.reason().filter(|_| all),
        "state_seconds": status.state_since.elapsed().unwrap_or_default().as_secs_f64(),
        "endpoint": report.endpoint,
        "server_version": report.server_version,
        "revision": status.snapshot.revision(),
        "staleness_seconds": status.staleness().map(|staleness| staleness.as_secs_f64()),
        "lists": lists,
        "last_error": last_error,
    })
}

/// The numbers of the queue belong to no namespace.
fn queue(ask: &Ask<'_>) -> Option<Value> {
    let (queue, all) = (ask.state.queue.as_ref()?, ask.operator.sees_all());
    let status = queue.status();
    Some(json!({
        "waiting": all.then_some(status.waiting),
        "under_way": all.then_some(status.under_way),
        "dead_letters": all.then_some(status.dead_letters),
        "bytes": all.then_some(status.bytes),
        "max_bytes": status.max_bytes,
        "oldest_seconds": status.oldest.filter(|_| all).map(|at| at.elapsed().unwrap_or_default().as_secs_f64()),
        "is_failing": status.is_failing,
    }))
}

/// As do those of the history.
fn history(ask: &Ask<'_>) -> Option<Value> {
    let (history, all) = (ask.state.history.as_ref()?, ask.operator.sees_all());
    let status = history.status();
    Some(json!({
        "events": all.then_some(status.events),
        "bytes": all.then_some(status.bytes),
        "max_bytes": status.max_bytes,
        "oldest": maybe_time(status.oldest.filter(|_| all)),
        "dropped": all.then_some(status.dropped),
        "dropped_bodies": all.then_some(status.dropped_bodies),
        "is_failing": status.is_failing,
    }))
}

/// The sizes of the configuration that an operator sees.
#[derive(Default)]
struct Counts {
    webhooks: usize,
    open: usize,
    fenced: usize,
    namespaces: usize,
    /// `None` if the operator does not see them: they belong to no namespace.
    connections: Option<usize>,
}

impl Counts {
    fn of(snapshot: &Snapshot, operator: &Operator) -> Self {
        if operator.sees_all() {
            let counts = snapshot.counts();
            let connections = Some(counts.connections);
            let (webhooks, open, fenced) = (counts.webhooks, counts.open, counts.fenced);
            return Self { webhooks, open, fenced, namespaces: counts.namespaces, connections };
        }
        let mut counts = Self::default();
        let mut namespaces = std::collections::BTreeSet::new();
        for (key, slot) in snapshot.slots().filter(|(key, _)| operator.sees(key.namespace())) {
            namespaces.insert(key.namespace());
            match &slot.serving {
                Some(webhook) => {
                    counts.webhooks += 1;
                    counts.open += usize::from(webhook.is_open());
                }
                None => counts.fenced += 1,
            }
        }
        Self { namespaces: namespaces.len(), ..counts }
    }
}

fn refused(snapshot: &Snapshot, operator: &Operator) -> Vec<Value> {
    let mut refused: Vec<_> = snapshot.refusals().filter(|(key, _)| sees(operator, key)).collect();
    refused.sort_by(|a, b| a.0.cmp(b.0));
    let shown = refused.into_iter().map(|(key, refusal)| {
        json!({
            "key": key.to_string(),
            "reason": refusal.reason(),
            "revision": refusal.revision(),
            "serving_last_good": refusal.is_serving_last_good(),
        })
    });
    shown.collect()
}

fn warnings(snapshot: &Snapshot, operator: &Operator) -> Vec<Value> {
    let mut warnings: Vec<_> = snapshot.warnings().filter(|(key, _)| sees(operator, key)).collect();
    warnings.sort_by(|a, b| a.0.cmp(b.0));
    warnings.into_iter().map(|(key, reason)| json!({"key": key.to_string(), "reason": reason})).collect()
}

/// Whether an operator sees a key. Connections belong to no namespace.
fn sees(operator: &Operator, key: &Key) -> bool {
    match key {
        Key::Webhook(key) => operator.sees(key.namespace()),
        Key::Connection(_) => operator.sees_all(),
    }
}
