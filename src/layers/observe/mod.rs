//! Requests, counted and timed, and a line for each that is refused.

mod metrics;
mod refused;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::metrics::{Requests, Timer};
pub(crate) use self::refused::Asked;
use self::refused::{Pending, RefusedLog};

/// Counts and times requests, and logs refused ones.
///
/// A refused request is logged at INFO, with the target `tower_webhook::rejection`: `webhook` (`namespace/id`, or the path
/// if it names none), `kind` (the refusal's [label](crate::RejectionKind::label)), `reason`, `guard` if one refused, and `peer` if the server has
/// put a [`Peer`](crate::request::Peer) into the request's extensions; `client` if that peer is a proxy that forwards for it. For each webhook and kind ten lines may come at once, and then
/// one in 5 seconds, which says in `left_out` how many were not logged before it; all requests for webhooks that do not
/// exist have one limit together. A failed delivery has a line of its own instead (see [`Dispatch`](super::dispatch::Dispatch)), which
/// names the event and the error. `webhook` needs [`RouteNamespace`](super::route::RouteNamespace) behind this layer.
///
/// With the feature `metrics` this layer records, through the [`metrics`](https://docs.rs/metrics) facade,
/// `tower_webhook_requests_total{outcome}` and the histogram `tower_webhook_request_seconds{outcome}`. The outcome is
/// the refusal's [label](crate::RejectionKind::label), `handshake` for the answer to a challenge, else `duplicate` for a 2xx answer with `X-Duplicate`, `accepted` for any other
/// 202, `delivered` for any other 2xx, `other` for any other answer, and
/// `aborted` when the sender hung up before there was one: a bounded set, and nothing a stranger sent. What became of
/// such an event is counted by [`Finish`](super::finish::Finish). Install the recorder before the first request: each layer asks
/// it for a series once. Without the feature it does nothing.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::layers::{ObserveLayer, RouteNamespaceLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(ObserveLayer::new())
///     .layer(RouteNamespaceLayer::from_path())
///     .service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
///
/// // Counted as `outcome="no_route"`.
/// assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), 404);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ObserveLayer {
    requests: Requests,
    refused: RefusedLog,
}

impl ObserveLayer {
    /// Put it outside of every layer that may refuse.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { inner, requests: self.requests.clone(), refused: self.refused.clone() }
    }
}

/// Middleware applied by [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    requests: Requests,
    refused: RefusedLog,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Observe<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        let (timer, pending) = (Timer::start(&self.requests), self.refused.begin(&req));
        ObserveFuture { timer, pending, inner: self.inner.call(req) }
    }
}

/// Response future of [`Observe`].
#[pin_project]
#[derive(Debug)]
pub struct ObserveFuture<F> {
    timer: Timer,
    pending: Option<Pending>,
    #[pin]
    inner: F,
}

impl<F, B, E> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        if let Ok(response) = &outcome {
            this.timer.stop(response);
            if let Some(pending) = this.pending.take() {
                pending.end(response);
            }
        }
        Poll::Ready(outcome)
    }
}
