//! The layer that finishes the processing of an event although its sender has hung up.

mod metrics;
mod remainders;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http::{Request, Response};
use tokio::runtime::Handle;
use tower_layer::Layer;
use tower_service::Service;

use self::metrics::Outcome;
pub use self::remainders::Remainders;
use super::evidence::{Evidence, Remainder};
use super::trace::Trace;
use crate::request::Collected;
use crate::webhook::Webhook;

/// Finishes events whose senders do not wait for the answer.
///
/// A sender that times out, resets its stream or closes its connection makes the server drop the response future. The
/// services behind [`FinishLayer`] are then not aborted: the rest of their work, the remainder, continues in a task of
/// its own. The layer comes after the whole body has arrived and the sender is authenticated, so an incomplete event is
/// not processed. It comes before [`Dedup`](super::dedup::Dedup), so the event's id stays claimed meanwhile: a sender
/// that sends the event again gets 409, and the answer of the first request once the event was taken. Behind `Dedup`,
/// where this is impossible, the layer does nothing for a claimed event.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | the body type [`Collected`]; [`Matched`](super::evidence::Matched) if there is one | nothing | nothing |
///
/// A remainder keeps the permits and the memory that it has, and gets no more: senders that reset their requests
/// quickly use up no more than those that wait. There are at most [4,096](Remainders::MAX_EVENTS) remainders with [256
/// MiB](Remainders::MAX_BYTES) of bodies, and one namespace has at most a quarter of both. An event beyond these limits
/// is aborted with its request; its sender got no answer, and has to send it again. The same happens to a request that
/// is dropped outside of a tokio runtime.
///
/// Before it stops, the server waits for [`Remainders::ended`]. With the feature `metrics`,
/// `tower_webhook_senders_gone_total{outcome}` counts the events whose sender did not wait: `taken` (the answer would
/// have been 2xx), `refused` (any other answer, or an error), `broken_off` (it panicked, or the runtime ended) and
/// `dropped` (there were too many). [`Observe`](super::observe::Observe) counts such a request as `aborted`.
///
/// The future of the inner service has to be `Unpin`, like those of [`Dedup`](super::dedup::Dedup) and
/// [`Dispatch`](super::dispatch::Dispatch); any other can be boxed:
///
/// ```
/// use bytes::Bytes;
/// use futures_util::FutureExt;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Service, ServiceBuilder};
/// use tower_webhook::layers::{CollectBodyLayer, FinishLayer};
/// use tower_webhook::request::Collected;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (processed, was_processed) = tokio::sync::oneshot::channel();
/// let processed = std::sync::Arc::new(std::sync::Mutex::new(Some(processed)));
/// let finish = FinishLayer::new();
/// let remainders = finish.remainders();
/// let mut service = ServiceBuilder::new()
///     .layer(CollectBodyLayer::new())
///     .layer(finish)
///     .map_future(Box::pin)
///     .service_fn(move |_: Request<Collected>| {
///         let processed = processed.lock().unwrap().take();
///         async move {
///             tokio::task::yield_now().await;
///             processed.map(|processed| processed.send("processed"));
///             Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
///         }
///     });
///
/// let mut answer = Box::pin(service.call(Request::new(Full::<Bytes>::default())));
/// assert!((&mut answer).now_or_never().is_none());
/// drop(answer);
/// assert_eq!(was_processed.await, Ok("processed"));
/// remainders.ended().await;
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct FinishLayer {
    remainders: Remainders,
}

impl FinishLayer {
    /// A layer. All services made by it, or by a clone of it, share its [`Remainders`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The events that continue without a sender.
    pub fn remainders(&self) -> Remainders {
        self.remainders.clone()
    }
}

impl<S> Layer<S> for FinishLayer {
    type Service = Finish<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Finish { inner, remainders: self.remainders.clone() }
    }
}

/// Middleware applied by [`FinishLayer`].
#[derive(Clone, Debug)]
pub struct Finish<S> {
    inner: S,
    remainders: Remainders,
}

impl<S, ResBody> Service<Request<Collected>> for Finish<S>
where
    S: Service<Request<Collected>, Response = Response<ResBody>>,
    S::Future: Unpin + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = FinishFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<Collected>) -> Self::Future {
        // An outer `Dedup` releases its claim with the request: a repeated event must not find this one still running.
        let Remainder { is_claimed, webhook, trace } = Evidence::of(req.extensions()).remainder();
        let event = Event { webhook, bytes: req.body().bytes().len(), trace };
        FinishFuture {
            inner: Some(self.inner.call(req)),
            event,
            remainders: (!is_claimed).then(|| self.remainders.clone()),
            go_on: go_on::<S::Future, ResBody, S::Error>,
        }
    }
}

/// Response future of [`Finish`].
pub struct FinishFuture<F> {
    /// `None` while it is polled, so that a future that panics is not polled again.
    inner: Option<F>,
    event: Event,
    /// `None` if the event must not continue.
    remainders: Option<Remainders>,
    /// Knows the types of the answer, so that the future need not name them.
    go_on: fn(F, &Remainders, &Event),
}

/// An event whose sender may hang up.
struct Event {
    webhook: Option<Arc<Webhook>>,
    bytes: usize,
    /// Follows the request for a history.
    trace: Option<Arc<Trace>>,
}

impl Event {
    /// The namespace whose share the event uses. Events without a known webhook share one.
    fn namespace(&self) -> &str {
        self.webhook.as_ref().map_or("", |webhook| webhook.key().namespace())
    }
}

impl<F> fmt::Debug for FinishFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishFuture").finish_non_exhaustive()
    }
}

impl<F: Future + Unpin> Future for FinishFuture<F> {
    type Output = F::Output;

    #[allow(clippy::expect_used)] // the contract of `Future`, as everywhere in std and futures
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.inner.take().expect("polled after completion");
        let outcome = inner.poll_unpin(cx);
        // Not `is_pending`, which borrows the answer: it would be copied once more.
        if matches!(outcome, Poll::Pending) {
            self.inner = Some(inner);
        }
        outcome
    }
}

impl<F> Drop for FinishFuture<F> {
    fn drop(&mut self) {
        if let (Some(inner), Some(remainders)) = (self.inner.take(), &self.remainders) {
            (self.go_on)(inner, remainders, &self.event);
        }
    }
}

/// The sender has hung up: `rest` continues without it, if there is room.
fn go_on<F, B, E>(rest: F, remainders: &Remainders, event: &Event)
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
{
    let webhook = event.webhook.as_ref().map(|webhook| tracing::field::display(webhook.key()));
    let runtime = Handle::try_current().ok();
    let (Some(runtime), Some(place)) = (runtime, remainders.begin(event.namespace(), event.bytes)) else {
        tracing::debug!(webhook, "the sender is gone, and there is no room to finish its event");
        return metrics::gone(Outcome::Dropped);
    };
    tracing::debug!(webhook, "the sender is gone: its event is finished without it");
    let trace = event.trace.clone();
    if let Some(trace) = &trace {
        trace.detached();
    }
    runtime.spawn(async move {
        let outcome = rest.await;
        if let Some(trace) = trace {
            trace.answered(outcome.as_ref().ok());
        }
        place.ended(outcome.is_ok_and(|answer| answer.status().is_success()));
    });
}
