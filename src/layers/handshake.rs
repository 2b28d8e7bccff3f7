//! The layer that answers challenges before the guards.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::challenge_future::ChallengeFuture;
use super::checks::{Check, Checked, Verdict};
use super::evidence::{Established, Evidence};
use crate::handshake::Handshake;
use crate::request::{Head, Rejection, RejectionKind};

/// Answers challenges before the guards.
///
/// [`HandshakeLayer`] answers the GET, HEAD or OPTIONS by which a provider checks an address, and passes POST on. It refuses
/// any other method, and GET at a webhook without such a [`Handshake`]. Signed challenges come by POST:
/// [`Challenge`](super::challenge::Challenge) answers them, behind the guards.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | [`Matched`](crate::Matched), unless the handshake is fixed | the evidence that this step ran; only POST passes | 405; 400 a malformed challenge, 403 a wrong token |
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
        AnswerHandshake { checked: Checked::new(inner, (self.clone(),)) }
    }
}

/// Middleware applied by [`HandshakeLayer`].
#[derive(Clone, Debug)]
pub struct AnswerHandshake<S> {
    checked: Checked<S, (HandshakeLayer,)>,
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
        Service::<Request<ReqBody>>::poll_ready(&mut self.checked, cx)
    }

    #[inline]
    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        self.checked.call(req)
    }
}

impl<B> Check<B> for HandshakeLayer {
    fn check(&self, evidence: &Evidence, head: Head<'_>, _: &B) -> Result<Verdict, Rejection> {
        let handshake = match &self.fixed {
            Some(handshake) => Some(handshake),
            None => evidence.webhook()?.handshake(),
        };
        if let Some(answered) = handshake.and_then(|handshake| handshake.answer_head(head)) {
            return Ok(Verdict::Answer(Box::new(answered)));
        }
        if *head.method != Method::POST {
            return Err(not_allowed(handshake));
        }
        Ok(match handshake.is_some_and(Handshake::is_of_head) && self.fixed.is_none() {
            true => Verdict::Establish(Established::Greeted),
            false => Verdict::Pass,
        })
    }
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
