//! The guards of a webhook, and those of a request that are still to be settled.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderValue;

use super::{AuthError, Proof, Scheme};
use crate::request::{Head, Rejection, RejectionKind};

/// The object-safe twin of [`Scheme`].
pub(crate) trait ErasedScheme: fmt::Debug + Send + Sync {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError>;
    fn check_call<'a>(&'a self, head: Head<'a>) -> BoxFuture<'a, Result<Proof, AuthError>>;
    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<(), AuthError>;
    fn challenge(&self, error: AuthError) -> HeaderValue;
}

impl<S: Scheme> ErasedScheme for S {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        Scheme::check_head(self, head)
    }

    fn check_call<'a>(&'a self, head: Head<'a>) -> BoxFuture<'a, Result<Proof, AuthError>> {
        Box::pin(Scheme::check_call(self, head))
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<(), AuthError> {
        Scheme::check_body(self, head, body)
    }

    fn challenge(&self, error: AuthError) -> HeaderValue {
        Scheme::challenge(self, error)
    }
}

/// The schemes that guard something: all of them must agree. None at all means open to everybody.
#[derive(Clone, Debug)]
pub(crate) struct Guards(Arc<[Arc<dyn ErasedScheme>]>);

impl Guards {
    pub(crate) fn new(schemes: Vec<Arc<dyn ErasedScheme>>) -> Self {
        Self(schemes.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the schemes that are not settled by the head. `follows` says which layers can settle them.
    pub(crate) fn check_head(&self, head: Head<'_>, follows: Follows) -> Result<Pending, Rejection> {
        let mut open = Vec::new();
        for scheme in self.0.iter() {
            let next = match scheme.check_head(head) {
                Ok(Proof::Complete) => continue,
                Ok(Proof::NeedsCall) => Next::Call { verify_body: follows.verify_body },
                Ok(Proof::NeedsBody) => Next::Body,
                Err(error) => return Err(refuse(&**scheme, error)),
            };
            open.push(Open { scheme: Arc::clone(scheme), next });
        }
        // After every scheme has been asked: a wrong credential is refused as such.
        for Open { next, .. } in &open {
            match next {
                Next::Call { .. } if !follows.call => return Err(Rejection::misassembled("CallAuth")),
                Next::Body if !follows.verify_body => return Err(Rejection::misassembled("VerifyBody")),
                _ => {}
            }
        }
        Ok(Pending(open))
    }
}

/// Which layers follow the one that judges the head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Follows {
    pub(crate) call: bool,
    pub(crate) verify_body: bool,
}

/// The schemes of a request that wait for a call or for the body.
#[derive(Clone, Debug)]
pub(crate) struct Pending(Vec<Open>);

#[derive(Clone, Debug)]
struct Open {
    scheme: Arc<dyn ErasedScheme>,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// `verify_body`: whether a layer follows that settles what needs the body after the call.
    Call {
        verify_body: bool,
    },
    Body,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn needs_call(&self) -> bool {
        self.0.iter().any(|open| matches!(open.next, Next::Call { .. }))
    }

    /// These and `more`, of another [`RequireAuth`](crate::layers::RequireAuth) layer of the stack.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Makes the calls, one after the other. Returns the schemes that wait for the body.
    pub(crate) async fn check_calls(&self, head: Head<'_>) -> Result<Self, Rejection> {
        let mut open = Vec::new();
        for Open { scheme, next } in &self.0 {
            if let Next::Call { verify_body } = *next {
                match scheme.check_call(head).await {
                    Ok(Proof::Complete) => continue,
                    Ok(Proof::NeedsBody) if verify_body => {}
                    Ok(Proof::NeedsBody) => return Err(Rejection::misassembled("VerifyBody")),
                    // A scheme that never comes to an end lets nobody in.
                    Ok(Proof::NeedsCall) => return Err(refuse(&**scheme, AuthError::Invalid)),
                    Err(error) => return Err(refuse(&**scheme, error)),
                }
            }
            open.push(Open { scheme: Arc::clone(scheme), next: Next::Body });
        }
        Ok(Self(open))
    }

    pub(crate) fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<(), Rejection> {
        if self.needs_call() {
            return Err(Rejection::misassembled("CallAuth"));
        }
        for Open { scheme, .. } in &self.0 {
            scheme.check_body(head, body).map_err(|error| refuse(&**scheme, error))?;
        }
        Ok(())
    }
}

fn refuse(scheme: &dyn ErasedScheme, error: AuthError) -> Rejection {
    match error {
        AuthError::Missing | AuthError::Invalid => Rejection::unauthenticated(scheme.challenge(error)),
        AuthError::Forbidden => RejectionKind::Forbidden.into(),
        AuthError::Unavailable => RejectionKind::AuthUnavailable.into(),
    }
}
