//! Answers to events that were taken: header names, bodies, and the answer to a duplicate.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::id::EventId;

/// The header that names the event in an answer: a UUIDv7 (RFC 9562).
pub const EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");

/// The header that marks the answer to an event that was taken before: `true`.
pub const DUPLICATE: HeaderName = HeaderName::from_static("x-duplicate");

/// The body of a 200.
const DELIVERED: &[u8] = br#"{"message":"200 OK"}"#;

/// The body of a 202.
const ACCEPTED: &[u8] = br#"{"message":"202 Accepted","status":"accepted"}"#;

/// The first answer to an event, as far as it is still known when the event comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    status: StatusCode,
    event_id: Option<EventId>,
}

impl Receipt {
    pub(crate) fn new(status: StatusCode, event_id: Option<EventId>) -> Self {
        Self { status, event_id }
    }

    /// The status of the first answer: a success.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The id that the first answer gave the event.
    pub fn event_id(&self) -> Option<EventId> {
        self.event_id
    }
}

/// Makes the body of the answer to a duplicate, and its headers. [`Dedup`](crate::layers::Dedup) itself adds the status,
/// `X-Event-Id` and `X-Duplicate`.
pub type Render = fn(&Receipt) -> Response<Bytes>;

/// An answer without a body.
pub(crate) fn empty(_: &Receipt) -> Response<Bytes> {
    Response::default()
}

/// The answer that [`Dispatch`](crate::layers::Dispatch) gave to the first event.
pub fn dispatch_answer(receipt: &Receipt) -> Response<Bytes> {
    match receipt.status {
        StatusCode::OK => taken(StatusCode::OK),
        StatusCode::ACCEPTED => taken(StatusCode::ACCEPTED),
        _ => Response::default(),
    }
}

/// The answer of [`Dispatch`](crate::layers::Dispatch) to an event that was taken: 202 if it was accepted, else 200.
pub(crate) fn taken<B: From<Bytes>>(status: StatusCode) -> Response<B> {
    let body = match status {
        StatusCode::ACCEPTED => ACCEPTED,
        _ => DELIVERED,
    };
    let mut response = Response::new(B::from(Bytes::from_static(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(2);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
