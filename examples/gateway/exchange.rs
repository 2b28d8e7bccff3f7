//! One request and its answer, from the connection's side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::{Request, Version};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use pin_project::pin_project;

use crate::activity::{Activity, Running};

/// A request's body that tells the connection when it has been read to its end.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    /// Of HTTP/1 only: there, a body that nobody reads is the end of the connection.
    activity: Option<Arc<Activity>>,
}

impl RequestBody {
    pub(crate) fn of(req: Request<Incoming>, activity: &Arc<Activity>) -> Request<Self> {
        if req.version() == Version::HTTP_2 {
            activity.speaks_http2();
            return req.map(|incoming| Self { incoming, activity: None });
        }
        activity.set_unread(!req.body().is_end_stream());
        req.map(|incoming| Self { incoming, activity: Some(Arc::clone(activity)) })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(activity) = &self.activity
            && (frame.is_none() || self.incoming.is_end_stream())
        {
            activity.set_unread(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A request that is being answered.
#[pin_project]
pub(crate) struct Answering<F: Future> {
    #[pin]
    state: State<F>,
    running: Running,
}

#[pin_project(project = StateProj)]
enum State<F: Future> {
    Asking(#[pin] F),
    /// It waits one turn for hyper to learn, before it writes the head, that nobody reads the rest of the body. Only
    /// then does hyper read the rest, if that is there already, or else say `Connection: close`.
    Early(Option<F::Output>),
}

impl<F: Future> Answering<F> {
    pub(crate) fn new(answer: F, running: Running) -> Self {
        Self { state: State::Asking(answer), running }
    }
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let answer = match this.state.as_mut().project() {
            StateProj::Asking(answer) => ready!(answer.poll(cx)),
            StateProj::Early(answer) => return answer.take().map_or(Poll::Pending, Poll::Ready),
        };
        if !this.running.activity().is_unread() {
            return Poll::Ready(answer);
        }
        // The request goes with the state that this replaces.
        this.state.set(State::Early(Some(answer)));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
