//! The routes of webhooks and of the measured.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{self, Request, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::future::RouteFuture;
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use http_body_util::Either;
use metrics_exporter_prometheus::PrometheusHandle;
use pin_project::pin_project;
use serde_json::json;
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;
use tower_webhook::admin::Admin;
use tower_webhook::event::EVENT_ID;
use tower_webhook::layers::Remainders;
use tower_webhook::queue::Queue;
use tower_webhook::receiver::ReceiverFuture;
use tower_webhook::request::{BodyMemory, ResponseBody};
use tower_webhook::{Receiver, Store};

use crate::access::{AccessLog, Entry};
use crate::clients::Clients;
use crate::exchange::RequestBody;
use crate::refused::RefusedLog;
use crate::rendering::Rendering;
use crate::rules;
use crate::settings::Settings;

/// The beginning of every webhook's path.
pub(crate) const WEBHOOKS: &str = "/webhook/";

/// What `/metrics` shows.
#[derive(Clone)]
pub(crate) struct Measured {
    store: Store,
    queue: Option<Queue>,
    body_memory: BodyMemory,
    metrics: Arc<Rendering>,
}

impl Measured {
    pub(crate) fn new(store: Store, queue: Option<Queue>, body_memory: BodyMemory, metrics: PrometheusHandle) -> Self {
        Self { store, queue, body_memory, metrics: Arc::new(Rendering::new(metrics)) }
    }
}

pub(crate) fn apps(
    receiver: Receiver,
    admin: Admin,
    measured: Measured,
    access: AccessLog,
    settings: &Settings,
) -> Apps {
    let root = Router::new().route("/", get(|| async { Json(json!({"message": "200 OK"})) }));
    let refused = RefusedLog::default();
    let operator = Router::new()
        .route_service("/health", admin.probes())
        .route_service("/ready", admin.probes())
        .route("/metrics", get(render_metrics))
        .nest_service("/admin", admin);
    let finish = |routes: Router<Measured>| {
        routes
            .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
            .layer(CatchPanicLayer::new())
            .with_state(measured.clone())
    };
    let remainders = receiver.remainders();
    let receiver = Some(receiver);
    let clients = Clients::new(settings.clients.clone());
    let everything = root.clone().merge(operator);
    match settings.admin_address {
        None => {
            let main = App { receiver, routes: finish(everything), clients, refused, access };
            Apps { main, admin: None, remainders }
        }
        Some(_) => Apps {
            main: App {
                receiver,
                routes: finish(root),
                clients: clients.clone(),
                refused: refused.clone(),
                access: access.clone(),
            },
            admin: Some(App { receiver: None, routes: finish(everything), clients, refused, access }),
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
    access: AccessLog,
}

impl App {
    /// Begins the line of a request in the access log, if there is one.
    pub(crate) fn access<B>(&self, req: &Request<B>) -> Option<Box<Entry>> {
        self.access.begin(req, |peer, headers| self.clients.forwarded(peer, headers))
    }
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

async fn render_metrics(State(measured): State<Measured>) -> Response {
    let text = measured.metrics.text(|| {
        if let Some(staleness) = measured.store.status().staleness() {
            metrics::gauge!("tower_webhook_config_staleness_seconds").set(staleness);
        }
        metrics::gauge!("tower_webhook_body_memory_bytes").set(measured.body_memory.held() as f64);
        measured.queue.iter().for_each(Queue::measure);
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
