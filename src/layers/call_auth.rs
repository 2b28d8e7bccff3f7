//! The layer that lets schemes call another server.

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

/// Lets schemes call another server, such as an OAuth introspection endpoint.
///
/// The layer's place is between [`RequireAuth`](super::require_auth::RequireAuth) and
/// [`CollectBody`](super::collect_body::CollectBody): the body of an unauthenticated sender is not read before the
/// other server has answered.
///
/// * A request for which no scheme needs a call passes at once.
/// * All calls of a request share one [deadline](CallAuthLayer::deadline). If the other server is unreachable or too
///   slow, the answer is a 503 with `Retry-After`, never a pass.
/// * The number of concurrent calls is [limited](CallAuthLayer::max_calls) for each webhook and each namespace, so that
///   a server that hangs affects only the requests that depend on it. A request beyond the limit is refused at once
///   with the same 503.
/// * If the sender hangs up, its request and the call are dropped.
///
/// Both kinds of 503 are logged at WARN, with the webhook and the reason: for each webhook and reason ten lines at
/// once, then one in 5 seconds. `left_out` is the number of lines that were suppressed before it.
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
///         // Stands for the answer of another server.
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
    /// The default time limit for the calls of a request: 5 s.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

    /// The default limit of requests of a webhook that wait for their calls.
    pub const DEFAULT_MAX_CALLS: usize = 128;

    /// A layer with the deadline [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE) and at most
    /// [`DEFAULT_MAX_CALLS`](Self::DEFAULT_MAX_CALLS) waiting requests of a webhook.
    pub fn new() -> Self {
        Self { deadline: Self::DEFAULT_DEADLINE, calls: Calls::new(Self::DEFAULT_MAX_CALLS) }
    }

    /// Sets the time limit for all calls of a request together.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the limit of requests of a webhook that wait for their calls. The webhooks of a namespace share four times
    /// this limit, and so do the requests for which no webhook was looked up.
    ///
    /// Clones of the layer share the limits with each other and with all their services.
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
/// When a scheme needs a call and there is no tokio runtime with timers, which the deadline needs.
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
        let answer = match Evidence::of(req.extensions()).needs_call() {
            Ok(true) => return CallAuthFuture { state: State::Calling(self.begin(req)) },
            Ok(false) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        };
        CallAuthFuture { state: State::Answering(answer) }
    }
}

impl<S: Clone> CallAuth<S> {
    // A separate function, so that the common path without a call stays small.
    #[inline(never)]
    fn begin<B>(&mut self, req: Request<B>) -> Box<Calling<S, B>> {
        let (head, body) = req.into_parts();
        // The inner service that was polled ready moves into the future; its clone stays behind.
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
    // Boxed: most requests need no call, and their future stays as small as without this layer.
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

/// Makes the calls of a request, and records the results in its head.
async fn settle(mut head: Parts, settings: CallAuthLayer) -> (Parts, Result<(), Rejection>) {
    let outcome = ask(&head, &settings).await;
    let outcome = outcome.map(|open| Evidence::of_mut(&mut head.extensions).set_called(open));
    (head, outcome)
}

/// Returns the guards that still wait for the body. A call that cannot be made, or takes too long, has failed; an
/// alternative without a call may still let the sender in.
async fn ask(head: &Parts, settings: &CallAuthLayer) -> Result<Pending, Rejection> {
    let evidence = Evidence::of(&head.extensions);
    let pending = evidence.pending().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))?;
    let webhook = evidence.known_webhook().map(|webhook| webhook.key());
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
