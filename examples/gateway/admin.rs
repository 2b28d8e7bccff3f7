//! The routes below `/admin`, for requests with `Authorization: Bearer $ADMIN_TOKEN`.

#![allow(clippy::result_large_err)] // the error is the answer, and goes no further than the handler

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceBuilder;
use tower_webhook::event::EventId;
use tower_webhook::layers::{ProblemJsonLayer, RequireAuthLayer};
use tower_webhook::queue::{DeadLetter, DeadLetterQuery, Queue};
use tower_webhook::request::{REDACTED, is_credential};

use crate::refused::{RefusedLog, log_unauthenticated};
use crate::routes::{Operator, detail};
use crate::settings::Settings;

/// Dead letters in one answer if the request sets no `limit`.
const PAGE: usize = 100;

/// The most dead letters in one answer.
const MAX_PAGE: usize = 1000;

/// Answers that are made or read at a time: some hold a whole event.
const ANSWERS: usize = 4;

/// How long a request waits to become one of the [`ANSWERS`].
const TURN: Duration = Duration::from_secs(10);

pub(crate) fn routes(settings: &Settings, refused: RefusedLog) -> Router<Operator> {
    let Some(bearer) = &settings.admin else {
        return Router::new()
            .route("/{*path}", any(|| async { detail(StatusCode::FORBIDDEN, "ADMIN_TOKEN is not set") }));
    };
    let guard = ServiceBuilder::new().layer(ProblemJsonLayer::new()).layer(RequireAuthLayer::new(bearer.clone()));
    let not_found = || async { detail(StatusCode::NOT_FOUND, "Not Found") };
    Router::new()
        .route("/config-status", get(config_status))
        .route("/dead-letters", get(dead_letters))
        .route("/dead-letters/replay", post(replay_all))
        .route("/dead-letters/{id}", get(dead_letter).delete(remove))
        .route("/dead-letters/{id}/replay", post(replay))
        .route("/{*path}", any(not_found))
        .layer(from_fn_with_state(Arc::new(Semaphore::new(ANSWERS)), bounded))
        .layer(guard)
        .layer(from_fn_with_state(refused, log_unauthenticated))
}

/// Holds a permit for each answer until the answer has been read.
async fn bounded(State(places): State<Arc<Semaphore>>, req: Request, next: Next) -> Response {
    let Ok(Ok(place)) = timeout(TURN, places.acquire_owned()).await else {
        let busy = "other answers below /admin are being read; read those, or end their connections, and try again";
        return ([(header::RETRY_AFTER, "1")], detail(StatusCode::SERVICE_UNAVAILABLE, busy)).into_response();
    };
    // The permit is dropped with the body.
    let hold = move |error| {
        let _ = &place;
        error
    };
    next.run(req).await.map(|body| Body::new(body.map_err(hold)))
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
    let ignored = status.ignored.iter();
    let ignored: Vec<_> =
        ignored.map(|ignored| json!({"key": ignored.key, "reason": ignored.reason, "hint": ignored.hint})).collect();
    let mut warnings: Vec<_> = status.snapshot.warnings().collect();
    warnings.sort_by(|a, b| a.0.cmp(b.0));
    let warnings: Vec<_> =
        warnings.into_iter().map(|(key, reason)| json!({"key": key.to_string(), "reason": reason})).collect();
    let report = &status.report;
    let lists: Map<_, _> =
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
        "server_errors": report.server_errors,
        "source_warnings": report.warnings,
        "epoch": report.epoch,
        "connects": report.connects,
        "lists": lists,
        "anomalies": report.anomalies,
        "audits": report.audits,
        "differences": report.differences,
        "last_error": last_error,
        "from_saved_copy": report.from_saved_copy,
        "saved_copy_error": report.copy_error,
        "webhooks": counts.webhooks,
        "open_webhooks": counts.open,
        "fenced_webhooks": counts.fenced,
        "namespaces": counts.namespaces,
        "connections": counts.connections,
        "ignored_keys": status.ignored_keys,
        "ignored": ignored,
        "refused_keys": refused,
        "warnings": warnings,
    }))
}

/// The selected dead letters.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    after: Option<String>,
    limit: Option<usize>,
    namespace: Option<String>,
    webhook: Option<String>,
}

impl Which {
    /// One page of them, with at most `limit`.
    fn query(&self, after: Option<EventId>, limit: usize) -> DeadLetterQuery {
        let (namespace, webhook) = (self.namespace.clone(), self.webhook.clone());
        DeadLetterQuery { after, namespace, webhook, ..DeadLetterQuery::first(limit) }
    }
}

type Wanted = Result<Query<Which>, axum::extract::rejection::QueryRejection>;

async fn dead_letters(State(operator): State<Operator>, which: Wanted) -> Result<Response, Response> {
    let queue = queue(&operator)?;
    let which = which.map_err(|error| detail(StatusCode::BAD_REQUEST, &error.body_text()))?.0;
    let after = which.after.as_deref().map(parse).transpose()?;
    let limit = which.limit.unwrap_or(PAGE).min(MAX_PAGE);
    let letters = queue.dead_letters(which.query(after, limit)).await.map_err(failed)?;
    let letters: Vec<_> = letters.iter().map(shown).collect();
    Ok(Json(json!({"total": queue.status().dead_letters, "dead_letters": letters})).into_response())
}

async fn dead_letter(State(operator): State<Operator>, Path(id): Path<String>) -> Result<Response, Response> {
    let (queue, id) = (queue(&operator)?, parse(&id)?);
    let (letter, event) = queue.dead_letter(id).await.map_err(failed)?.ok_or_else(unknown)?;
    let mut shown = shown(&letter);
    shown["received_at"] = json!(rfc3339(event.received_at));
    shown["headers"] = shown_headers(&event.headers);
    match std::str::from_utf8(&event.body) {
        Ok(text) => shown["body"] = json!(text),
        Err(_) => shown["body_base64"] = json!(BASE64_STANDARD.encode(&event.body)),
    }
    Ok(Json(shown).into_response())
}

async fn replay(State(operator): State<Operator>, Path(id): Path<String>) -> Result<Response, Response> {
    match queue(&operator)?.replay(vec![parse(&id)?]).await.map_err(failed)? {
        0 => Err(unknown()),
        _ => Ok((StatusCode::ACCEPTED, Json(json!({"replayed": 1}))).into_response()),
    }
}

async fn replay_all(State(operator): State<Operator>, which: Wanted) -> Result<Response, Response> {
    let queue = queue(&operator)?;
    let which = which.map_err(|error| detail(StatusCode::BAD_REQUEST, &error.body_text()))?.0;
    let mut after = which.after.as_deref().map(parse).transpose()?;
    let mut replayed = 0;
    let wanted = which.limit.unwrap_or(usize::MAX);
    // In pages, so that events which arrive meanwhile need not wait.
    while replayed < wanted {
        let page = which.query(after, MAX_PAGE.min(wanted - replayed));
        let page: Vec<_> = queue.dead_letters(page).await.map_err(failed)?.iter().map(|letter| letter.id).collect();
        let Some(last) = page.last() else { break };
        after = Some(*last);
        replayed += queue.replay(page).await.map_err(failed)?;
        tokio::task::yield_now().await;
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"replayed": replayed}))).into_response())
}

async fn remove(State(operator): State<Operator>, Path(id): Path<String>) -> Result<Response, Response> {
    match queue(&operator)?.remove_dead_letters(vec![parse(&id)?]).await.map_err(failed)? {
        0 => Err(unknown()),
        _ => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

fn queue(operator: &Operator) -> Result<Queue, Response> {
    operator.queue.clone().ok_or_else(|| detail(StatusCode::NOT_FOUND, "SPOOL_DIR is not set"))
}

/// The answer when the queue's storage fails.
fn failed(error: std::io::Error) -> Response {
    detail(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
}

fn parse(id: &str) -> Result<EventId, Response> {
    id.parse().map_err(|_| detail(StatusCode::BAD_REQUEST, "the id is not the id of an event; expected a UUID"))
}

fn unknown() -> Response {
    detail(StatusCode::NOT_FOUND, "there is no such dead letter")
}

fn shown(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id.to_string(),
        "namespace": letter.webhook.namespace(),
        "webhook": letter.webhook.id(),
        "attempts": letter.attempts,
        "died_at": rfc3339(letter.died_at),
        "kind": letter.kind.label(),
        "reason": letter.reason,
    })
}

fn shown_headers(headers: &HeaderMap) -> Value {
    let fields = headers.iter().map(|(name, value)| {
        let value = match is_credential(name) {
            true => REDACTED.into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        json!([name.as_str(), value])
    });
    fields.collect()
}

fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.to_string())
}
