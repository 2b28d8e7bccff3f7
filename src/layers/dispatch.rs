//! The end of the stack: the event is given to the webhook's module, or kept for it.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tower_service::Service;

use super::evidence::Evidence;
use crate::delivery::{NotDelivered, try_until};
use crate::event::{DeliverErrorKind, Delivery, EVENT_ID, EventId, receipt};
use crate::queue::{Accepted, BackendFuture, Offer, Queue, QueueError};
use crate::request::{Collected, Missing, Rejection, RejectionKind, ResponseBody};
use crate::webhook::{Promise, Webhook};

/// Gives each event to the module of its webhook.
///
/// [`Dispatch`] is a service, not a layer. It takes no request that lacks the evidence of the layers before it. What it
/// then waits for is what the webhook [promises](crate::Promise): by default for the module, so that **200** says that
/// the module has the event; with `"ack": "accepted"` for the disk, so that **202** says that the event outlives a
/// power cut.
///
/// | needs | answers |
/// |---|---|
/// | [`Collected`], [`Matched`](crate::Matched), [`Permit`](crate::Permit), [`CheckPayload`](super::check_payload::CheckPayload) before it, [`Dedup`](super::dedup::Dedup) if the webhook has such a rule | 200 `{"message":"200 OK"}`, or 502, 503, 504: send it again |
/// | the same, and a [`Queue`], if the webhook says `accepted` | 202 `{"message":"202 Accepted","status":"accepted"}`, or 503 if there is no room or the disk fails: send it again |
///
/// What fails before the answer is tried again as the webhook's `retry` says, while the deadline allows for the wait;
/// the sender is told of the last error. After a 504 the module may still finish what it has begun: the sender's next
/// try is then a second one. What fails after a 202 is the affair of the queue's [`Worker`](crate::worker::Worker).
///
/// At most 256 events of a webhook and 1,024 of a namespace are being delivered while their senders wait; four times as
/// many may wait for a place, for at most 5 s for the webhook's and 5 s for the namespace's. The rest gets 503 with
/// `Retry-After`, so that a target that hangs holds up nobody else. Accepting has no such bound: its bound is the
/// queue's room.
///
/// A failed delivery is logged at WARN, with the event's id, the webhook, the module and the error: for each webhook and
/// kind of error ten lines at once, and then one in 5 seconds, whose `left_out` says how many were not logged before it.
///
/// Every answer of a delivery carries the event's id in [`X-Event-Id`](crate::event::EVENT_ID). [`receiver`](crate::receiver()) is
/// the usual way to the layers in front; by hand, with a path of one's own:
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
    /// The time a module may take, if no other is set: 30 s.
    pub const DEFAULT_DEADLINE: Duration = crate::delivery::DEFAULT_DEADLINE;

    /// Waits at most [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE) for a module.
    pub fn new() -> Self {
        Self { deadline: Self::DEFAULT_DEADLINE, queue: None }
    }

    pub(crate) fn of(deadline: Option<Duration>, queue: Option<Queue>) -> Self {
        Self { deadline: deadline.unwrap_or(Self::DEFAULT_DEADLINE), queue }
    }

    /// Where the events of webhooks with `"ack": "accepted"` go. A [`Registry`](crate::Registry) that is
    /// [`accepting`](crate::Capabilities::accepting) belongs to it.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = Some(queue);
        self
    }

    /// How long a module may take before the sender gets 504.
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

    fn call(&mut self, req: Request<Collected>) -> Self::Future {
        // Before the box is made, which is then as small as what is waited for.
        let (webhook, delivery) = match admit(req) {
            Ok(admitted) => admitted,
            Err(rejection) => return DispatchFuture(Kind::now(rejection.into_response())),
        };
        let (id, deadline) = (delivery.id(), self.deadline);
        DispatchFuture(match webhook.promise() {
            Promise::Delivered => Kind::Answering(Box::pin(async move {
                let outcome = try_until(webhook.steps(), webhook.gates(), delivery, deadline).await;
                answer(id, outcome.map_err(failure), StatusCode::OK)
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
    Answering(BoxFuture<'static, Response<ResponseBody>>),
    /// The future is the queue's own: to put it into another one would cost an allocation.
    Accepting(EventId, BackendFuture<'static, Result<Accepted, QueueError>>),
}

impl Kind {
    fn now(response: Response<ResponseBody>) -> Self {
        Self::Answering(Box::pin(ready(response)))
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
        Poll::Ready(Ok(match &mut self.0 {
            Kind::Answering(response) => ready!(response.as_mut().poll(cx)),
            Kind::Accepting(id, written) => {
                let outcome = ready!(written.as_mut().poll(cx)).map_err(refusal);
                answer(*id, outcome.map(|_| ()), StatusCode::ACCEPTED)
            }
        }))
    }
}

/// Turns a request that may be delivered into a delivery to its webhook.
fn admit(req: Request<Collected>) -> Result<(Arc<Webhook>, Delivery), Rejection> {
    let (mut head, body) = req.into_parts();
    let (webhook, stamp) = Evidence::admit(&mut head.extensions)?;
    let (body, charge) = body.into_parts();
    let delivery = Delivery::received(stamp, Arc::clone(webhook.info()), head.headers, body, charge);
    Ok((webhook, delivery))
}

impl Dispatch {
    /// The event is on its way, and not held any more, when this returns: it is answered when the future resolves.
    fn accept(&self, delivery: &Delivery) -> Result<BackendFuture<'static, Result<Accepted, QueueError>>, Rejection> {
        let queue = self.queue.as_ref().ok_or_else(|| Rejection::misassembled(Missing::Queue))?;
        // A queue that hangs must not hold the sender for ever; the event may be there all the same.
        queue.backend().accept(Offer::new(delivery, self.deadline)).map_err(refusal)
    }
}

fn refusal(error: QueueError) -> Rejection {
    match error {
        QueueError::Full => RejectionKind::QueueFull.into(),
        QueueError::TooLarge => RejectionKind::BodyTooLarge.into(),
        QueueError::Failed => RejectionKind::QueueFailed.into(),
    }
}

/// The refusal of an event that was not delivered.
fn failure(not_delivered: NotDelivered) -> Rejection {
    match not_delivered {
        NotDelivered::Crowded => RejectionKind::Crowded.into(),
        NotDelivered::Failed(kind) => Rejection::new(match kind {
            DeliverErrorKind::Io => RejectionKind::DeliveryUnavailable,
            DeliverErrorKind::Timeout => RejectionKind::DeliveryTimeout,
            DeliverErrorKind::Loop => RejectionKind::LoopDetected,
            _ => RejectionKind::DeliveryFailed,
        })
        .logged(),
    }
}

/// Names the event also in a refusal: it may have been taken all the same.
fn answer(id: EventId, outcome: Result<(), Rejection>, status: StatusCode) -> Response<ResponseBody> {
    let mut response = match outcome {
        Ok(()) => receipt::success(status),
        Err(rejection) => rejection.into_response(),
    };
    if let Some(id) = id.to_header() {
        response.headers_mut().insert(EVENT_ID, id);
    }
    response
}
