//! Refusals as RFC 9457 problem documents.
//!
//! The layers refuse with an empty body, so that they fit any response type. This one, put outside of them, fills it:
//! `application/problem+json` with `type`, `title`, `status` and `detail`.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Empty, Full};
//! use bytes::Bytes;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_webhook::{ProblemJsonLayer, RequireAuthLayer, auth::Bearer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let inner = service_fn(|_: Request<Empty<Bytes>>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
//! });
//! let service = ServiceBuilder::new()
//!     .layer(ProblemJsonLayer::new())
//!     .layer(RequireAuthLayer::new(Bearer::new("s3cret").unwrap()))
//!     .service(inner);
//!
//! let response = service.oneshot(Request::new(Empty::new())).await.unwrap();
//! assert_eq!(response.status(), 401);
//! assert_eq!(response.headers()["content-type"], "application/problem+json");
//! let body = response.into_body().collect().await.unwrap().to_bytes();
//! assert!(String::from_utf8_lossy(&body).contains(r#""detail":"Unauthorized""#));
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use pin_project::pin_project;
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use crate::rejection::{Rejection, RejectionKind};

/// Gives refusals a body. See the [module docs](self) for an example.
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
    ResBody: From<Bytes>,
{
    type Response = S::Response;
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
    B: From<Bytes>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().inner.poll(cx))?;
        if let Some(rejection) = response.extensions().get::<Rejection>() {
            let body = document(rejection);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
            *response.body_mut() = B::from(body);
        }
        Poll::Ready(Ok(response))
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// Most refusals of a kind look the same: these are written once.
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
    // Strings and a number always serialise; an empty body would be the harmless alternative.
    serde_json::to_vec(&problem).unwrap_or_default().into()
}
