//! The layer that answers challenges before the guards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::{Evidence, Matched};
use crate::handshake::{Answered, Handshake};
use crate::request::{Head, Rejection, RejectionKind};

/// Answers challenges before the guards.
///
/// [`HandshakeLayer`] answers the GET, HEAD or OPTIONS by which a provider checks an address, and passes POST on. It refuses
/// any other method, and GET at a webhook without such a [`Handshake`]. Signed challenges come by POST:
/// [`Challenge`](super::challenge::Challenge) answers them, behind the guards.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | [`Matched`], unless the handshake is fixed | the evidence that this step ran; only POST passes | 405; 400 a malformed challenge, 403 a wrong token |
///
/// Before a route of your own:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::layers::HandshakeLayer;
/// use tower_webhook::handshake::Handshake;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(HandshakeLayer::new(Handshake::named("dropbox").unwrap()))
///     .service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("taken"))) });
///
/// let asked = service.clone().oneshot(Request::get("/?challenge=abc").body(()).unwrap()).await.unwrap();
/// assert_eq!(asked.headers()["x-content-type-options"], "nosniff");
/// assert_eq!(asked.into_body().collect().await.unwrap().to_bytes(), "abc");
///
/// let event = service.oneshot(Request::post("/").body(()).unwrap()).await.unwrap();
/// assert_eq!(event.into_body().collect().await.unwrap().to_bytes(), "taken");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HandshakeLayer {
    /// `None` uses the matched webhook's handshake.
    fixed: Option<Handshake>,
}

impl HandshakeLayer {
    /// A layer that answers the challenges of `handshake`.
    pub fn new(handshake: Handshake) -> Self {
        Self { fixed: Some(handshake) }
    }

    /// A layer that answers the challenges that the matched webhook configures.
    pub fn from_webhook() -> Self {
        Self { fixed: None }
    }
}

impl<S> Layer<S> for HandshakeLayer {
    type Service = AnswerHandshake<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AnswerHandshake { inner, fixed: self.fixed.clone() }
    }
}

/// Middleware applied by [`HandshakeLayer`].
#[derive(Clone, Debug)]
pub struct AnswerHandshake<S> {
    inner: S,
    fixed: Option<Handshake>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AnswerHandshake<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default + From<Bytes>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ChallengeFuture<S::Future, ResBody>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut req: Request<ReqBody>) -> Self::Future {
        match judge(self.fixed.as_ref(), &mut req) {
            Ok(None) => ChallengeFuture::inner(self.inner.call(req)),
            Ok(Some(answered)) => ChallengeFuture::answered(answered),
            Err(rejection) => ChallengeFuture::rejected(rejection),
        }
    }
}

/// `None` if the request is not a challenge that comes before the guards.
fn judge<B>(fixed: Option<&Handshake>, req: &mut Request<B>) -> Result<Option<Answered>, Rejection> {
    let handshake = match fixed {
        Some(handshake) => Some(handshake),
        None => Matched::of(req.extensions())?.webhook().handshake(),
    };
    if let Some(answered) = handshake.and_then(|handshake| handshake.answer_head(Head::of(req))) {
        return Ok(Some(answered));
    }
    if req.method() != Method::POST {
        return Err(not_allowed(handshake));
    }
    if handshake.is_some_and(Handshake::is_of_head) && fixed.is_none() {
        Evidence::set_greeted(req.extensions_mut());
    }
    Ok(None)
}

fn not_allowed(handshake: Option<&Handshake>) -> Rejection {
    let rejection = Rejection::new(RejectionKind::MethodNotAllowed);
    match handshake.and_then(Handshake::method) {
        Some(Method::GET) => rejection.allowing(HeaderValue::from_static("POST, GET")),
        Some(Method::HEAD) => rejection.allowing(HeaderValue::from_static("POST, HEAD")),
        Some(Method::OPTIONS) => rejection.allowing(HeaderValue::from_static("POST, OPTIONS")),
        _ => rejection,
    }
}

/// Response future of [`AnswerHandshake`] and of [`Challenge`](super::challenge::Challenge).
#[pin_project]
#[derive(Debug)]
pub struct ChallengeFuture<F, B> {
    #[pin]
    kind: Kind<F, B>,
}

#[pin_project(project = KindProj)]
#[derive(Debug)]
enum Kind<F, B> {
    Inner(#[pin] F),
    Answered(Option<Box<Response<B>>>),
}

impl<F, B> ChallengeFuture<F, B> {
    pub(super) fn inner(future: F) -> Self {
        Self { kind: Kind::Inner(future) }
    }
}

impl<F, B: Default + From<Bytes>> ChallengeFuture<F, B> {
    pub(super) fn answered(answered: Answered) -> Self {
        match answered {
            Ok(answer) => Self { kind: Kind::Answered(Some(Box::new(answer.into_response()))) },
            Err(refusal) => Self::rejected(refusal.into()),
        }
    }

    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self { kind: Kind::Answered(Some(Box::new(rejection.into_response()))) }
    }
}

impl<F, B, E> Future for ChallengeFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Inner(future) => future.poll(cx),
            KindProj::Answered(response) => {
                #[allow(clippy::expect_used)] // the contract of `Future`, as everywhere in std and futures
                let response = response.take().expect("polled after completion");
                Poll::Ready(Ok(*response))
            }
        }
    }
}
