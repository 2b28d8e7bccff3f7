//! Requests, counted and timed.
//!
//! With the feature `metrics` this layer records, through the [`metrics`](https://docs.rs/metrics) facade,
//! `tower_webhook_requests_total{outcome}` and the histogram `tower_webhook_request_seconds{outcome}`. The outcome is
//! the refusal's [label](crate::RejectionKind::label), else `accepted` for a 2xx answer, `other` for any other, and
//! `aborted` when the sender hung up before there was one: a bounded set, and nothing a stranger sent. Install the recorder
//! before the first request: each layer asks it for a series once. Without the feature it does nothing.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_webhook::{ObserveLayer, RouteNamespaceLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(ObserveLayer::new())
//!     .layer(RouteNamespaceLayer::from_path())
//!     .service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
//!
//! // Counted as `outcome="no_route"`.
//! assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), 404);
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::telemetry::{Requests, Timer};

/// Counts and times requests. See the [module docs](self).
#[derive(Clone, Debug, Default)]
pub struct ObserveLayer {
    requests: Requests,
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
        Observe { inner, requests: self.requests.clone() }
    }
}

/// Middleware applied by [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    requests: Requests,
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
        ObserveFuture { timer: Timer::start(&self.requests), inner: self.inner.call(req) }
    }
}

/// Response future of [`Observe`].
#[pin_project]
#[derive(Debug)]
pub struct ObserveFuture<F> {
    timer: Timer,
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
        }
        Poll::Ready(outcome)
    }
}
