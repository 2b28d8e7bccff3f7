//! The layer that answers challenges behind the guards.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::{Evidence, Matched, Permit};
use super::handshake::ChallengeFuture;
use crate::handshake::{Answered, Handshake};
use crate::request::{Collected, Head, Rejection};

/// Answers signed challenges.
///
/// The layer answers the signed POST by which a provider checks an address, such as Slack's `url_verification`. Its
/// place is behind the guards, so that only the provider gets an answer, and before the layers that treat the request
/// as an event. [`HandshakeLayer`](super::handshake::HandshakeLayer) answers the challenges that come before the
/// guards.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | [`Collected`]; [`Matched`] and [`Permit`], unless the handshake is fixed | the evidence that this step ran | 400 a malformed challenge, 403 a challenge whose signature no secret verifies |
#[derive(Clone, Debug)]
pub struct ChallengeLayer {
    /// `None` uses the matched webhook's handshake.
    fixed: Option<Handshake>,
}

impl ChallengeLayer {
    /// A layer that answers the challenges of `handshake`. Put it behind the layers that verify the signature:
    /// `RequireAuth`, then `CollectBody` and `VerifyBody`.
    pub fn new(handshake: Handshake) -> Self {
        Self { fixed: Some(handshake) }
    }

    /// A layer that answers the challenges that the matched webhook configures.
    pub fn from_webhook() -> Self {
        Self { fixed: None }
    }
}

impl<S> Layer<S> for ChallengeLayer {
    type Service = Challenge<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Challenge { inner, fixed: self.fixed.clone() }
    }
}

/// Middleware applied by [`ChallengeLayer`].
#[derive(Clone, Debug)]
pub struct Challenge<S> {
    inner: S,
    fixed: Option<Handshake>,
}

impl<S, ResBody> Service<Request<Collected>> for Challenge<S>
where
    S: Service<Request<Collected>, Response = Response<ResBody>>,
    ResBody: Default + From<Bytes>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ChallengeFuture<S::Future, ResBody>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut req: Request<Collected>) -> Self::Future {
        match judge(self.fixed.as_ref(), &mut req) {
            Ok(None) => ChallengeFuture::inner(self.inner.call(req)),
            Ok(Some(answered)) => ChallengeFuture::answered(answered),
            Err(rejection) => ChallengeFuture::rejected(rejection),
        }
    }
}

/// `None` if the request is an event.
fn judge(fixed: Option<&Handshake>, req: &mut Request<Collected>) -> Result<Option<Answered>, Rejection> {
    let handshake = match fixed {
        // No challenge is answered while a proof is missing.
        Some(handshake) => {
            Evidence::require_no_pending(req.extensions())?;
            handshake
        }
        None => match Matched::of(req.extensions())?.webhook().handshake() {
            Some(handshake) if handshake.is_signed() => {
                Permit::of(req.extensions())?;
                handshake
            }
            _ => return Ok(None),
        },
    };
    let answered = handshake.answer_body(Head::of(req), req.body().bytes());
    if answered.is_none() && fixed.is_none() {
        Evidence::set_challenged(req.extensions_mut());
    }
    Ok(answered)
}
