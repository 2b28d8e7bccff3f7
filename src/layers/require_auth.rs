//! The layer that authenticates requests by their head.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::checks::{self, Check, Verdict};
use super::evidence::{Established, Evidence};
use crate::auth::{AnyOf, Follows, Guard, Guards, Scheme};
use crate::request::{Head, Rejection, ResponseFuture};

/// Refuses requests whose sender is not authenticated. [`auth`](crate::auth) has an example.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | a fixed scheme, or [`Matched`](crate::Matched) | [`Permit`](crate::Permit), or a pending proof | 401, 403, 503 the credential cannot be verified now |
///
/// By default a proof that needs the body or another server is refused: see
/// [`verify_body_follows`](Self::verify_body_follows) and [`call_auth_follows`](Self::call_auth_follows).
#[derive(Clone, Debug)]
pub struct RequireAuthLayer {
    select: Select,
    follows: Follows,
}

#[derive(Clone, Debug)]
enum Select {
    Fixed(Guards),
    Matched,
}

impl RequireAuthLayer {
    /// Requires the same `scheme` of every request.
    pub fn new(scheme: impl Scheme) -> Self {
        let guard = Guard::new(scheme.label(), Arc::new(scheme));
        Self { select: Select::Fixed(Guards::new(vec![guard])), follows: Follows::default() }
    }

    /// Requires of every request what one of these alternatives asks for.
    pub fn any_of(alternatives: AnyOf) -> Self {
        let guards = Guards::new(vec![alternatives.into_guard()]);
        Self { select: Select::Fixed(guards), follows: Follows::default() }
    }

    /// Requires all guards that the matched webhook configures.
    pub fn from_webhook() -> Self {
        Self { select: Select::Matched, follows: Follows::default() }
    }

    /// Lets requests pass whose proof needs the body, which a later [`VerifyBody`](super::verify_body::VerifyBody) must
    /// verify.
    ///
    /// Without this call they are refused as [`Misassembled`](crate::RejectionKind::Misassembled): otherwise a webhook
    /// with a signature scheme would open the service behind this layer.
    #[must_use]
    pub fn verify_body_follows(mut self) -> Self {
        self.follows.verify_body = true;
        self
    }

    /// Lets requests pass whose proof needs a call to another server, which a later
    /// [`CallAuth`](super::call_auth::CallAuth) must make.
    ///
    /// Without this call they are refused as [`Misassembled`](crate::RejectionKind::Misassembled).
    #[must_use]
    pub fn call_auth_follows(mut self) -> Self {
        self.follows.call = true;
        self
    }
}

impl<S> Layer<S> for RequireAuthLayer {
    type Service = RequireAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireAuth { inner, settings: self.clone() }
    }
}

/// Middleware applied by [`RequireAuthLayer`].
#[derive(Clone, Debug)]
pub struct RequireAuth<S> {
    inner: S,
    settings: RequireAuthLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireAuth<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<ReqBody>) -> Self::Future {
        match checks::pass(&mut req, &self.settings) {
            Ok(()) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

impl<B> Check<B> for RequireAuthLayer {
    fn check(&self, evidence: &Evidence, head: Head<'_>, _: &B) -> Result<Verdict, Rejection> {
        let guards = match &self.select {
            Select::Fixed(guards) => guards,
            Select::Matched => evidence.webhook()?.guards(),
        };
        if let Some(trace) = evidence.trace() {
            trace.guarded(guards);
        }
        guards.check_head(head, self.follows).map(|pending| Verdict::Establish(Established::Guarded(pending)))
    }
}
