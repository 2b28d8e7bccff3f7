//! Answers to events that were accepted or delivered, and to their duplicates: header names and bodies.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::id::EventId;

/// The response header with the event's id: a UUIDv7 (RFC 9562).
pub const EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");

/// The response header that marks the answer to a duplicate: `true`.
pub const DUPLICATE: HeaderName = HeaderName::from_static("x-duplicate");

/// The body of a 200.
const DELIVERED: &[u8] = br#"{"message":"200 OK"}"#;

/// The body of a 202.
const ACCEPTED: &[u8] = br#"{"message":"202 Accepted","status":"accepted"}"#;

/// In the extensions of the answer to a duplicate: the id in the first answer, if that had one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DuplicateOf(pub(crate) Option<EventId>);

/// The parts of the first answer to an event that are known when a duplicate arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    status: StatusCode,
    event_id: Option<EventId>,
}

impl Receipt {
    pub(crate) fn new(status: StatusCode, event_id: Option<EventId>) -> Self {
        Self { status, event_id }
    }

    /// The status of the first answer, always a success.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The event id in the first answer.
    pub fn event_id(&self) -> Option<EventId> {
        self.event_id
    }
}

/// A function that makes the body and the headers of the answer to a duplicate. [`Dedup`](crate::layers::Dedup) adds the
/// status, `X-Event-Id` and `X-Duplicate`.
pub type Render = fn(&Receipt) -> Response<Bytes>;

/// An answer without a body.
pub(crate) fn empty(_: &Receipt) -> Response<Bytes> {
    Response::default()
}

/// The answer that [`Dispatch`](crate::layers::Dispatch) gave to the first request, with the event's id.
pub fn dispatch_answer(receipt: &Receipt) -> Response<Bytes> {
    match receipt.status {
        StatusCode::OK | StatusCode::ACCEPTED => success(receipt.status, receipt.event_id),
        _ => Response::default(),
    }
}

/// The answer of [`Dispatch`](crate::layers::Dispatch) to an event that was accepted (202) or delivered (200).
pub(crate) fn success<B: From<Bytes>>(status: StatusCode, id: Option<EventId>) -> Response<B> {
    let body = match status {
        StatusCode::ACCEPTED => ACCEPTED,
        _ => DELIVERED,
    };
    let mut response = Response::new(B::from(Bytes::from_static(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers(id);
    response
}

/// The header fields of a success.
fn headers(id: Option<EventId>) -> HeaderMap {
    // A clone, because to insert each field would hash its name for each answer.
    static WITH_ID: LazyLock<HeaderMap> = LazyLock::new(|| {
        let no_id = HeaderValue::from_static("");
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (EVENT_ID, no_id)])
    });
    let mut headers = WITH_ID.clone();
    match (id.and_then(EventId::to_header), headers.iter_mut().find(|(name, _)| **name == EVENT_ID)) {
        (Some(id), Some((_, value))) => *value = id,
        _ => drop(headers.remove(EVENT_ID)),
    }
    headers
}
