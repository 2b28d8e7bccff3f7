//! The response future of layers that check a request before they call the inner service.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project::pin_project;

use super::rejection::Rejection;

/// The response future of the synchronous layers: the inner service's response, or a refusal.
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    kind: Kind<F>,
}

#[pin_project(project = KindProj)]
#[derive(Debug)]
enum Kind<F> {
    Inner(#[pin] F),
    Rejected(Option<Box<Rejection>>),
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(crate) fn inner(future: F) -> Self {
        Self { kind: Kind::Inner(future) }
    }

    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self { kind: Kind::Rejected(Some(Box::new(rejection))) }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Inner(future) => future.poll(cx),
            KindProj::Rejected(rejection) => {
                #[allow(clippy::expect_used)] // the contract of `Future`, as everywhere in std and futures
                let rejection = rejection.take().expect("polled after completion");
                Poll::Ready(Ok(rejection.into_response()))
            }
        }
    }
}
