//! The answer to a challenge.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::request::{Rejection, RejectionKind};

/// The longest text of a challenge that is sent back, in bytes.
const LONGEST: usize = 1024;

/// The answer to a challenge, or the refusal of one.
pub(crate) type Answered = Result<Answer, Refusal>;

/// The answer to a challenge.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// An extension of a response that answers a challenge, and no event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsHandshake;

impl Answer {
    /// 200 without a body.
    pub(super) fn empty() -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// 204.
    pub(super) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, ..Self::empty() }
    }

    /// 200 with the sender's own text, which no browser takes for a page.
    ///
    /// # Errors
    ///
    /// When the text is empty, longer than 1 KiB or not printable ASCII. `name` says where it was found.
    pub(super) fn echo(text: &str, name: &str) -> Answered {
        check(text, name)?;
        Ok(Self::of("text/plain; charset=utf-8", text.to_owned().into()))
    }

    /// 200 with a JSON object of texts.
    pub(super) fn json(fields: &[(&str, &str)]) -> Self {
        let fields: serde_json::Map<_, _> =
            fields.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        Self::of("application/json", serde_json::Value::Object(fields).to_string().into())
    }

    /// 200 with a fixed JSON text.
    pub(super) fn fixed_json(text: &'static str) -> Self {
        Self::of("application/json", Bytes::from_static(text.as_bytes()))
    }

    fn of(content_type: &'static str, body: Bytes) -> Self {
        Self::empty().with(header::CONTENT_TYPE, HeaderValue::from_static(content_type)).body(body)
    }

    fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn into_response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // A challenge is new each time.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(IsHandshake);
        response
    }
}

/// Whether a text may be sent back.
pub(super) fn check(text: &str, name: &str) -> Result<(), Refusal> {
    let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    match text.len() {
        0 => Err(Refusal::malformed(name, "is empty")),
        1..=LONGEST if text.bytes().all(is_printable) => Ok(()),
        1..=LONGEST => Err(Refusal::malformed(name, "holds characters that are not printable ASCII")),
        _ => Err(Refusal::malformed(name, "is longer than 1024 bytes")),
    }
}

/// Why a challenge is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400.
    Malformed(String),
    /// 403: the token, topic, origin or signature is wrong.
    Forbidden,
}

impl Refusal {
    /// `name` says where the fault is: in which parameter, header field or place of the body. The text itself is not quoted.
    pub(super) fn malformed(name: &str, why: impl std::fmt::Display) -> Self {
        Self::Malformed(format!("Malformed challenge: {name} {why}"))
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(detail) => Self::with_detail(RejectionKind::MalformedChallenge, detail),
            Refusal::Forbidden => RejectionKind::Forbidden.into(),
        }
    }
}
