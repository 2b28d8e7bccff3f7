//! The layer that counts and times requests, and logs each refused one.

mod metrics;
mod refused;
mod webhooks;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::metrics::{Requests, Timer};
pub(crate) use self::refused::Asked;
use self::refused::{Pending, RefusedLog};
pub(crate) use self::webhooks::{CountWebhooks, CountWebhooksLayer};

/// Counts and times requests, and logs refused ones.
///
/// A refused request is logged at INFO, with the target `tower_webhook::rejection` and these fields: `webhook`
/// (`namespace/id`, or the path if it names no webhook), `kind` (the refusal's [label](crate::RejectionKind::label)),
/// `reason`, `guard` if a guard refused, `peer` if the server has added a [`Peer`](crate::request::Peer) to the request's extensions, and `client`
/// if that peer is a proxy that names its client. For each webhook and kind there are ten lines at once, then one in 5
/// seconds, whose `left_out` is the number of suppressed lines before it; all requests for unknown webhooks share one
/// limit. A failed delivery has another line instead (see [`Dispatch`](super::dispatch::Dispatch)), which names the
/// event and the error. `webhook` needs a [`RouteNamespace`](super::route::RouteNamespace) behind this layer.
///
/// With the feature `metrics` this layer records, through the [`metrics`](https://docs.rs/metrics) facade,
/// `tower_webhook_requests_total{outcome}` and the histogram `tower_webhook_request_seconds{outcome}`. The outcome is
/// the refusal's [label](crate::RejectionKind::label), `handshake` for the answer to a challenge, `duplicate` for the
/// answer of [`Dedup`](super::dedup::Dedup) to a duplicate, `accepted` for any other 202, `delivered` for any other 2xx,
/// `other` for any other answer, and `aborted` if the sender hung up before the answer. The layer knows the first three by the
/// extensions of the response, which a middleware between the layers has to keep. So the set of values is fixed, and contains
/// nothing from requests.
/// [`Finish`](super::finish::Finish) counts how aborted events ended. Install the recorder before the first request:
/// each layer asks it for a series once. Without the feature the layer records nothing.
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
    /// A layer to put outside of every layer that may refuse.
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

    #[inline]
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        if let Poll::Ready(Ok(response)) = &polled {
            this.timer.stop(response);
            if let Some(pending) = this.pending.take() {
                pending.end(response);
            }
        }
        polled
    }
}
