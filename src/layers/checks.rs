//! The checks of the layers, and the service that makes several of them.
//!
//! A check only decides. This module adds the facts that a check has established to the evidence of the request.
//!
//! The receiver makes checks that follow each other in one service: each layer of its own would move the request, which has
//! more than 250 bytes, wrap the future of the inner service, and search the request for its evidence.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::challenge_future::ChallengeFuture;
use super::evidence::{Established, Evidence};
use crate::handshake::Answered;
use crate::request::{Head, Rejection, RejectionKind};

/// Looks at a request before the inner service gets it.
pub(crate) trait Check<B> {
    /// `evidence` is the evidence of the request so far.
    ///
    /// # Errors
    ///
    /// The refusal of the request.
    fn check(&self, evidence: &Evidence, head: Head<'_>, body: &B) -> Result<Verdict, Rejection>;
}

/// The decision about a request that is not refused.
pub(crate) enum Verdict {
    /// It passes.
    Pass,
    /// It passes, and later layers may rely on this.
    Establish(Established),
    /// It is answered. Boxed: few are.
    Answer(Box<Answered>),
}

/// Makes the checks in their order. `None` if the request passes all of them.
#[inline]
fn run<B>(req: &mut Request<B>, checks: &[&dyn Check<B>]) -> Result<Option<Answered>, Rejection> {
    let mut checks = checks.iter();
    loop {
        let evidence = Evidence::of(req.extensions());
        let established = loop {
            let Some(check) = checks.next() else { return Ok(None) };
            match check.check(evidence, Head::of(req), req.body())? {
                Verdict::Pass => {}
                Verdict::Establish(established) => break established,
                Verdict::Answer(answered) => return Ok(Some(*answered)),
            }
        };
        Evidence::of_mut(req.extensions_mut()).add(established);
        if checks.len() == 0 {
            return Ok(None);
        }
    }
}

/// Makes a check that answers no request: an answer would be a fault of ours, and refuses the request.
#[inline]
pub(super) fn pass<B>(req: &mut Request<B>, check: &dyn Check<B>) -> Result<(), Rejection> {
    match run(req, &[check])? {
        None => Ok(()),
        Some(_) => Err(RejectionKind::Misassembled.into()),
    }
}

/// Calls the inner service with the requests that pass `checks`.
#[derive(Clone, Debug)]
pub(crate) struct Checked<S, C> {
    inner: S,
    checks: C,
}

impl<S, C> Checked<S, C> {
    pub(crate) fn new(inner: S, checks: C) -> Self {
        Self { inner, checks }
    }
}

/// Several checks.
pub(crate) trait Checks<B> {
    fn run(&self, req: &mut Request<B>) -> Result<Option<Answered>, Rejection>;
}

impl<B, C: Check<B>> Checks<B> for (C,) {
    #[inline]
    fn run(&self, req: &mut Request<B>) -> Result<Option<Answered>, Rejection> {
        run(req, &[&self.0])
    }
}

impl<B, C1: Check<B>, C2: Check<B>> Checks<B> for (C1, C2) {
    #[inline]
    fn run(&self, req: &mut Request<B>) -> Result<Option<Answered>, Rejection> {
        run(req, &[&self.0, &self.1])
    }
}

impl<B, C1: Check<B>, C2: Check<B>, C3: Check<B>> Checks<B> for (C1, C2, C3) {
    #[inline]
    fn run(&self, req: &mut Request<B>) -> Result<Option<Answered>, Rejection> {
        run(req, &[&self.0, &self.1, &self.2])
    }
}

impl<S, C, ReqBody, ResBody> Service<Request<ReqBody>> for Checked<S, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    C: Checks<ReqBody>,
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
    fn call(&mut self, mut req: Request<ReqBody>) -> Self::Future {
        match self.checks.run(&mut req) {
            Ok(None) => ChallengeFuture::inner(self.inner.call(req)),
            Ok(Some(answered)) => ChallengeFuture::answered(answered),
            Err(rejection) => ChallengeFuture::rejected(rejection),
        }
    }
}
