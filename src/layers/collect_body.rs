//! The layer that collects request bodies within limits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response, request};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::Evidence;
use crate::base::deadline::Deadline;
use crate::request::{BodyMemory, Charge, Collected, Rejection, RejectionKind};

/// Collects the body.
///
/// The layer reads the whole body, limited in size and time, and calls the inner service with [`Collected`]. A body
/// whose announced length exceeds the limit is refused before it is read.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | nothing | the body type [`Collected`] | 413 too large, 408 too slow, 400 incomplete, 503 no memory |
///
/// With a [`BodyMemory`], the total size of all bodies is limited too, with a share for each webhook and each
/// namespace. This needs a [`LookupWebhook`](super::lookup::LookupWebhook) before this layer to know the webhook.
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::layers::CollectBodyLayer;
/// use tower_webhook::request::Collected;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(CollectBodyLayer::new().max_bytes(5).deadline(Duration::from_secs(10)))
///     .service_fn(|req: Request<Collected>| async move {
///         assert_eq!(&req.body().bytes()[..], b"hello");
///         Ok::<_, std::convert::Infallible>(Response::new(()))
///     });
///
/// let request = |body: &'static str| Request::post("/").body(Full::new(Bytes::from(body))).unwrap();
/// assert_eq!(service.clone().oneshot(request("hello")).await.unwrap().status(), 200);
/// assert_eq!(service.oneshot(request("hello!")).await.unwrap().status(), 413);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CollectBodyLayer {
    limits: Limits,
}

#[derive(Clone, Debug)]
struct Limits {
    max_bytes: usize,
    deadline: Duration,
    memory: Option<BodyMemory>,
}

impl CollectBodyLayer {
    /// The default limit of a body: 25 MiB, because GitHub sends up to 25 MB.
    pub const DEFAULT_MAX_BYTES: usize = 25 << 20;

    /// The default time limit for a whole body: 30 s.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

    /// A layer with the limits [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES) and
    /// [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE), and without a limit for all bodies together.
    pub fn new() -> Self {
        Self { limits: Limits { max_bytes: Self::DEFAULT_MAX_BYTES, deadline: Self::DEFAULT_DEADLINE, memory: None } }
    }

    /// Sets the budget for all bodies together.
    #[must_use]
    pub fn memory(mut self, memory: BodyMemory) -> Self {
        self.limits.memory = Some(memory);
        self
    }

    /// Sets the largest accepted body, in bytes.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.limits.max_bytes = max_bytes;
        self
    }

    /// Sets the time limit for the whole body, counted from the first wait for it. It applies to a sender that trickles
    /// too.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = deadline;
        self
    }
}

impl Default for CollectBodyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CollectBodyLayer {
    type Service = CollectBody<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CollectBody { inner, limits: self.limits.clone() }
    }
}

/// Middleware applied by [`CollectBodyLayer`].
///
/// # Panics
///
/// When it is called outside of a tokio runtime with timers, which the deadline needs.
#[derive(Clone, Debug)]
pub struct CollectBody<S> {
    inner: S,
    limits: Limits,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CollectBody<S>
where
    S: Service<Request<Collected>, Response = Response<ResBody>> + Clone,
    ReqBody: Body,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CollectBodyFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        let (head, body) = req.into_parts();
        if body.size_hint().lower() > self.limits.max_bytes as u64 {
            return CollectBodyFuture { state: State::Rejected(RejectionKind::BodyTooLarge) };
        }
        let charge = match &self.limits.memory {
            Some(memory) => memory.begin(
                Evidence::of(&head.extensions).known_webhook().map(|webhook| Arc::clone(webhook.gates().share())),
            ),
            None => Charge::default(),
        };
        // The inner service that was polled ready moves into the future; its clone stays behind.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let collecting = Collecting::new(body, &self.limits, charge);
        let arriving = Arriving { collecting, inner: ready, head: Some(head) };
        CollectBodyFuture { state: State::Collecting(Box::pin(arriving)) }
    }
}

/// Response future of [`CollectBody`].
#[pin_project]
pub struct CollectBodyFuture<S: Service<Request<Collected>>, B> {
    #[pin]
    state: State<S, B>,
}

#[pin_project(project = StateProj)]
enum State<S: Service<Request<Collected>>, B> {
    // Boxed: each outer layer moves its future, and a server keeps room for the whole future with each connection.
    Collecting(Pin<Box<Arriving<S, B>>>),
    Calling(#[pin] S::Future),
    Rejected(RejectionKind),
}

/// A request whose body arrives.
#[pin_project]
struct Arriving<S, B> {
    #[pin]
    collecting: Collecting<B>,
    inner: S,
    /// `None` once the inner service has it.
    head: Option<request::Parts>,
}

impl<S: Service<Request<Collected>>, B> fmt::Debug for CollectBodyFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectBodyFuture").finish_non_exhaustive()
    }
}

impl<S, ReqBody, ResBody> Future for CollectBodyFuture<S, ReqBody>
where
    S: Service<Request<Collected>, Response = Response<ResBody>>,
    ReqBody: Body,
    ResBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Collecting(arriving) => {
                    let arriving = arriving.as_mut().project();
                    let body = match ready!(arriving.collecting.poll(cx)) {
                        Ok(body) => body,
                        Err(kind) => {
                            state.set(State::Rejected(kind));
                            continue;
                        }
                    };
                    note_arrival(arriving.head.as_ref(), &body);
                    match arriving.head.take() {
                        Some(head) => {
                            let answer = arriving.inner.call(Request::from_parts(head, body));
                            state.set(State::Calling(answer));
                        }
                        // Unreachable: the poll that takes the head leaves this state.
                        None => state.set(State::Rejected(RejectionKind::Misassembled)),
                    }
                }
                StateProj::Calling(future) => return future.poll(cx),
                StateProj::Rejected(kind) => return Poll::Ready(Ok(Rejection::new(*kind).into_response())),
            }
        }
    }
}

/// Tells the history, if there is one.
fn note_arrival(head: Option<&request::Parts>, body: &Collected) {
    if let Some(head) = head
        && let Some(trace) = Evidence::of(&head.extensions).trace()
    {
        trace.arrived(&head.headers, body);
    }
}

#[pin_project]
struct Collecting<B> {
    #[pin]
    body: B,
    max_bytes: usize,
    /// The length of the body, if the sender has announced it.
    announced: Option<u64>,
    deadline: Deadline,
    gathered: Gathered,
    charge: Charge,
}

impl<B: Body> Collecting<B> {
    fn new(body: B, limits: &Limits, charge: Charge) -> Self {
        Self {
            charge,
            announced: body.size_hint().exact(),
            body,
            max_bytes: limits.max_bytes,
            deadline: Deadline::new(limits.deadline),
            gathered: Gathered::default(),
        }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Collected, RejectionKind>> {
        let mut this = self.project();
        loop {
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped: no webhook sender uses them.
                    let Ok(mut data) = frame.into_data() else { continue };
                    if data.remaining() > this.max_bytes.saturating_sub(this.gathered.len()) {
                        return Poll::Ready(Err(RejectionKind::BodyTooLarge));
                    }
                    let bytes = data.copy_to_bytes(data.remaining());
                    let largest =
                        this.announced.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(*this.max_bytes);
                    let room = this.gathered.room_with(bytes.len(), largest);
                    if this.charge.grow(room).is_err() {
                        return Poll::Ready(Err(RejectionKind::MemoryFull));
                    }
                    this.gathered.push(bytes, room);
                }
                // A sender that closes its HTTP/2 connection right after its last byte causes an error, although the
                // body is complete.
                Poll::Ready(Some(Err(_))) if *this.announced != Some(this.gathered.len() as u64) => {
                    return Poll::Ready(Err(RejectionKind::BodyIncomplete));
                }
                Poll::Ready(None | Some(Err(_))) => {
                    if this.charge.arrived().is_err() {
                        return Poll::Ready(Err(RejectionKind::MemoryFull));
                    }
                    let (whole, charge) = (std::mem::take(this.gathered).finish(), std::mem::take(this.charge));
                    return Poll::Ready(Ok(Collected::charged(whole, charge)));
                }
                Poll::Pending => {
                    if this.charge.poll_evicted(cx.waker()) {
                        return Poll::Ready(Err(RejectionKind::MemoryFull));
                    }
                    ready!(this.deadline.poll(cx));
                    return Poll::Ready(Err(RejectionKind::BodyTimeout));
                }
            }
        }
    }
}

/// The bytes that have arrived. A body of one frame is never copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    rest: Vec<u8>,
}

impl Gathered {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// The buffer size needed for `more` further bytes. It doubles, but not beyond `largest`, unless the body itself is
    /// larger.
    fn room_with(&self, more: usize, largest: usize) -> usize {
        let (needed, capacity) = (self.len() + more, self.rest.capacity());
        match self.len() {
            0 => needed,
            _ if needed <= capacity => capacity,
            length => needed.max(largest.min(2 * length.max(capacity))),
        }
    }

    /// `room` is the result of [`room_with`](Self::room_with).
    fn push(&mut self, bytes: Bytes, room: usize) {
        if self.len() == 0 {
            self.first = bytes;
            return;
        }
        self.rest.reserve_exact(room.saturating_sub(self.rest.len()));
        self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        self.rest.extend_from_slice(&bytes);
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.into() }
    }
}
