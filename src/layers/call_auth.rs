//! The layer that lets schemes ask another server.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::Evidence;
use crate::auth::{Calls, Pending};
use crate::base::deadline::within;
use crate::base::log_limit::LogLimit;
use crate::config::WebhookKey;
use crate::request::{Head, Missing, Rejection, RejectionKind, ResponseFuture};

/// Lets schemes ask another server.
///
/// Its place is between [`RequireAuth`](super::require_auth::RequireAuth) and [`CollectBody`](super::collect_body::CollectBody): the body of a stranger
/// is not read before the other server has answered.
///
/// * A request for which no scheme needs a call passes at once.
/// * The calls of a request have one [deadline](CallAuthLayer::deadline) together. A server that is away or too slow is a
///   503 with `Retry-After`, never a pass.
/// * The calls that run at a time are [bounded](CallAuthLayer::max_calls) for each webhook and each namespace, so that a
///   server that hangs holds up only the requests that depend on it. A request beyond the bound is refused with the same
///   503, at once.
/// * A request that is dropped, because its sender hangs up, drops its call.
///
/// Both kinds of 503 are logged at WARN, with the webhook and the reason: for each webhook and reason ten lines at once, and
/// then one in 5 seconds, whose `left_out` says how many were not logged before it.
///
/// ```
/// use std::convert::Infallible;
///
/// use http::{HeaderValue, Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::auth::{AuthError, Proof, Scheme};
/// use tower_webhook::layers::{CallAuthLayer, RequireAuthLayer};
/// use tower_webhook::request::Head;
///
/// #[derive(Debug)]
/// struct Ticket;
///
/// impl Scheme for Ticket {
///     fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
///         if head.headers.contains_key("x-ticket") { Ok(Proof::NeedsCall) } else { Err(AuthError::Missing) }
///     }
///
///     async fn check_call(&self, head: Head<'_>) -> Result<Proof, AuthError> {
///         // In place of the answer of another server.
///         tokio::task::yield_now().await;
///         if head.headers["x-ticket"] == "valid" { Ok(Proof::Complete) } else { Err(AuthError::Invalid) }
///     }
///
///     fn challenge(&self, _: AuthError) -> HeaderValue {
///         HeaderValue::from_static("Ticket")
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(RequireAuthLayer::new(Ticket).call_auth_follows())
///     .layer(CallAuthLayer::new())
///     .service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
///
/// for (ticket, status) in [("valid", 200), ("forged", 401)] {
///     let request = Request::post("/").header("x-ticket", ticket).body(()).unwrap();
///     assert_eq!(service.clone().oneshot(request).await.unwrap().status(), status);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CallAuthLayer {
    deadline: Duration,
    calls: Arc<Calls>,
}

impl CallAuthLayer {
    /// How long the calls of a request may take if [`CallAuthLayer`] is given no other deadline.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

    /// How many requests of a webhook may wait for their calls if [`CallAuthLayer`] is given no other number.
    pub const DEFAULT_MAX_CALLS: usize = 128;

    /// Waits at most [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE), for at most [`DEFAULT_MAX_CALLS`](Self::DEFAULT_MAX_CALLS) requests of a webhook.
    pub fn new() -> Self {
        Self { deadline: Self::DEFAULT_DEADLINE, calls: Calls::new(Self::DEFAULT_MAX_CALLS) }
    }

    /// The time that all calls of a request may take together.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many requests of a webhook may wait for their calls at a time. The webhooks of a namespace have four times as many
    /// together, and so have the requests for which no webhook was looked up.
    ///
    /// Clones of the layer, and the services that it has made, count together.
    #[must_use]
    pub fn max_calls(mut self, per_webhook: usize) -> Self {
        self.calls = Calls::new(per_webhook);
        self
    }
}

impl Default for CallAuthLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CallAuthLayer {
    type Service = CallAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallAuth { inner, settings: self.clone() }
    }
}

/// Middleware applied by [`CallAuthLayer`].
///
/// # Panics
///
/// When a scheme needs a call and there is no tokio runtime with timers: the deadline needs one.
#[derive(Clone, Debug)]
pub struct CallAuth<S> {
    inner: S,
    settings: CallAuthLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CallAuth<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CallAuthFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        let answer = match Evidence::needs_call(req.extensions()) {
            Ok(true) => return CallAuthFuture { state: State::Calling(self.begin(req)) },
            Ok(false) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        };
        CallAuthFuture { state: State::Answering(answer) }
    }
}

impl<S: Clone> CallAuth<S> {
    // Out of the way of the many requests that need no call.
    #[inline(never)]
    fn begin<B>(&mut self, req: Request<B>) -> Box<Calling<S, B>> {
        let (head, body) = req.into_parts();
        // The inner service that was polled ready goes into the future; the clone stays behind.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        Box::new(Calling { settled: Box::pin(settle(head, self.settings.clone())), then: Some((ready, body)) })
    }
}

/// Response future of [`CallAuth`].
#[pin_project]
pub struct CallAuthFuture<S: Service<Request<B>>, B> {
    #[pin]
    state: State<S, S::Future, B>,
}

#[pin_project(project = StateProj)]
enum State<S, F, B> {
    // In a box: most requests need no call, and their future stays as small as it would be without this layer.
    Calling(Box<Calling<S, B>>),
    Answering(#[pin] ResponseFuture<F>),
}

struct Calling<S, B> {
    settled: BoxFuture<'static, (Parts, Result<(), Rejection>)>,
    then: Option<(S, B)>,
}

impl<S: Service<Request<B>>, B> fmt::Debug for CallAuthFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallAuthFuture").finish_non_exhaustive()
    }
}

impl<S, ReqBody, ResBody> Future for CallAuthFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let answer = match state.as_mut().project() {
                StateProj::Calling(calling) => match (ready!(calling.settled.as_mut().poll(cx)), calling.then.take()) {
                    ((head, Ok(())), Some((mut inner, body))) => {
                        ResponseFuture::inner(inner.call(Request::from_parts(head, body)))
                    }
                    ((_, Err(rejection)), _) => ResponseFuture::rejected(rejection),
                    // Unreachable: `then` is taken once, by the poll that leaves this state.
                    ((_, Ok(())), None) => ResponseFuture::rejected(RejectionKind::Misassembled.into()),
                },
                StateProj::Answering(answer) => return answer.poll(cx),
            };
            state.set(State::Answering(answer));
        }
    }
}

/// Makes the calls of a request, and notes in its head what they have settled.
async fn settle(mut head: Parts, settings: CallAuthLayer) -> (Parts, Result<(), Rejection>) {
    let outcome = ask(&head, &settings).await;
    let outcome = outcome.map(|open| Evidence::set_called(&mut head.extensions, open));
    (head, outcome)
}

/// Returns the guards that wait for the body. Calls that cannot be made, or take too long, have failed: an alternative that
/// needs none may still let in.
async fn ask(head: &Parts, settings: &CallAuthLayer) -> Result<Pending, Rejection> {
    let pending = Evidence::pending(&head.extensions).ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))?;
    let webhook = Evidence::webhook(&head.extensions).map(|webhook| webhook.key());
    let (outcome, reason) = match settings.calls.begin(webhook) {
        None => (None, "too many requests wait for their calls"),
        Some(_place) => {
            let calls = within(settings.deadline, pending.check_calls(Head::of_parts(head))).await;
            let reason = match calls {
                Some(_) => "the other server gives no answer, or too many passwords wait to be checked",
                None => "the other server did not answer in time",
            };
            (calls, reason)
        }
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => pending.without_calls().await,
    };
    outcome.map_err(|rejection| match rejection.kind() {
        RejectionKind::AuthUnavailable => log_unavailable(rejection, webhook, reason),
        _ => rejection,
    })
}

fn log_unavailable(rejection: Rejection, webhook: Option<&WebhookKey>, reason: &'static str) -> Rejection {
    static LINES: LazyLock<LogLimit<(Option<WebhookKey>, &str)>> = LazyLock::new(LogLimit::default);
    if let Some(left_out) = LINES.admit((webhook.cloned(), reason)) {
        let left_out = (left_out > 0).then_some(left_out);
        let webhook = webhook.map(tracing::field::display);
        tracing::warn!(webhook, reason, left_out, "a credential cannot be verified now");
    }
    rejection.logged()
}
