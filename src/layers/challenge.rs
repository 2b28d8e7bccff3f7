//! The layer that answers challenges behind the guards.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::challenge_future::ChallengeFuture;
use super::checks::{Check, Checked, Verdict};
use super::evidence::{Established, Evidence};
use crate::handshake::Handshake;
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
/// | [`Collected`]; [`Matched`](crate::Matched) and [`Permit`](crate::Permit), unless the handshake is fixed | the evidence that this step ran | 400 a malformed challenge, 403 a challenge whose signature no secret verifies |
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
        Challenge { checked: Checked::new(inner, (self.clone(),)) }
    }
}

/// Middleware applied by [`ChallengeLayer`].
#[derive(Clone, Debug)]
pub struct Challenge<S> {
    checked: Checked<S, (ChallengeLayer,)>,
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
        Service::<Request<Collected>>::poll_ready(&mut self.checked, cx)
    }

    #[inline]
    fn call(&mut self, req: Request<Collected>) -> Self::Future {
        self.checked.call(req)
    }
}

impl Check<Collected> for ChallengeLayer {
    fn check(&self, evidence: &Evidence, head: Head<'_>, body: &Collected) -> Result<Verdict, Rejection> {
        let handshake = match &self.fixed {
            // No challenge is answered while a proof is missing.
            Some(handshake) => {
                evidence.require_nothing_owed()?;
                handshake
            }
            None => match evidence.webhook()?.handshake() {
                Some(handshake) if handshake.is_signed() => {
                    evidence.permit()?;
                    handshake
                }
                _ => return Ok(Verdict::Pass),
            },
        };
        Ok(match handshake.answer_body(head, body.bytes()) {
            Some(answered) => Verdict::Answer(Box::new(answered)),
            // Of a fixed handshake, no later layer knows.
            None if self.fixed.is_some() => Verdict::Pass,
            None => Verdict::Establish(Established::Challenged),
        })
    }
}
