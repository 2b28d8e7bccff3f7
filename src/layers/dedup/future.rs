//! What becomes of a request, and of its claim.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use pin_project::pin_project;
use uuid::Uuid;

use super::DUPLICATE;
use crate::dedup::{Answer, Pending};
use crate::event::EventId;
use crate::layers::dispatch::{ACCEPTED, DELIVERED, EVENT_ID};
use crate::request::Rejection;

/// Response future of [`Dedup`](super::Dedup).
#[pin_project]
pub struct DedupFuture<F, B> {
    #[pin]
    state: State<F, B>,
}

#[pin_project(project = StateProj)]
enum State<F, B> {
    Inner(#[pin] F),
    First {
        #[pin]
        inner: F,
        pending: Option<Pending>,
    },
    /// Until what was answered is written down.
    Keeping {
        written: BoxFuture<'static, ()>,
        response: Option<Box<Response<B>>>,
    },
    Duplicate(Answer),
    Rejected(Option<Box<Rejection>>),
}

impl<F, B> DedupFuture<F, B> {
    pub(crate) fn inner(inner: F) -> Self {
        Self { state: State::Inner(inner) }
    }

    pub(crate) fn first(inner: F, pending: Pending) -> Self {
        Self { state: State::First { inner, pending: Some(pending) } }
    }

    pub(crate) fn duplicate(answer: Answer) -> Self {
        Self { state: State::Duplicate(answer) }
    }

    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self { state: State::Rejected(Some(Box::new(rejection))) }
    }
}

impl<F, B> fmt::Debug for DedupFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupFuture").finish_non_exhaustive()
    }
}

impl<F, B, E> Future for DedupFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default + From<Bytes>,
{
    type Output = F::Output;

    #[allow(clippy::expect_used)] // the contract of `Future`, as everywhere in std and futures
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const OVER: &str = "polled after completion";
        let mut state = self.project().state;
        loop {
            let (written, response) = match state.as_mut().project() {
                StateProj::Inner(inner) => return inner.poll(cx),
                StateProj::First { inner, pending } => {
                    let outcome = ready!(inner.poll(cx));
                    // Dropped unless the event was taken, and with it the claim.
                    let pending = pending.take().expect(OVER);
                    match outcome {
                        Ok(response) if response.status().is_success() => match pending.taken(kept(&response)) {
                            Some(written) => (written, response),
                            None => return Poll::Ready(Ok(response)),
                        },
                        outcome => return Poll::Ready(outcome),
                    }
                }
                StateProj::Keeping { written, response } => {
                    ready!(written.as_mut().poll(cx));
                    return Poll::Ready(Ok(*response.take().expect(OVER)));
                }
                StateProj::Duplicate(answer) => return Poll::Ready(Ok(again(*answer))),
                StateProj::Rejected(rejection) => {
                    return Poll::Ready(Ok(rejection.take().expect(OVER).into_response()));
                }
            };
            state.set(State::Keeping { written, response: Some(Box::new(response)) });
        }
    }
}

/// What is kept of an answer.
fn kept<B>(response: &Response<B>) -> Answer {
    let event_id = response.headers().get(EVENT_ID).and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
    Answer { status: response.status(), event_id: event_id.unwrap_or_default() }
}

/// The answer to a duplicate: what the sender of the first one was, or would have been, told.
fn again<B: Default + From<Bytes>>(answer: Answer) -> Response<B> {
    let mut response = Response::new(body(answer.status).map_or_else(B::default, B::from));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if body(answer.status).is_some() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(DUPLICATE, HeaderValue::from_static("true"));
    if !answer.event_id.is_nil()
        && let Some(id) = EventId::of(answer.event_id).to_header()
    {
        headers.insert(EVENT_ID, id);
    }
    response
}

fn body(status: StatusCode) -> Option<Bytes> {
    match status {
        // RFC 9110 §15.3.5 and §15.3.6: these have none.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => None,
        StatusCode::OK => Some(Bytes::from_static(DELIVERED)),
        StatusCode::ACCEPTED => Some(Bytes::from_static(ACCEPTED)),
        _ => Some(format!(r#"{{"message":"{}"}}"#, status).into()),
    }
}
