//! The response future of layers that may answer a request themselves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use pin_project::pin_project;

use crate::handshake::Answered;
use crate::request::Rejection;

const OVER: &str = "polled after completion";

/// Response future of [`AnswerHandshake`](super::handshake::AnswerHandshake) and of [`Challenge`](super::challenge::Challenge).
#[pin_project]
#[derive(Debug)]
pub struct ChallengeFuture<F, B> {
    #[pin]
    kind: Kind<F, B>,
}

#[pin_project(project = KindProj)]
#[derive(Debug)]
enum Kind<F, B> {
    Inner(#[pin] F),
    Answered(Option<Box<Response<B>>>),
    Rejected(Option<Box<Rejection>>),
}

impl<F, B> ChallengeFuture<F, B> {
    pub(super) fn inner(future: F) -> Self {
        Self { kind: Kind::Inner(future) }
    }

    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self { kind: Kind::Rejected(Some(Box::new(rejection))) }
    }
}

impl<F, B: From<Bytes>> ChallengeFuture<F, B> {
    pub(super) fn answered(answered: Answered) -> Self {
        match answered {
            Ok(answer) => Self { kind: Kind::Answered(Some(Box::new(answer.into_response()))) },
            Err(refusal) => Self::rejected(refusal.into()),
        }
    }
}

impl<F, B, E> Future for ChallengeFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    #[inline]
    #[allow(clippy::expect_used)] // the contract of `Future`, as everywhere in std and futures
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Inner(future) => future.poll(cx),
            KindProj::Answered(response) => Poll::Ready(Ok(*response.take().expect(OVER))),
            KindProj::Rejected(rejection) => Poll::Ready(Ok(rejection.take().expect(OVER).into_response())),
        }
    }
}
