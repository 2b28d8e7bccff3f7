//! The layer that finds out which webhook a request is for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::evidence::Evidence;
use super::observe::Asked;
use crate::config::{InvalidName, Target, key};
use crate::request::{Head, Rejection, RejectionKind, ResponseFuture};

/// Finds out which webhook a request is for.
///
/// The layer reads the path `/{id}` or `/{namespace}/{id}`, and adds a [`Target`] to the request. The URI is not
/// changed.
///
/// | needs | establishes | refuses |
/// |---|---|---|
/// | a path | [`Target`] | 400 an invalid name, 404 another shape of path |
///
/// A short path belongs to the default namespace:
///
/// ```
/// use http::{Request, Response};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_webhook::config::Target;
/// use tower_webhook::layers::RouteNamespaceLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(RouteNamespaceLayer::from_path().prefix("/webhook"))
///     .service_fn(|req: Request<()>| async move {
///         let target = Target::of(req.extensions()).unwrap();
///         assert_eq!((target.namespace(), target.id()), ("default", "orders"));
///         Ok::<_, std::convert::Infallible>(Response::new(()))
///     });
///
/// let request = Request::post("/webhook/orders").body(()).unwrap();
/// assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 200);
///
/// let request = Request::post("/webhook/shop/or%2Fders").body(()).unwrap();
/// assert_eq!(service.oneshot(request).await.unwrap().status(), 400);
/// # }
/// ```
///
/// In front of a route of your own, name the webhook instead: `RouteNamespaceLayer::fixed("shop", "orders")?`; or
/// compute it with [`RouteNamespaceLayer::from_fn`].
#[derive(Clone, Debug)]
pub struct RouteNamespaceLayer {
    // Shared, because servers clone the service for each request.
    select: Arc<Select>,
}

#[derive(Clone)]
enum Select {
    Path { prefix: Arc<str>, default_namespace: Arc<str> },
    Fixed(Target),
    Function(Arc<dyn Fn(Head<'_>) -> Result<Target, Rejection> + Send + Sync>),
}

impl RouteNamespaceLayer {
    /// Takes the webhook from the path: `/{id}` in the namespace `default`, or `/{namespace}/{id}`.
    pub fn from_path() -> Self {
        Self::new(Select::Path { prefix: "".into(), default_namespace: "default".into() })
    }

    /// Sets a prefix of every path, such as `/webhook`, for a service that is not mounted below a path.
    ///
    /// This affects only [`from_path`](Self::from_path). Other paths are refused with 404.
    #[must_use]
    pub fn prefix(mut self, path: &str) -> Self {
        if let Select::Path { prefix, .. } = Arc::make_mut(&mut self.select) {
            *prefix = path.trim_end_matches('/').into();
        }
        self
    }

    /// Sets the namespace of paths that name none. The default is `default`.
    ///
    /// This affects only [`from_path`](Self::from_path).
    ///
    /// # Errors
    ///
    /// When it is not a valid namespace.
    pub fn default_namespace(mut self, namespace: &str) -> Result<Self, InvalidName> {
        key::validate_namespace(namespace)?;
        if let Select::Path { default_namespace, .. } = Arc::make_mut(&mut self.select) {
            *default_namespace = namespace.into();
        }
        Ok(self)
    }

    /// Every request is for the same webhook, whatever its path.
    ///
    /// # Errors
    ///
    /// When one of the two is not a valid name.
    pub fn fixed(namespace: &str, id: &str) -> Result<Self, InvalidName> {
        Ok(Self::new(Select::Fixed(Target::new(namespace, id)?)))
    }

    /// Computes the webhook from the request's head with `f`.
    pub fn from_fn<F>(f: F) -> Self
    where
        F: Fn(Head<'_>) -> Result<Target, Rejection> + Send + Sync + 'static,
    {
        Self::new(Select::Function(Arc::new(f)))
    }

    fn new(select: Select) -> Self {
        Self { select: Arc::new(select) }
    }
}

impl fmt::Debug for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { prefix, default_namespace } => write!(f, "Path({prefix:?}, {default_namespace:?})"),
            Self::Fixed(target) => write!(f, "Fixed({target:?})"),
            Self::Function(_) => f.write_str("Function"),
        }
    }
}

impl<S> Layer<S> for RouteNamespaceLayer {
    type Service = RouteNamespace<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RouteNamespace { inner, select: Arc::clone(&self.select) }
    }
}

/// Middleware applied by [`RouteNamespaceLayer`].
#[derive(Clone, Debug)]
pub struct RouteNamespace<S> {
    inner: S,
    select: Arc<Select>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RouteNamespace<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RouteNamespaceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut req: Request<ReqBody>) -> Self::Future {
        match self.select.target(Head::of(&req)) {
            Ok(target) => {
                Evidence::set_target(req.extensions_mut(), target);
                RouteNamespaceFuture {
                    asked: Asked::webhook(target),
                    inner: ResponseFuture::inner(self.inner.call(req)),
                }
            }
            Err(rejection) => RouteNamespaceFuture {
                asked: Asked::path(req.uri().path()),
                inner: ResponseFuture::rejected(rejection),
            },
        }
    }
}

/// Response future of [`RouteNamespace`].
#[pin_project]
#[derive(Debug)]
pub struct RouteNamespaceFuture<F> {
    asked: Option<Asked>,
    #[pin]
    inner: ResponseFuture<F>,
}

impl<F, B, E> Future for RouteNamespaceFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.asked.is_none() {
            return this.inner.poll(cx);
        }
        let mut polled = this.inner.poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled {
            Asked::attach(this.asked, response.extensions_mut());
        }
        polled
    }
}

impl Select {
    fn target(&self, head: Head<'_>) -> Result<Target, Rejection> {
        match self {
            Self::Path { prefix, default_namespace } => {
                let path = head.uri.path().strip_prefix(&**prefix).ok_or(RejectionKind::NoRoute)?;
                parse_path(path, default_namespace)
            }
            Self::Fixed(target) => Ok(*target),
            Self::Function(f) => f(head),
        }
    }
}

#[inline]
fn parse_path(path: &str, default_namespace: &str) -> Result<Target, Rejection> {
    let rest = path.strip_prefix('/').ok_or(RejectionKind::NoRoute)?;
    // Not `split_once`, which is slower for short texts.
    let (namespace, id) = match rest.bytes().position(|byte| byte == b'/') {
        Some(slash) => (&rest[..slash], &rest[slash + 1..]),
        None => (default_namespace, rest),
    };
    match Target::new(namespace, id) {
        Ok(target) => Ok(target),
        Err(_) if namespace.is_empty() || id.is_empty() || id.contains('/') => Err(no_route(rest)),
        Err(invalid) => Err(Rejection::with_detail(RejectionKind::InvalidName, invalid.to_string())),
    }
}

/// A path that is accepted names exactly the webhook it was written for.
#[cfg(fuzzing)]
pub(crate) fn fuzz(path: &[u8]) {
    let Ok(path) = std::str::from_utf8(path) else { return };
    let Ok(target) = parse_path(path, "default") else { return };
    let long = format!("/{}/{}", target.namespace(), target.id());
    let is_short = target.namespace() == "default" && path == format!("/{}", target.id());
    assert!(path == long || is_short);
}

/// The refusal of a path, with a hint if only the slashes at its end are wrong.
fn no_route(rest: &str) -> Rejection {
    let meant = rest.trim_end_matches('/');
    let is_route = !meant.is_empty() && meant.split('/').count() <= 2 && !meant.starts_with('/');
    match rest.len() > meant.len() && is_route {
        true => Rejection::with_detail(RejectionKind::NoRoute, "Not Found: remove the slash at the end of the path"),
        false => RejectionKind::NoRoute.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(path: &str) -> RejectionKind {
        parse_path(path, "default").unwrap_err().kind()
    }

    #[test]
    fn both_forms_are_read() {
        let short = parse_path("/orders", "shop").unwrap();
        let long = parse_path("/shop/orders", "default").unwrap();
        assert_eq!(short, long);
    }

    #[test]
    fn paths_of_another_shape_are_refused() {
        for path in ["", "/", "//", "/a/", "//a", "/a/b/c", "/a//b", "orders"] {
            assert_eq!(kind(path), RejectionKind::NoRoute, "{path:?}");
        }
    }

    #[test]
    fn the_refusal_of_a_trailing_slash_says_so() {
        let detail = |path: &str| parse_path(path, "default").unwrap_err().detail().to_owned();
        for path in ["/a/", "/a/b/", "/a//", "/a/b//"] {
            assert_eq!(detail(path), "Not Found: remove the slash at the end of the path", "{path}");
        }
        for path in ["/", "//", "///", "//a/", "/a/b/c/", "/a//b/", "/a/b/c"] {
            assert_eq!(detail(path), "Not Found", "{path}");
        }
    }

    #[test]
    fn bad_names_are_refused_undecoded() {
        for path in ["/a%2Fb", "/%61", "/..", "/./a", "/a b", "/a;b", "/stats", "/ns/-a", "/n%73/a", "/ü/a"] {
            assert_eq!(kind(path), RejectionKind::InvalidName, "{path:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let RouteNamespaceLayer { select } = RouteNamespaceLayer::from_path().prefix("/webhook/");
        let target = |path: &str| {
            let req = Request::post(path).body(()).unwrap();
            select.target(Head::of(&req)).map_err(|rejection| rejection.kind())
        };
        assert_eq!(target("/webhook/a").unwrap().id(), "a");
        for path in ["/webhooka", "/web/a", "/a", "/webhook"] {
            assert_eq!(target(path), Err(RejectionKind::NoRoute), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_read_as_it_was_written(path in "/[a-z0-9/_%.-]{0,140}") {
            if let Ok(target) = parse_path(&path, "default") {
                let long = format!("/{}/{}", target.namespace(), target.id());
                let short = format!("/{}", target.id());
                prop_assert!(path == long || (path == short && target.namespace() == "default"));
            }
        }
    }
}
