//! The layer that checks the format of the body.

use std::task::{Context, Poll};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::checks::{self, Check, Verdict};
use super::evidence::{Established, Evidence};
use crate::config::DataType;
use crate::form;
use crate::json;
use crate::request::{Collected, Head, Rejection, RejectionKind, ResponseFuture};

/// Refuses bodies that do not have the right format.
///
/// The check reads a collected body without building anything from it. JSON must be one well-formed value (RFC 8259) in
/// UTF-8, followed by nothing, with at most [50](Self::MAX_DEPTH) levels. A compressed body (`Content-Encoding`) is
/// refused, because no layer decompresses. A form must have the `Content-Type` `application/x-www-form-urlencoded`, decode
/// to UTF-8, and have at most 1,000 fields; it must not be compressed either, and is passed on byte for byte. Binary data
/// may be any bytes.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | [`Collected`]; [`Matched`](crate::Matched) unless the type is fixed | the evidence that [`Dispatch`](super::dispatch::Dispatch) needs | 400 malformed, 415 encoded or of another type |
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::config::DataType;
/// use tower_webhook::layers::CheckPayloadLayer;
/// use tower_webhook::request::Collected;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(CheckPayloadLayer::new(DataType::Json))
///     .service_fn(|_: Request<Collected>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
///
/// let request = |body: &'static str| Request::new(Collected::new(Bytes::from(body)));
/// assert_eq!(service.clone().oneshot(request(r#"{"hello": "world"}"#)).await.unwrap().status(), 200);
/// assert_eq!(service.oneshot(request("{} trailing")).await.unwrap().status(), 400);
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CheckPayloadLayer {
    select: Select,
}

#[derive(Clone, Copy, Debug)]
enum Select {
    Fixed(DataType),
    Matched,
}

impl CheckPayloadLayer {
    /// The most levels of arrays and objects in a JSON body.
    pub const MAX_DEPTH: usize = crate::json::MAX_DEPTH;

    /// Every body must be of this type.
    pub fn new(data_type: DataType) -> Self {
        Self { select: Select::Fixed(data_type) }
    }

    /// The body must be of the type that the matched webhook configures.
    pub fn from_webhook() -> Self {
        Self { select: Select::Matched }
    }
}

impl<S> Layer<S> for CheckPayloadLayer {
    type Service = CheckPayload<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CheckPayload { inner, settings: *self }
    }
}

/// Middleware applied by [`CheckPayloadLayer`].
#[derive(Clone, Debug)]
pub struct CheckPayload<S> {
    inner: S,
    settings: CheckPayloadLayer,
}

impl<S, ResBody> Service<Request<Collected>> for CheckPayload<S>
where
    S: Service<Request<Collected>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<Collected>) -> Self::Future {
        match checks::pass(&mut req, &self.settings) {
            Ok(()) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

impl Check<Collected> for CheckPayloadLayer {
    fn check(&self, evidence: &Evidence, head: Head<'_>, body: &Collected) -> Result<Verdict, Rejection> {
        let data_type = match self.select {
            Select::Fixed(data_type) => data_type,
            Select::Matched => evidence.webhook()?.data_type(),
        };
        match data_type {
            DataType::Json => {
                refuse_encoded(head.headers)?;
                json::check(body.bytes()).map_err(|malformed| {
                    let detail = malformed.or_named_by(head.headers).to_string();
                    Rejection::with_detail(RejectionKind::MalformedPayload, detail)
                })?;
            }
            DataType::Form => {
                refuse_encoded(head.headers)?;
                require_form(head.headers)?;
                form::check(body.bytes()).map_err(|malformed| {
                    Rejection::with_detail(RejectionKind::MalformedPayload, malformed.to_string())
                })?;
            }
            DataType::Blob => {}
        }
        Ok(Verdict::Establish(Established::Checked))
    }
}

/// Ignores parameters: a form has none. Some senders add `charset`, but the bytes must be UTF-8 anyway.
fn require_form(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let found = match (types.next(), types.next()) {
        (None, _) => "none",
        (Some(one), None) if is_form(one.as_bytes()) => return Ok(()),
        (Some(_), None) => "another one",
        _ => "several",
    };
    let text = format!("Expected the Content-Type application/x-www-form-urlencoded, found {found}");
    Err(Rejection::with_detail(RejectionKind::UnexpectedContentType, text))
}

fn is_form(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Accepts no coding and `identity`; empty items of the list do not count (RFC 9110 §5.6.1.2, §8.4).
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Rejection> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let is_plain = |coding: &[u8]| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    };
    let mut codings =
        headers.get_all(CONTENT_ENCODING).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    if codings.all(is_plain) {
        return Ok(());
    }
    Err(RejectionKind::UnsupportedEncoding.into())
}
