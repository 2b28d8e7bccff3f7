//! The layer that tells a history what happens to each request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::Evidence;
use super::trace::Trace;
use crate::history::History;
use crate::request::{Head, Rejection, ResponseFuture};

/// Tells a [`History`] what happens to each request for a webhook.
///
/// Each request gives one [`Received`](crate::history::Received) once it was answered, accepted or refused. If its sender
/// hangs up before the answer, the entry has the status 499 and the kind `aborted`; an event that
/// [`Finish`](super::finish::Finish) continues without its sender gives its entry when it has ended. The layers behind
/// this one add what they know: the guards, the result of `dedup`, the event's id and the time that each step took.
/// [`Dispatch`](super::dispatch::Dispatch) also gives one [`Attempt`](crate::history::Attempt) for each module that it
/// tries.
///
/// The key `history` of the webhook says how much is kept. The head and the body are kept only of a sender that all
/// guards have let in. Reporting never waits, and without a history there is nothing to pay for it. When the history has no
/// room for an event, nothing of the event is reported.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | [`Matched`](crate::Matched): put it directly behind [`LookupWebhook`](super::lookup::LookupWebhook) | nothing | nothing |
///
/// ```
/// use std::time::Duration;
///
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::history::History;
/// use tower_webhook::layers::{LookupWebhookLayer, RecordHistoryLayer, RequireAuthLayer, RouteNamespaceLayer};
/// use tower_webhook::source::FixedSource;
/// use tower_webhook::{Registry, reflect};
///
/// # use std::sync::{Arc, Mutex};
/// # use tower_webhook::history::{Activity, Backend, BackendFuture, Entry, Event, EventQuery, HistoryStatus, Page, Summary};
/// # #[derive(Clone, Default)]
/// # struct Memory(Arc<Mutex<Vec<Entry>>>);
/// # impl Backend for Memory {
/// #     fn record(&self, entry: Entry) { self.0.lock().unwrap().push(entry); }
/// #     fn events(&self, _: EventQuery) -> BackendFuture<'_, Page> { unimplemented!() }
/// #     fn summary(&self, _: EventQuery) -> BackendFuture<'_, Summary> { unimplemented!() }
/// #     fn activity(&self, _: Option<Arc<[Box<str>]>>) -> BackendFuture<'_, Vec<Activity>> { unimplemented!() }
/// #     fn event(&self, _: tower_webhook::event::EventId) -> BackendFuture<'_, Option<Event>> { unimplemented!() }
/// #     fn erase(&self, _: tower_webhook::event::EventId) -> BackendFuture<'_, bool> { unimplemented!() }
/// #     fn status(&self) -> HistoryStatus { HistoryStatus::default() }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let webhook = r#"{"module": "discard", "authorization": "Bearer s3cret"}"#;
/// let source = FixedSource::new().webhook("shop", "orders", webhook).unwrap();
/// let (store, reflector) = reflect(source, Registry::builtin());
/// tokio::spawn(reflector.run());
/// store.wait_ready(Duration::from_secs(10)).await.unwrap();
///
/// # let memory = Memory::default();
/// # let backend = Arc::new(memory.clone());
/// // `backend` is the store of the entries, such as `history::sqlite`.
/// let service = ServiceBuilder::new()
///     .layer(RouteNamespaceLayer::fixed("shop", "orders").unwrap())
///     .layer(LookupWebhookLayer::new(store))
///     .layer(RecordHistoryLayer::new(History::new(backend)))
///     .layer(RequireAuthLayer::from_webhook())
///     .service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
///
/// let answer = service.oneshot(Request::post("/").body(()).unwrap()).await.unwrap();
/// assert_eq!(answer.status(), 401);
/// # let entries = memory.0.lock().unwrap();
/// # let Entry::Received(received) = &entries[0] else { panic!() };
/// # assert_eq!((received.status.as_u16(), received.kind), (401, Some("unauthenticated")));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RecordHistoryLayer {
    history: Option<History>,
}

impl RecordHistoryLayer {
    /// A layer that tells `history`.
    pub fn new(history: History) -> Self {
        Self { history: Some(history) }
    }

    /// A layer that does nothing if there is no history.
    pub(crate) fn of(history: Option<History>) -> Self {
        Self { history }
    }
}

impl<S> Layer<S> for RecordHistoryLayer {
    type Service = RecordHistory<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RecordHistory { inner, history: self.history.clone() }
    }
}

/// Middleware applied by [`RecordHistoryLayer`].
#[derive(Clone, Debug)]
pub struct RecordHistory<S> {
    inner: S,
    history: Option<History>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RecordHistory<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RecordHistoryFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        match &self.history {
            Some(history) => follow(&mut self.inner, history, req),
            None => RecordHistoryFuture { inner: ResponseFuture::inner(self.inner.call(req)), trace: None },
        }
    }
}

// A function of its own: a request that `call` looked at would be copied once more, also without a history.
fn follow<S: Service<Request<B>>, B>(
    inner: &mut S,
    history: &History,
    mut req: Request<B>,
) -> RecordHistoryFuture<S::Future> {
    match begin(history, &mut req) {
        Ok(trace) => RecordHistoryFuture { inner: ResponseFuture::inner(inner.call(req)), trace },
        Err(rejection) => RecordHistoryFuture { inner: ResponseFuture::rejected(rejection), trace: None },
    }
}

/// `None` if nothing is kept of the webhook's requests, or if the request is followed already.
fn begin<B>(history: &History, req: &mut Request<B>) -> Result<Option<Arc<Trace>>, Rejection> {
    let evidence = Evidence::of(req.extensions());
    let webhook = evidence.webhook()?;
    if evidence.trace().is_some() {
        return Ok(None);
    }
    let trace = Trace::begin(history, Head::of(req), webhook, evidence.revision());
    if let Some(trace) = &trace {
        Evidence::of_mut(req.extensions_mut()).set_trace(Arc::clone(trace));
    }
    Ok(trace)
}

/// Response future of [`RecordHistory`].
#[pin_project]
pub struct RecordHistoryFuture<F> {
    // Dropped before the trace: what it drops may go on without the sender, and then holds the trace as well.
    #[pin]
    inner: ResponseFuture<F>,
    trace: Option<Arc<Trace>>,
}

impl<F> fmt::Debug for RecordHistoryFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordHistoryFuture").finish_non_exhaustive()
    }
}

impl<F, B, E> Future for RecordHistoryFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.trace.is_none() {
            return this.inner.poll(cx);
        }
        // Looked at in its place: to take it out and put it back would copy it.
        let polled = this.inner.poll(cx);
        if let Poll::Ready(outcome) = &polled
            && let Some(trace) = this.trace.take()
        {
            trace.answered(outcome.as_ref().ok());
        }
        polled
    }
}
