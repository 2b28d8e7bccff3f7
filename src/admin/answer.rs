//! Answers, and the problems that take their place.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{AdminBody, Part};

pub(super) type Answer = Response<AdminBody>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer that says why there is no other (RFC 9457).
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    field: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    pub(super) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A 503 that may be tried again after a second.
    pub(super) fn busy(detail: impl Into<Cow<'static, str>>) -> Self {
        let field = (header::RETRY_AFTER, HeaderValue::from_static("1"));
        Self { field: Some(field), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { field: Some((name, value)), ..self }
    }

    pub(super) fn into_answer(self) -> Answer {
        let Self { status, detail, field } = self;
        let body = json!({"title": status.canonical_reason(), "status": status.as_u16(), "detail": detail});
        let mut answer = of(status, HeaderValue::from_static("application/problem+json"), body.to_string());
        answer.headers_mut().extend(field);
        answer
    }
}

/// The storage of the queue or of the history fails.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the storage failed: {error}"))
    }
}

/// 200 with this JSON.
pub(super) fn ok(value: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, value)
}

pub(super) fn with_status(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => of(status, JSON, json),
        Err(error) => Problem::from(io::Error::from(error)).into_answer(),
    }
}

pub(super) fn no_content() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

pub(super) fn of(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AdminBody::from(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// 200 with the JSON object `value`, with one more field whose value consists of `parts`.
pub(super) fn with_field(value: &Value, name: &str, parts: Vec<Part>) -> Answer {
    let mut object = value.to_string();
    // The closing bracket.
    object.pop();
    let comma = if object.len() > 1 { "," } else { "" };
    let mut all = vec![Part::Plain(format!("{object}{comma}{}:", json!(name)).into())];
    all.extend(parts);
    all.push(Part::Plain(Bytes::from_static(b"}")));
    let mut answer = Response::new(AdminBody::of_parts(all));
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}
