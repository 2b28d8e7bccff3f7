//! The layer that authenticates requests by their body.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::{Evidence, Permit};
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
        match check(&mut req) {
            Ok(()) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

fn check(req: &mut Request<Collected>) -> Result<(), Rejection> {
    let Some(pending) = Evidence::unsettled(req.extensions())? else { return Ok(()) };
    let matches = pending.check_body(Head::of(req), req.body().bytes())?;
    Evidence::set_verified(req.extensions_mut(), matches);
    Permit::of(req.extensions()).map(|_| ())
}
