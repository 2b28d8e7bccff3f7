//! The layer that authenticates requests by their body.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::checks::{self, Check, Verdict};
use super::evidence::{Established, Evidence};
use crate::request::{Collected, Head, Rejection, ResponseFuture};

/// Verifies proofs that [`RequireAuth`](super::require_auth::RequireAuth) and [`CallAuth`](super::call_auth::CallAuth)
/// could not verify without the body: signatures over it.
///
/// The layer's place is behind [`CollectBody`](super::collect_body::CollectBody), which its request type demands.
/// Requests for which no proof is pending pass, if they have a permit.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyBodyLayer {
    _private: (),
}

impl VerifyBodyLayer {
    /// A layer that asks each scheme that waits for the body.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for VerifyBodyLayer {
    type Service = VerifyBody<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifyBody { inner }
    }
}

/// Middleware applied by [`VerifyBodyLayer`].
#[derive(Clone, Debug)]
pub struct VerifyBody<S> {
    inner: S,
}

impl<S, ResBody> Service<Request<Collected>> for VerifyBody<S>
where
    S: Service<Request<Collected>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<Collected>) -> Self::Future {
        match checks::pass(&mut req, &VerifyBodyLayer::new()) {
            Ok(()) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

impl Check<Collected> for VerifyBodyLayer {
    fn check(&self, evidence: &Evidence, head: Head<'_>, body: &Collected) -> Result<Verdict, Rejection> {
        let Some(pending) = evidence.unsettled()? else { return Ok(Verdict::Pass) };
        let matches = pending.check_body(head, body.bytes())?;
        evidence.require_permit_once_settled()?;
        Ok(Verdict::Establish(Established::Verified(matches)))
    }
}
