//! The inner end of the receiver's stack: deduplication, if there is a store for it, and delivery.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::dedup::Claims;
use crate::event::receipt;
use crate::layers::{Dedup, DedupFuture, DedupLayer, Dispatch, DispatchFuture};
use crate::request::{Collected, ResponseBody};

/// Processes each event, and with a store of earlier events only once.
#[derive(Clone, Debug)]
pub(super) enum Process {
    Once(Dedup<Dispatch>),
    Each(Dispatch),
}

impl Process {
    pub(super) fn new(dispatch: Dispatch, claims: Option<Claims>) -> Self {
        match claims {
            Some(claims) => {
                Self::Once(DedupLayer::new(claims).answer_duplicates(receipt::dispatch_answer).layer(dispatch))
            }
            None => Self::Each(dispatch),
        }
    }
}

impl Service<Request<Collected>> for Process {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ProcessFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self {
            Self::Once(dedup) => dedup.poll_ready(cx),
            Self::Each(dispatch) => dispatch.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, req: Request<Collected>) -> Self::Future {
        match self {
            Self::Once(dedup) => ProcessFuture::Once(dedup.call(req)),
            Self::Each(dispatch) => ProcessFuture::Each(dispatch.call(req)),
        }
    }
}

#[pin_project(project = ProcessFutureProj)]
pub(super) enum ProcessFuture {
    Once(#[pin] DedupFuture<DispatchFuture, ResponseBody>),
    Each(#[pin] DispatchFuture),
}

impl Future for ProcessFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ProcessFutureProj::Once(answer) => answer.poll(cx),
            ProcessFutureProj::Each(answer) => answer.poll(cx),
        }
    }
}
