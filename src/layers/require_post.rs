//! The layer that restricts the method of requests.

use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::request::{RejectionKind, ResponseFuture};

/// Refuses every method except POST.
///
/// The answer is 405 with `Allow: POST`, whatever the path names. The layer needs no other layer. A service of your own
/// that accepts other methods too leaves this layer out: no other layer checks the method.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | nothing | nothing | 405 |
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::layers::RequirePostLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(RequirePostLayer::new())
///     .service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
///
/// let response = service.clone().oneshot(Request::post("/").body(()).unwrap()).await.unwrap();
/// assert_eq!(response.status(), 200);
/// let response = service.oneshot(Request::get("/").body(()).unwrap()).await.unwrap();
/// assert_eq!(response.status(), 405);
/// assert_eq!(response.headers()["allow"], "POST");
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RequirePostLayer {
    _private: (),
}

impl RequirePostLayer {
    /// A layer that lets only POST pass.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for RequirePostLayer {
    type Service = RequirePost<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequirePost { inner }
    }
}

/// Middleware applied by [`RequirePostLayer`].
#[derive(Clone, Copy, Debug)]
pub struct RequirePost<S> {
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequirePost<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        match *req.method() {
            Method::POST => ResponseFuture::inner(self.inner.call(req)),
            _ => ResponseFuture::rejected(RejectionKind::MethodNotAllowed.into()),
        }
    }
}
