//! The layer that judges the head.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::{AuthError, Permit, Proof, Scheme};
use crate::future::ResponseFuture;
use crate::head::Head;
use crate::lookup::Matched;
use crate::rejection::Rejection;

/// Refuses requests that do not prove who sent them. See the [module docs](super) for an example.
#[derive(Clone, Debug)]
pub struct RequireAuthLayer {
    select: Select,
}

#[derive(Clone, Debug)]
enum Select {
    Fixed(Guards),
    Matched,
}

impl RequireAuthLayer {
    /// Requires the same `scheme` of every request.
    pub fn new(scheme: impl Scheme) -> Self {
        Self { select: Select::Fixed(Guards::new(vec![Arc::new(scheme)])) }
    }

    /// Requires what the matched webhook's configuration asks for: every one of its guards.
    pub fn from_webhook() -> Self {
        Self { select: Select::Matched }
    }
}

impl<S> Layer<S> for RequireAuthLayer {
    type Service = RequireAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireAuth { inner, select: self.select.clone() }
    }
}

/// Middleware applied by [`RequireAuthLayer`].
#[derive(Clone, Debug)]
pub struct RequireAuth<S> {
    inner: S,
    select: Select,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireAuth<S>
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

    fn call(&mut self, mut req: Request<ReqBody>) -> Self::Future {
        match self.select.check(&mut req) {
            Ok(()) => ResponseFuture::inner(self.inner.call(req)),
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

impl Select {
    fn check<B>(&self, req: &mut Request<B>) -> Result<(), Rejection> {
        let head = Head::of(req);
        let guards = match self {
            Self::Fixed(guards) => guards,
            Self::Matched => Matched::of(head.extensions)?.webhook().guards(),
        };
        let unproven = guards.check_head(head)?;
        if unproven.is_empty() {
            Permit::grant(req.extensions_mut());
        } else {
            Pending::add(req.extensions_mut(), unproven);
        }
        Ok(())
    }
}

/// The schemes that guard something: all of them must agree. None at all means open to everybody.
#[derive(Clone, Debug)]
pub(crate) struct Guards(Arc<[Arc<dyn Scheme>]>);

impl Guards {
    pub(crate) fn new(schemes: Vec<Arc<dyn Scheme>>) -> Self {
        Self(schemes.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the schemes that must see the body too.
    fn check_head(&self, head: Head<'_>) -> Result<Vec<Arc<dyn Scheme>>, Rejection> {
        let mut unproven = Vec::new();
        for scheme in self.0.iter() {
            match scheme.check_head(head) {
                Ok(Proof::Complete) => {}
                Ok(Proof::NeedsBody) => unproven.push(Arc::clone(scheme)),
                Err(error) => return Err(refuse(&**scheme, error)),
            }
        }
        Ok(unproven)
    }
}

/// The schemes that wait for the body, in a request's extensions between the two authentication layers.
#[derive(Clone, Debug)]
pub(crate) struct Pending(Vec<Arc<dyn Scheme>>);

impl Pending {
    /// Adds to what other [`RequireAuth`] layers of the stack left open.
    fn add(extensions: &mut Extensions, unproven: Vec<Arc<dyn Scheme>>) {
        match extensions.get_mut::<Self>() {
            Some(pending) => pending.0.extend(unproven),
            None => {
                extensions.insert(Self(unproven));
            }
        }
    }

    pub(super) fn is_some(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some()
    }

    pub(super) fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<(), Rejection> {
        for scheme in &self.0 {
            scheme.check_body(head, body).map_err(|error| refuse(&**scheme, error))?;
        }
        Ok(())
    }

    pub(crate) fn forget(extensions: &mut Extensions) {
        extensions.remove::<Self>();
    }
}

fn refuse(scheme: &dyn Scheme, error: AuthError) -> Rejection {
    Rejection::unauthenticated(scheme.challenge(error))
}
