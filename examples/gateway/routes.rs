//! The routes: webhooks, and what an operator asks.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_webhook::stack::ReceiverBuilder;
use tower_webhook::{ProblemJsonLayer, RequireAuthLayer, Store};

use crate::Error;
use crate::server::Shutdown;
use crate::settings::Settings;

/// How long `/ready?min_revision=N` waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Operator {
    store: Store,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
}

pub(crate) fn app(
    store: Store,
    metrics: PrometheusHandle,
    settings: &Settings,
    shutdown: Shutdown,
) -> Result<Router, Error> {
    let receiver = ReceiverBuilder::new()
        .prefix("/webhook")
        .default_namespace(&settings.namespace)?
        .max_body_bytes(settings.max_body_bytes)
        .body_deadline(settings.body_timeout)
        .delivery_deadline(settings.delivery_timeout)
        .build(store.clone());
    let admin = match &settings.admin {
        Some(bearer) => {
            let guard =
                ServiceBuilder::new().layer(ProblemJsonLayer::new()).layer(RequireAuthLayer::new(bearer.clone()));
            get(config_status).layer::<_, Infallible>(guard)
        }
        None => get(|| async { detail(StatusCode::FORBIDDEN, "ADMIN_TOKEN is not set") }),
    };
    let router = Router::new()
        // Not nested: axum would take a doubled slash for one.
        .route_service("/webhook/{*path}", receiver)
        .route("/", get(|| async { Json(json!({"message": "200 OK"})) }))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(render_metrics))
        .route("/admin/config-status", admin)
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .layer(CatchPanicLayer::new())
        .with_state(Operator { store, metrics, shutdown });
    Ok(router)
}

fn detail(status: StatusCode, detail: &str) -> Response {
    let body = json!({"title": status.canonical_reason(), "status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// 200 while the process can serve; what is wrong with the source is told, and no reason to be restarted.
async fn health(State(operator): State<Operator>) -> Json<Value> {
    let status = operator.store.status();
    let loaded = status.snapshot.is_loaded();
    Json(json!({
        "status": if loaded { "healthy" } else { "starting" },
        "components": { status.source: status.state.label() },
        "staleness_seconds": status.staleness().map(|staleness| staleness.as_secs_f64()),
    }))
}

#[derive(serde::Deserialize)]
struct ReadyQuery {
    min_revision: Option<u64>,
}

async fn ready(
    State(operator): State<Operator>,
    query: Result<Query<ReadyQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return detail(StatusCode::BAD_REQUEST, "min_revision must be a whole number");
    };
    if operator.shutdown.has_begun() {
        return detail(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    }
    if let Some(revision) = query.min_revision {
        let waiting = operator.store.wait_for_revision(revision);
        // Not in time, or not any more: in another history of etcd the number means something else.
        if !tokio::time::timeout(LONGEST_WAIT, waiting).await.unwrap_or(false) {
            return detail(StatusCode::SERVICE_UNAVAILABLE, "the revision has not been reached");
        }
    }
    let snapshot = operator.store.snapshot();
    if !snapshot.is_loaded() {
        return detail(StatusCode::SERVICE_UNAVAILABLE, "no configuration has been loaded yet");
    }
    Json(json!({"status": "ready", "revision": snapshot.revision()})).into_response()
}

async fn render_metrics(State(operator): State<Operator>) -> Response {
    if let Some(staleness) = operator.store.status().staleness() {
        metrics::gauge!("tower_webhook_config_staleness_seconds").set(staleness);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], operator.metrics.render()).into_response()
}

async fn config_status(State(operator): State<Operator>) -> Json<Value> {
    let status = operator.store.status();
    let counts = status.snapshot.counts();
    let mut refused: Vec<_> = status.snapshot.refusals().collect();
    refused.sort_by(|a, b| a.0.cmp(b.0));
    let refused: Vec<_> = refused
        .into_iter()
        .map(|(key, refusal)| {
            json!({
                "key": key.to_string(),
                "reason": refusal.reason(),
                "revision": refusal.revision(),
                "serving_last_good": refusal.is_serving_last_good(),
            })
        })
        .collect();
    let report = &status.report;
    let lists: serde_json::Map<_, _> =
        report.lists.iter().map(|(reason, lists)| (reason.label().to_owned(), json!(lists))).collect();
    let last_error = report.last_error.as_ref().map(|error| {
        json!({
            "kind": error.kind.label(),
            "reason": error.reason,
            "seconds_ago": error.at.elapsed().unwrap_or_default().as_secs_f64(),
            "count": report.errors.values().sum::<u64>(),
        })
    });
    Json(json!({
        "source": status.source,
        "state": status.state.label(),
        "reason": status.state.reason(),
        "state_seconds": status.state_since.elapsed().unwrap_or_default().as_secs_f64(),
        "loaded": status.snapshot.is_loaded(),
        "revision": status.snapshot.revision(),
        "staleness_seconds": status.staleness().map(|staleness| staleness.as_secs_f64()),
        "endpoint": report.endpoint,
        "server_version": report.server_version,
        "epoch": report.epoch,
        "connects": report.connects,
        "lists": lists,
        "anomalies": report.anomalies,
        "audits": report.audits,
        "last_error": last_error,
        "from_saved_copy": report.from_saved_copy,
        "saved_copy_error": report.copy_error,
        "webhooks": counts.webhooks,
        "open_webhooks": counts.open,
        "fenced_webhooks": counts.fenced,
        "namespaces": counts.namespaces,
        "connections": counts.connections,
        "ignored_keys": status.ignored_keys,
        "refused_keys": refused,
    }))
}
