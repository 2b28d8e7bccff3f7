//! Alternatives that a program constructs itself.

use std::fmt;
use std::sync::Arc;

use super::Scheme;
use super::guards::{Guard, Guards};

/// Alternatives, one of which must let the request in. The key `any_of` does the same for a webhook.
///
/// ```
/// use tower_webhook::layers::RequireAuthLayer;
/// use tower_webhook::auth::{AnyOf, Bearer, HeaderAuth, QueryAuth};
///
/// // A token, or else a key in the query together with another one in a header.
/// let schemes = AnyOf::of(Bearer::new("a token of 128 bits")?)
///     .or(QueryAuth::new("key", "a key of 128 bits")?)
///     .and(HeaderAuth::new("x-sender", "another of 128 bits")?);
/// let guard = RequireAuthLayer::any_of(schemes);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone)]
pub struct AnyOf {
    settled: Vec<Guards>,
    last: Vec<Guard>,
}

impl AnyOf {
    /// Begins with one alternative.
    pub fn of(scheme: impl Scheme) -> Self {
        Self { settled: Vec::new(), last: vec![guard(scheme)] }
    }

    /// Adds an alternative.
    #[must_use]
    pub fn or(mut self, scheme: impl Scheme) -> Self {
        self.settled.push(Guards::new(std::mem::take(&mut self.last)));
        self.last.push(guard(scheme));
        self
    }

    /// Adds a scheme to the last alternative: all its schemes must let the request in.
    #[must_use]
    pub fn and(mut self, scheme: impl Scheme) -> Self {
        self.last.push(guard(scheme));
        self
    }

    pub(crate) fn into_guard(mut self) -> Guard {
        self.settled.push(Guards::new(self.last));
        Guard::any_of(self.settled)
    }
}

fn guard(scheme: impl Scheme) -> Guard {
    Guard::new(scheme.label(), Arc::new(scheme))
}

impl fmt::Debug for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.settled).entry(&self.last).finish()
    }
}
