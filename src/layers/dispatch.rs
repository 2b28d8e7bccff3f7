//! The end of the stack: delivers the event to the webhook's module, or puts it into the queue.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tower_service::Service;

use super::evidence::{Admitted, Evidence};
use super::trace::Trace;
use crate::delivery::{NotDelivered, Reports, try_until};
use crate::event::{Delivery, EVENT_ID, EventId, receipt};
use crate::queue::{Accepted, BackendFuture, Offer, Queue, QueueError};
use crate::request::{Collected, Missing, Rejection, ResponseBody};
use crate::webhook::{Promise, Webhook};

/// Delivers each event to the module of its webhook.
///
/// [`Dispatch`] is a service, not a layer. It accepts no request without the evidence of the layers before it. The
/// webhook's [promise](crate::Promise) decides how long it waits: by default for the module, so that **200** means that
/// the module has taken the event; with `"ack": "accepted"` for the disk, so that **202** means that the event survives
/// a power cut.
///
/// | needs | answers |
/// |---|---|
/// | [`Collected`], [`Matched`](crate::Matched), [`Permit`](crate::Permit), [`CheckPayload`](super::check_payload::CheckPayload) before it, [`Dedup`](super::dedup::Dedup) if the webhook has such a rule | 200 `{"message":"200 OK"}`, or 502, 503, 504: send it again |
/// | the same, and a [`Queue`], if the webhook has `"ack": "accepted"` | 202 `{"message":"202 Accepted","status":"accepted"}`, or 503 if there is no room or the disk fails: send it again |
///
/// A failed attempt before the answer is retried according to the webhook's `retry`, while the deadline allows for the
/// wait; the sender gets the last error. After a 504 the module may still finish its work, and the sender's next
/// request is then a second delivery. After a 202, the queue's [`Worker`](crate::worker::Worker) retries.
///
/// At most 256 events of a webhook and 1,024 of a namespace are delivered at a time while their senders wait. Four
/// times as many may wait for a permit, for at most 5 s for the webhook's and 5 s for the namespace's. Further requests
/// get 503 with `Retry-After`, so that a target that hangs affects no other webhook. Accepted events have no such
/// limit, only the room in the queue.
///
/// A failed delivery is logged at WARN, with the event's id, the webhook, the module and the error: for each webhook
/// and kind of error ten lines at once, then one in 5 seconds. `left_out` is the number of lines that were suppressed
/// before it.
///
/// Every answer of a delivery carries the event's id in [`X-Event-Id`](crate::event::EVENT_ID). Usually
/// [`receiver`](crate::receiver()) builds the layers in front. By hand, with a path of your own:
///
/// ```
/// use std::time::Duration;
///
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::layers::{
///     CheckPayloadLayer, CollectBodyLayer, Dispatch, LookupWebhookLayer, RequireAuthLayer, RouteNamespaceLayer,
///     VerifyBodyLayer,
/// };
/// use tower_webhook::source::FixedSource;
/// use tower_webhook::{Registry, reflect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let webhook = r#"{"module": "discard", "data_type": "blob", "authorization": "Bearer s3cret"}"#;
/// let source = FixedSource::new().webhook("shop", "orders", webhook).unwrap();
/// let (store, reflector) = reflect(source, Registry::builtin());
/// tokio::spawn(reflector.run());
/// store.wait_ready(Duration::from_secs(10)).await.unwrap();
///
/// let service = ServiceBuilder::new()
///     .layer(RouteNamespaceLayer::fixed("shop", "orders").unwrap())
///     .layer(LookupWebhookLayer::new(store))
///     .layer(RequireAuthLayer::from_webhook().verify_body_follows())
///     .layer(CollectBodyLayer::new())
///     .layer(VerifyBodyLayer::new())
///     .layer(CheckPayloadLayer::from_webhook())
///     .service(Dispatch::new());
///
/// let request = Request::post("/anything")
///     .header("authorization", "Bearer s3cret")
///     .body(Full::new(Bytes::from("any bytes")))
///     .unwrap();
/// let response = service.oneshot(request).await.unwrap();
/// assert_eq!(response.status(), 200);
/// assert!(response.headers().contains_key("x-event-id"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dispatch {
    deadline: Duration,
    queue: Option<Queue>,
}

impl Dispatch {
    /// The default time limit for a module: 30 s.
    pub const DEFAULT_DEADLINE: Duration = crate::delivery::DEFAULT_DEADLINE;

    /// A service with the deadline [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE) and without a queue.
    pub fn new() -> Self {
        Self { deadline: Self::DEFAULT_DEADLINE, queue: None }
    }

    pub(crate) fn of(deadline: Option<Duration>, queue: Option<Queue>) -> Self {
        Self { deadline: deadline.unwrap_or(Self::DEFAULT_DEADLINE), queue }
    }

    /// Sets the queue for the events of webhooks with `"ack": "accepted"`. The [`Registry`](crate::Registry) must be
    /// [`accepting`](crate::Capabilities::accepting) too.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Sets the time limit for a module, after which the sender gets 504.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl Default for Dispatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Request<Collected>> for Dispatch {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = DispatchFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut req: Request<Collected>) -> Self::Future {
        // Before the future is boxed, so that it holds only what it needs.
        let (webhook, delivery, trace) = match admit(&mut req) {
            Ok(admitted) => admitted,
            Err(rejection) => return DispatchFuture(Kind::now(rejection.into_response())),
        };
        let (id, deadline) = (delivery.id(), self.deadline);
        DispatchFuture(match webhook.promise() {
            Promise::Delivered => Kind::Answering(Box::pin(async move {
                let reports = trace.as_deref().map(|trace| reports(trace, id, &webhook));
                let reports = reports.as_deref();
                let outcome = try_until(webhook.steps(), webhook.gates(), &delivery, reports, deadline).await;
                Ok(answer(id, outcome.map_err(|failed| failure(failed, trace.as_deref())), StatusCode::OK))
            })),
            Promise::Accepted => match self.accept(&delivery) {
                Ok(written) => Kind::Accepting(id, written),
                Err(rejection) => Kind::now(answer(id, Err(rejection), StatusCode::ACCEPTED)),
            },
        })
    }
}

/// Response future of [`Dispatch`].
pub struct DispatchFuture(Kind);

enum Kind {
    Answering(BoxFuture<'static, Result<Response<ResponseBody>, Infallible>>),
    /// The queue's own future: wrapping it in another box would cost an allocation.
    Accepting(EventId, BackendFuture<'static, Result<Accepted, QueueError>>),
}

impl Kind {
    fn now(response: Response<ResponseBody>) -> Self {
        Self::Answering(Box::pin(ready(Ok(response))))
    }
}

impl std::fmt::Debug for DispatchFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DispatchFuture").finish_non_exhaustive()
    }
}

impl Future for DispatchFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Answering(response) => response.as_mut().poll(cx),
            Kind::Accepting(id, written) => {
                let outcome = ready!(written.as_mut().poll(cx)).map_err(refusal);
                Poll::Ready(Ok(answer(*id, outcome.map(|_| ()), StatusCode::ACCEPTED)))
            }
        }
    }
}

fn reports(trace: &Trace, id: EventId, webhook: &Webhook) -> Box<Reports> {
    Box::new(Reports::of_sender(trace.history(), id, webhook.key(), webhook.module()))
}

/// Turns an admitted request into a delivery to its webhook.
fn admit(req: &mut Request<Collected>) -> Result<(Arc<Webhook>, Delivery, Option<Arc<Trace>>), Rejection> {
    let Admitted { webhook, stamp, trace } = Evidence::admit(req.extensions_mut())?;
    let headers = std::mem::take(req.headers_mut());
    let (body, charge) = std::mem::take(req.body_mut()).into_parts();
    let delivery = Delivery::received(stamp, Arc::clone(webhook.info()), headers, body, charge);
    Ok((webhook, delivery, trace))
}

impl Dispatch {
    /// Hands the event to the queue. The returned future resolves with the answer.
    fn accept(&self, delivery: &Delivery) -> Result<BackendFuture<'static, Result<Accepted, QueueError>>, Rejection> {
        let queue = self.queue.as_ref().ok_or_else(|| Rejection::misassembled(Missing::Queue))?;
        // A queue that hangs must not delay the sender for ever. The event may be stored all the same.
        queue.backend().accept(Offer::new(delivery, self.deadline)).map_err(refusal)
    }
}

fn refusal(error: QueueError) -> Rejection {
    error.refusal().into()
}

/// The refusal of an event that was not delivered.
fn failure(not_delivered: NotDelivered, trace: Option<&Trace>) -> Rejection {
    let rejection = Rejection::new(not_delivered.refusal());
    let NotDelivered::Failed(error) = not_delivered else { return rejection };
    if let Some(trace) = trace {
        trace.failed(&error);
    }
    rejection.logged()
}

/// Adds the event's id, also to a refusal: the event may have been taken all the same.
fn answer(id: EventId, outcome: Result<(), Rejection>, status: StatusCode) -> Response<ResponseBody> {
    match outcome {
        Ok(()) => receipt::success(status, Some(id)),
        Err(rejection) => {
            let mut response = rejection.into_response();
            if let Some(id) = id.to_header() {
                response.headers_mut().insert(EVENT_ID, id);
            }
            response
        }
    }
}
