//! The guards of a webhook, and those of a request that still have to see its body.

use std::sync::Arc;

use super::{AuthError, Proof, Scheme};
use crate::head::Head;
use crate::rejection::Rejection;

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
    pub(super) fn check_head(&self, head: Head<'_>) -> Result<Pending, Rejection> {
        let mut unproven = Vec::new();
        for scheme in self.0.iter() {
            match scheme.check_head(head) {
                Ok(Proof::Complete) => {}
                Ok(Proof::NeedsBody) => unproven.push(Arc::clone(scheme)),
                Err(error) => return Err(refuse(&**scheme, error)),
            }
        }
        Ok(Pending(unproven))
    }
}

/// The schemes that wait for the body, between the two authentication layers.
#[derive(Clone, Debug)]
pub(crate) struct Pending(Vec<Arc<dyn Scheme>>);

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and `more`, of another [`RequireAuth`](super::RequireAuth) layer of the stack.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    pub(super) fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<(), Rejection> {
        for scheme in &self.0 {
            scheme.check_body(head, body).map_err(|error| refuse(&**scheme, error))?;
        }
        Ok(())
    }
}

fn refuse(scheme: &dyn Scheme, error: AuthError) -> Rejection {
    Rejection::unauthenticated(scheme.challenge(error))
}
