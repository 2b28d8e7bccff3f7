//! From a source to a store.
//!
//! [`reflect`] ties a [`Source`] to a [`Store`]; the [`Reflector`] is the one task between them. What the source brings
//! is compiled when its bytes change and published one revision at a time. More than a few KiB are compiled on tokio's
//! blocking threads, so that requests do not wait for it; outside of a runtime of tokio, where the reflector runs.
//!
//! A value that does not compile touches only its own webhook: the last good value keeps serving
//! ([`OnInvalid::Keep`]), and the refusal is logged and shown in the store's [`status`](Store::status). A webhook that
//! never had a good value answers 503. So does one whose last good value is of another history of the source, such as before
//! a backup was restored: a history that is gone cannot revoke its tokens any more, so they must not let anybody in. And so
//! does one whose last good value was built with a connection that has changed or is gone since, or uses a variable that
//! belongs to a connection now: to take access away must have an effect. A connection that does not compile has not changed.

mod aside;
mod changes;
mod each;
mod feed;
mod links;
mod metrics;
mod published;
mod reasons;
mod replacement;
mod served;
mod settle;
mod source;

use crate::store::{Store, Writer, store};
use crate::webhook::{Compiler, Registry};

pub use self::feed::Feed;
pub use self::published::Change;
pub use self::replacement::Replacement;
pub use self::settle::OnInvalid;
pub use self::source::Source;

/// Ties `source` to a new store, whose webhooks may use what is in `registry`.
///
/// Nothing happens until the reflector is [`run`](Reflector::run).
pub fn reflect<S: Source>(source: S, registry: Registry) -> (Store, Reflector<S>) {
    let (store, writer) = store(S::NAME);
    let reflector = Reflector { source, compiler: Compiler::new(registry), writer, on_invalid: OnInvalid::default() };
    (store, reflector)
}

/// The task that keeps a store like its source.
#[derive(Debug)]
#[must_use = "nothing is loaded until it is run"]
pub struct Reflector<S> {
    source: S,
    compiler: Compiler,
    writer: Writer,
    on_invalid: OnInvalid,
}

impl<S: Source> Reflector<S> {
    /// What is served in place of a value that does not compile.
    pub fn on_invalid(mut self, on_invalid: OnInvalid) -> Self {
        self.on_invalid = on_invalid;
        self
    }

    /// Runs until the source ends, which only a fixed source does, and a live one once its last handle is dropped. Drop
    /// the future to stop; the store then keeps what it has.
    pub async fn run(self) {
        self.source.run(Feed::new(self.compiler, self.writer, self.on_invalid)).await;
    }
}
