//! The layer that renders refusals as RFC 9457 problem documents.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use crate::request::{Rejection, RejectionKind};

/// Gives refusals a body.
///
/// The layers refuse with an empty body, so that they fit any response type. This layer, put outside of them, fills the
/// body with a document of type `application/problem+json` with `type`, `title`, `status` and `detail`.
///
/// The inner service may answer with any body whose data can be [`Bytes`], such as those of hyper, axum or tonic: a
/// [`ProblemBody`] is either that body or a document.
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Empty, Full};
/// use bytes::Bytes;
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_webhook::auth::Bearer;
/// use tower_webhook::layers::{ProblemJsonLayer, RequireAuthLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let inner = service_fn(|_: Request<Empty<Bytes>>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
/// });
/// let service = ServiceBuilder::new()
///     .layer(ProblemJsonLayer::new())
///     .layer(RequireAuthLayer::new(Bearer::new("s3cret").unwrap()))
///     .service(inner);
///
/// let response = service.oneshot(Request::new(Empty::new())).await.unwrap();
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// let body = response.into_body().collect().await.unwrap().to_bytes();
/// assert!(String::from_utf8_lossy(&body).contains(r#""detail":"Unauthorized""#));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemJsonLayer {
    _private: (),
}

impl ProblemJsonLayer {
    /// Renders every [`Rejection`] that an inner layer left in the response's extensions.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for ProblemJsonLayer {
    type Service = ProblemJson<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ProblemJson { inner }
    }
}

/// Middleware applied by [`ProblemJsonLayer`].
#[derive(Clone, Debug)]
pub struct ProblemJson<S> {
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ProblemJson<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ProblemBody<ResBody>>;
    type Error = S::Error;
    type Future = ProblemJsonFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        ProblemJsonFuture { inner: self.inner.call(req) }
    }
}

/// Response future of [`ProblemJson`].
#[pin_project]
#[derive(Debug)]
pub struct ProblemJsonFuture<F> {
    #[pin]
    inner: F,
}

impl<F, B, E> Future for ProblemJsonFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ProblemBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().inner.poll(cx))?;
        let document = describe(&mut response);
        Poll::Ready(Ok(response.map(|body| ProblemBody {
            kind: match document {
                Some(document) => Kind::Document(document),
                None => Kind::Inner(body),
            },
        })))
    }
}

/// The body of a response behind [`ProblemJson`]: the inner service's own, or a problem document.
#[pin_project]
#[derive(Clone, Debug, Default)]
pub struct ProblemBody<B> {
    #[pin]
    kind: Kind<B>,
}

#[pin_project(project = KindProj)]
#[derive(Clone, Debug)]
enum Kind<B> {
    Inner(#[pin] B),
    /// Empty once it has been read.
    Document(Bytes),
}

impl<B: Default> Default for Kind<B> {
    fn default() -> Self {
        Self::Inner(B::default())
    }
}

impl<B: Body<Data: From<Bytes>>> Body for ProblemBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner(body) => body.poll_frame(cx),
            KindProj::Document(document) if document.is_empty() => Poll::Ready(None),
            KindProj::Document(document) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(document).into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner(body) => body.is_end_stream(),
            Kind::Document(document) => document.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner(body) => body.size_hint(),
            Kind::Document(document) => SizeHint::with_exact(document.len() as u64),
        }
    }
}

/// The problem document for `response`, if that is a refusal. Sets the headers of the document.
pub(crate) fn describe<B>(response: &mut Response<B>) -> Option<Bytes> {
    let document = document(response.extensions().get::<Rejection>()?);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    Some(document)
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// Most refusals of a kind have the same text: their documents are rendered once.
fn document(rejection: &Rejection) -> Bytes {
    static PLAIN: [OnceLock<Bytes>; RejectionKind::COUNT] = [const { OnceLock::new() }; RejectionKind::COUNT];
    match rejection.is_plain() {
        true => PLAIN[rejection.kind() as usize].get_or_init(|| render(rejection)).clone(),
        false => render(rejection),
    }
}

fn render(rejection: &Rejection) -> Bytes {
    let status = rejection.kind().status();
    let problem = Problem {
        r#type: format!("urn:tower-webhook:problem:{}", rejection.kind().label()),
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: rejection.detail(),
    };
    // Strings and a number always serialise; an empty body would be a harmless fallback.
    serde_json::to_vec(&problem).unwrap_or_default().into()
}
