//! The routes of webhooks and of the operator.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{self, Request, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::future::RouteFuture;
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use http_body_util::Either;
use metrics_exporter_prometheus::PrometheusHandle;
use pin_project::pin_project;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;
use tower_webhook::event::EVENT_ID;
use tower_webhook::layers::Remainders;
use tower_webhook::queue::Queue;
use tower_webhook::receiver::ReceiverFuture;
use tower_webhook::request::{BodyMemory, ResponseBody};
use tower_webhook::{Receiver, Store};

use crate::clients::Clients;
use crate::exchange::RequestBody;
use crate::refused::RefusedLog;
use crate::rendering::Rendering;
use crate::server::Shutdown;
use crate::settings::Settings;
use crate::{admin, rules};

/// The beginning of every webhook's path.
pub(crate) const WEBHOOKS: &str = "/webhook/";

/// The longest wait of `/ready?min_revision=N`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many such requests may wait at a time. Anybody may send them, and a connection that waits cannot make room for
/// another.
const WAITS: usize = 32;

#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) store: Store,
    pub(crate) queue: Option<Queue>,
    body_memory: BodyMemory,
    metrics: Arc<Rendering>,
    shutdown: Shutdown,
    /// Permits for requests that wait for a revision.
    waits: Arc<Semaphore>,
}

impl Operator {
    pub(crate) fn new(
        store: Store,
        queue: Option<Queue>,
        body_memory: BodyMemory,
        metrics: PrometheusHandle,
        shutdown: Shutdown,
    ) -> Self {
        let (metrics, waits) = (Arc::new(Rendering::new(metrics)), Arc::new(Semaphore::new(WAITS)));
        Self { store, queue, body_memory, metrics, shutdown, waits }
    }
}

pub(crate) fn apps(receiver: Receiver, state: Operator, settings: &Settings) -> Apps {
    let root = Router::new().route("/", get(|| async { Json(json!({"message": "200 OK"})) }));
    let refused = RefusedLog::default();
    let operator = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(render_metrics))
        .nest("/admin", admin::routes(settings, refused.clone()));
    let finish = |routes: Router<Operator>| {
        routes
            .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
            .layer(CatchPanicLayer::new())
            .with_state(state.clone())
    };
    let remainders = receiver.remainders();
    let receiver = Some(receiver);
    let clients = Clients::new(settings.clients.clone());
    let everything = root.clone().merge(operator);
    match settings.admin_address {
        None => Apps { main: App { receiver, routes: finish(everything), clients, refused }, admin: None, remainders },
        Some(_) => Apps {
            main: App { receiver, routes: finish(root), clients: clients.clone(), refused: refused.clone() },
            admin: Some(App { receiver: None, routes: finish(everything), clients, refused }),
            remainders,
        },
    }
}

/// The routes of each listener.
pub(crate) struct Apps {
    pub(crate) main: App,
    /// The routes of the operator's listener. If it exists, `main` has none of them.
    pub(crate) admin: Option<App>,
    /// Events without a sender. A stop waits for them once all connections have ended.
    pub(crate) remainders: Remainders,
}

/// The answer's body: of a webhook, or of another route.
pub(crate) type AppBody = Either<ResponseBody, Body>;

/// Whether a webhook's guard has admitted the request: only then does the answer have the event's id.
pub(crate) fn is_let_in(answer: &http::Response<AppBody>) -> bool {
    matches!(answer.body(), Either::Left(_)) && answer.headers().contains_key(EVENT_ID)
}

/// The webhooks and the other routes. Webhooks bypass axum's router, which is faster.
#[derive(Clone)]
pub(crate) struct App {
    receiver: Option<Receiver>,
    routes: Router,
    clients: Clients,
    refused: RefusedLog,
}

impl Service<Request<RequestBody>> for App {
    type Response = http::Response<AppBody>;
    type Error = Infallible;
    type Future = AppFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut req: Request<RequestBody>) -> AppFuture {
        if let Err(violation) = self.clients.note(&mut req).and_then(|()| rules::check(&req)) {
            self.refused.violation(&req, &violation);
            return AppFuture::Refused(Some(detail(violation.status, violation.detail)));
        }
        match &mut self.receiver {
            Some(receiver) if req.uri().path().starts_with(WEBHOOKS) => {
                AppFuture::Receiver(AssertUnwindSafe(receiver.call(req)).catch_unwind())
            }
            _ => AppFuture::Other(self.routes.call(req.map(Body::new))),
        }
    }
}

/// Response future of [`App`].
#[pin_project(project = AppFutureProj)]
#[allow(clippy::large_enum_variant)] // The large one is the usual one, and a box would cost it an allocation.
pub(crate) enum AppFuture {
    Receiver(#[pin] CatchUnwind<AssertUnwindSafe<ReceiverFuture<RequestBody>>>),
    Other(#[pin] RouteFuture<Infallible>),
    Refused(Option<Response>),
}

impl Future for AppFuture {
    type Output = Result<http::Response<AppBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project() {
            AppFutureProj::Receiver(answer) => match ready!(answer.poll(cx)) {
                Ok(answer) => answer?.map(Either::Left),
                // The panic hook has logged the panic.
                Err(_) => detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").map(Either::Right),
            },
            AppFutureProj::Other(answer) => ready!(answer.poll(cx))?.map(Either::Right),
            // Present once: a future that has ended is not polled again.
            AppFutureProj::Refused(answer) => answer.take().unwrap_or_default().map(Either::Right),
        };
        Poll::Ready(Ok(response))
    }
}

pub(crate) fn detail(status: StatusCode, detail: &str) -> Response {
    let body = json!({"title": status.canonical_reason(), "status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// 200 while the process can serve. The body names faults of the source, which a restart would not mend.
async fn health(State(operator): State<Operator>) -> Json<Value> {
    let status = operator.store.status();
    let loaded = status.snapshot.is_loaded();
    let mut components = json!({ status.source: status.state.label() });
    if let Some(queue) = &operator.queue {
        components["spool"] = json!(if queue.status().is_failing { "failing" } else { "healthy" });
    }
    Json(json!({
        "status": if loaded { "healthy" } else { "starting" },
        "components": components,
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
        return shutting_down();
    }
    if let Some(revision) = query.min_revision
        && let Err(answer) = wait_for(revision, &operator).await
    {
        return answer;
    }
    let snapshot = operator.store.snapshot();
    if !snapshot.is_loaded() {
        return detail(StatusCode::SERVICE_UNAVAILABLE, "no configuration has been loaded yet");
    }
    Json(json!({"status": "ready", "revision": snapshot.revision()})).into_response()
}

async fn wait_for(revision: u64, operator: &Operator) -> Result<(), Response> {
    let mut waiting = pin!(operator.store.wait_for_revision(revision));
    // Most revisions have been reached already and need no permit.
    let reached = match waiting.as_mut().now_or_never() {
        Some(reached) => reached,
        None => {
            let Ok(_place) = operator.waits.try_acquire() else {
                let busy = "too many requests wait for a revision; try again later";
                return Err(
                    ([(header::RETRY_AFTER, "1")], detail(StatusCode::SERVICE_UNAVAILABLE, busy)).into_response()
                );
            };
            tokio::select! {
                reached = waiting => reached,
                () = operator.shutdown.clone().begun() => return Err(shutting_down()),
                () = sleep(LONGEST_WAIT) => false,
            }
        }
    };
    // Or it is no longer reached: after a restore of etcd the number belongs to another history.
    match reached {
        true => Ok(()),
        false => Err(detail(StatusCode::SERVICE_UNAVAILABLE, "the revision has not been reached")),
    }
}

fn shutting_down() -> Response {
    detail(StatusCode::SERVICE_UNAVAILABLE, "shutting down")
}

async fn render_metrics(State(operator): State<Operator>) -> Response {
    let text = operator.metrics.text(|| {
        if let Some(staleness) = operator.store.status().staleness() {
            metrics::gauge!("tower_webhook_config_staleness_seconds").set(staleness);
        }
        metrics::gauge!("tower_webhook_body_memory_bytes").set(operator.body_memory.held() as f64);
        operator.queue.iter().for_each(Queue::measure);
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
