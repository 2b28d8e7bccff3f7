//! The layer that looks up the webhook's configuration for each request.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::{Evidence, Shows};
use crate::config::Target;
use crate::request::{Rejection, RejectionKind, ResponseFuture};
use crate::store::{Found, Revision, Store};
use crate::webhook::Webhook;

/// Looks up the webhook that a request is for.
///
/// The layer takes the [`Target`] of the request, finds the compiled [`Webhook`] in the store's current snapshot and
/// adds it to the request as [`Matched`](crate::Matched). Each request reads one snapshot, so a change of the
/// configuration in the middle of a request cannot mix two. All methods pass: put
/// [`RequirePost`](super::require_post::RequirePost), or a route of your own, before this layer.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | [`Target`] | [`Matched`](crate::Matched) | 404 unknown, 503 nothing loaded yet or no valid configuration |
///
/// ```
/// use std::time::Duration;
///
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::layers::{LookupWebhookLayer, RouteNamespaceLayer};
/// use tower_webhook::source::FixedSource;
/// use tower_webhook::{Matched, Registry, reflect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let source = FixedSource::new().webhook("shop", "orders", r#"{"module": "discard"}"#).unwrap();
/// let (store, reflector) = reflect(source, Registry::builtin());
/// tokio::spawn(reflector.run());
/// store.wait_ready(Duration::from_secs(10)).await.unwrap();
///
/// let service = ServiceBuilder::new()
///     .layer(RouteNamespaceLayer::from_path())
///     .layer(LookupWebhookLayer::new(store))
///     .service_fn(|req: Request<()>| async move {
///         let matched = Matched::of(req.extensions()).unwrap();
///         assert_eq!(matched.webhook().module_name(), "discard");
///         Ok::<_, std::convert::Infallible>(Response::new(()))
///     });
///
/// let status = |path: &str| {
///     let response = service.clone().oneshot(Request::post(path).body(()).unwrap());
///     async move { response.await.unwrap().status().as_u16() }
/// };
/// assert_eq!(status("/shop/orders").await, 200);
/// assert_eq!(status("/shop/nothing").await, 404);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LookupWebhookLayer {
    store: Store,
    shows: Shows,
}

impl LookupWebhookLayer {
    /// Looks webhooks up in `store`.
    pub fn new(store: Store) -> Self {
        Self { store, shows: Shows::Copy }
    }

    /// The same for a stack that ends in [`Dispatch`](super::dispatch::Dispatch): no handler extracts the webhook.
    pub(crate) fn without_handlers(store: Store) -> Self {
        Self { store, shows: Shows::Nothing }
    }
}

impl<S> Layer<S> for LookupWebhookLayer {
    type Service = LookupWebhook<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LookupWebhook { inner, store: self.store.clone(), shows: self.shows }
    }
}

/// Middleware applied by [`LookupWebhookLayer`].
#[derive(Clone, Debug)]
pub struct LookupWebhook<S> {
    inner: S,
    store: Store,
    shows: Shows,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for LookupWebhook<S>
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
    fn call(&mut self, mut req: Request<ReqBody>) -> Self::Future {
        match Evidence::look_up(req.extensions_mut(), self.shows, |target| find(&self.store, target)) {
            Ok(()) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

fn find(store: &Store, target: &Target) -> Result<(Arc<Webhook>, Revision), Rejection> {
    store.read(|snapshot| match snapshot.find(target) {
        Found::Serving(webhook) => Ok((Arc::clone(webhook), snapshot.revision())),
        Found::Fenced => Err(RejectionKind::Misconfigured.into()),
        Found::Unknown => Err(RejectionKind::UnknownWebhook.into()),
        Found::NotLoaded => Err(RejectionKind::NotReady.into()),
    })
}
