//! One request and its answer, as the connection sees them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::{Request, Response, Version};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use pin_project::pin_project;

use crate::access::Entry;
use crate::activity::{Activity, Running};
use crate::routes::{AppBody, is_let_in};

/// A request's body that reports to the connection: in HTTP/2 how much has been read, in HTTP/1 when all has.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    activity: Arc<Activity>,
    /// In HTTP/1 a body that nobody reads ends the connection.
    is_http1: bool,
}

impl RequestBody {
    pub(crate) fn of(req: Request<Incoming>, activity: &Arc<Activity>) -> Request<Self> {
        let is_http1 = req.version() != Version::HTTP_2;
        match is_http1 {
            true => activity.set_unread(!req.body().is_end_stream()),
            false => activity.begins_http2_request(),
        }
        req.map(|incoming| Self { incoming, activity: Arc::clone(activity), is_http1 })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if !self.is_http1 {
            let data = frame.iter().flatten().filter_map(Frame::data_ref);
            data.for_each(|data| self.activity.read_body(data.len()));
        } else if frame.is_none() || self.incoming.is_end_stream() {
            self.activity.set_unread(false);
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

/// The largest piece of an answer that the protocol gets at a time. HTTP/2 takes a whole piece as soon as the peer accepts
/// one byte, and buffers the rest: nobody sees then how fast the peer reads.
const PIECE: usize = 64 << 10;

/// A request that is being answered.
#[pin_project]
pub(crate) struct Answering<F> {
    #[pin]
    state: State<F>,
    /// Present until the answer is.
    running: Option<Running>,
    /// The request's line in the access log.
    entry: Option<Box<Entry>>,
}

#[pin_project(project = StateProj)]
enum State<F> {
    Asking(#[pin] F),
    /// The answer exists and the body is unread. The answer waits for one poll, so that hyper notices before it writes the
    /// head that nobody reads the body. hyper then reads the rest if that has arrived, and otherwise sends
    /// `Connection: close`.
    Early(Option<Response<AppBody>>),
}

impl<F> Answering<F> {
    pub(crate) fn new(answer: F, running: Running, entry: Option<Box<Entry>>) -> Self {
        Self { state: State::Asking(answer), running: Some(running), entry }
    }

    /// The answer to a request that does not keep the connection open.
    pub(crate) fn refused(answer: Response<AppBody>, entry: Option<Box<Entry>>) -> Self {
        Self { state: State::Early(Some(answer)), running: None, entry }
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<AppBody>, Infallible>>,
{
    type Output = Result<Response<AnswerBody<AppBody>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = match this.state.as_mut().project() {
            StateProj::Asking(answer) => ready!(answer.poll(cx))?,
            StateProj::Early(answer) => match answer.take() {
                Some(answer) => return Poll::Ready(Ok(AnswerBody::of(answer, this.running.take(), this.entry.take()))),
                None => return Poll::Pending,
            },
        };
        if is_let_in(&answer) {
            this.running.iter().for_each(|running| running.activity().let_in());
        }
        if !this.running.as_ref().is_some_and(|running| running.activity().is_unread()) {
            return Poll::Ready(Ok(AnswerBody::of(answer, this.running.take(), this.entry.take())));
        }
        // This drops the request with the old state.
        this.state.set(State::Early(Some(answer)));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// An answer's body in pieces. While it exists, the connection counts as waiting for the peer.
#[pin_project]
pub(crate) struct AnswerBody<B> {
    #[pin]
    body: B,
    rest: Bytes,
    entry: Option<Box<Entry>>,
    _running: Option<Running>,
}

impl<B> AnswerBody<B> {
    fn of(answer: Response<B>, running: Option<Running>, mut entry: Option<Box<Entry>>) -> Response<Self> {
        if let Some(entry) = &mut entry {
            entry.answered(&answer);
        }
        answer.map(|body| Self { body, rest: Bytes::new(), entry, _running: running.map(Running::answered) })
    }
}

impl<B: Body<Data = Bytes>> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let mut data = std::mem::take(this.rest);
        if data.is_empty() {
            data = match ready!(this.body.poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
        }
        if data.len() > PIECE {
            *this.rest = data.split_off(PIECE);
        }
        if let Some(entry) = this.entry {
            entry.sent(data.len());
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if rest > 0 {
            let (lower, upper) = (hint.lower().saturating_add(rest), hint.upper());
            hint = SizeHint::new();
            hint.set_lower(lower);
            upper.iter().for_each(|upper| hint.set_upper(upper.saturating_add(rest)));
        }
        hint
    }
}
