//! The future of a request that is deduplicated, and of its claim.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use http::{Response, StatusCode};
use pin_project::pin_project;
use uuid::Uuid;

use crate::dedup::{Answer, Pending};
use crate::event::{DUPLICATE, DuplicateOf, EVENT_ID, EventId, Receipt, Render};
use crate::request::Rejection;

/// Response future of [`Dedup`](super::Dedup).
#[pin_project]
pub struct DedupFuture<F, B> {
    #[pin]
    state: State<F, B>,
}

#[pin_project(project = StateProj)]
enum State<F, B> {
    Inner {
        #[pin]
        inner: F,
        id: EventId,
    },
    First {
        #[pin]
        inner: F,
        id: EventId,
        pending: Option<Pending>,
    },
    /// Until the answer is recorded on disk.
    Keeping {
        written: BoxFuture<'static, ()>,
        response: Option<Box<Response<B>>>,
    },
    Duplicate(Answer, Render),
    Rejected(Option<Box<Rejection>>),
}

impl<F, B> DedupFuture<F, B> {
    pub(crate) fn inner(inner: F, id: EventId) -> Self {
        Self { state: State::Inner { inner, id } }
    }

    pub(crate) fn first(inner: F, id: EventId, pending: Pending) -> Self {
        Self { state: State::First { inner, id, pending: Some(pending) } }
    }

    pub(crate) fn duplicate(answer: Answer, render: Render) -> Self {
        Self { state: State::Duplicate(answer, render) }
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
                StateProj::Inner { inner, id } => {
                    let outcome = ready!(inner.poll(cx));
                    return Poll::Ready(outcome.map(|response| named(response, *id)));
                }
                StateProj::First { inner, id, pending } => {
                    let outcome = ready!(inner.poll(cx)).map(|response| named(response, *id));
                    // Dropped with its claim, unless the event was taken.
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
                StateProj::Duplicate(answer, render) => return Poll::Ready(Ok(again(*answer, *render))),
                StateProj::Rejected(rejection) => {
                    return Poll::Ready(Ok(rejection.take().expect(OVER).into_response()));
                }
            };
            state.set(State::Keeping { written, response: Some(Box::new(response)) });
        }
    }
}

/// Adds the event's id to an answer without one. A refusal gets none: if it concerns an event,
/// [`Dispatch`](crate::layers::dispatch::Dispatch) has added the id.
fn named<B>(mut response: Response<B>, id: EventId) -> Response<B> {
    if !response.headers().contains_key(EVENT_ID)
        && response.extensions().get::<Rejection>().is_none()
        && let Some(id) = id.to_header()
    {
        response.headers_mut().insert(EVENT_ID, id);
    }
    response
}

/// The part of an answer that is kept for duplicates.
fn kept<B>(response: &Response<B>) -> Answer {
    let event_id = response.headers().get(EVENT_ID).and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
    Answer { status: response.status(), event_id: event_id.unwrap_or_default() }
}

/// The answer to a duplicate, with the status and event id of the first answer, whether or not its sender has read
/// that.
fn again<B: Default + From<Bytes>>(answer: Answer, render: Render) -> Response<B> {
    let event_id = (!answer.event_id.is_nil()).then(|| EventId::from_uuid(answer.event_id));
    let mut response = match answer.status {
        // RFC 9110 §15.3.5 and §15.3.6: these answers have no body.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => Response::default(),
        status => render(&Receipt::new(status, event_id)).map(B::from),
    };
    *response.status_mut() = answer.status;
    response.extensions_mut().insert(DuplicateOf(event_id));
    let headers = response.headers_mut();
    headers.insert(DUPLICATE, HeaderValue::from_static("true"));
    match event_id.and_then(EventId::to_header) {
        Some(id) => drop(headers.insert(EVENT_ID, id)),
        None => drop(headers.remove(EVENT_ID)),
    }
    response
}
