//! Keeps a store up to date with a source.
//!
//! [`reflect`] connects a [`Source`] to a new [`Store`], and the [`Reflector`] is the task between them. A value is
//! compiled when its bytes change, and the snapshot is published one revision at a time. More than a few KiB are
//! compiled on tokio's blocking threads, so that requests do not wait; without a tokio runtime, on the thread that runs
//! the reflector.
//!
//! A value that does not compile affects only its own webhook: the last good value keeps being served
//! ([`OnInvalid::Keep`]), and the refusal is logged and shown in the store's [`status`](Store::status). The webhook
//! answers 503 when no earlier value may be served:
//!
//! * It never had a good value.
//! * Its last good value belongs to an earlier history of the source, such as before a backup was restored. A token in
//!   that value can no longer be revoked, so it must not let anybody in.
//! * Its last good value was built with a connection that has changed or is gone, or uses a variable that a connection
//!   now reserves. Taking access away must have an effect. A connection whose newest value does not compile has not
//!   changed.

mod aside;
mod changes;
mod each;
mod feed;
mod links;
mod metrics;
mod published;
mod reasons;
mod replacement;
mod secret_files;
mod served;
mod settle;
mod source;

use self::secret_files::follow;
use crate::store::{Store, Writer, store};
use crate::webhook::{Compiler, Registry};

pub use self::feed::Feed;
pub use self::published::Change;
pub use self::replacement::Replacement;
pub use self::settle::OnInvalid;
pub use self::source::Source;

/// Connects `source` to a new store, whose webhooks may use the contents of `registry`.
///
/// Nothing happens until the reflector is [`run`](Reflector::run).
pub fn reflect<S: Source>(source: S, registry: Registry) -> (Store, Reflector<S>) {
    let (store, writer) = store(S::NAME);
    let reflector = Reflector { source, compiler: Compiler::new(registry), writer, on_invalid: OnInvalid::default() };
    (store, reflector)
}

/// The task that keeps a store up to date with its source.
#[derive(Debug)]
#[must_use = "nothing is loaded until it is run"]
pub struct Reflector<S> {
    source: S,
    compiler: Compiler,
    writer: Writer,
    on_invalid: OnInvalid,
}

impl<S: Source> Reflector<S> {
    /// Sets the value that is served in place of one that does not compile. The default is [`OnInvalid::Keep`].
    pub fn on_invalid(mut self, on_invalid: OnInvalid) -> Self {
        self.on_invalid = on_invalid;
        self
    }

    /// Runs until the source ends. Only a fixed source does, and a live one once its last handle is dropped. With a
    /// [directory of secrets](Registry::secrets_dir), whose files may always change, it never ends. Drop the future to stop;
    /// the store then keeps its last snapshot.
    pub async fn run(self) {
        let files = self.compiler.files().cloned();
        let feed = Feed::new(self.compiler, self.writer, self.on_invalid);
        match files {
            None => self.source.run(feed).await,
            Some(files) => {
                let following = follow(files, feed.published());
                tokio::join!(self.source.run(feed), following);
            }
        }
    }
}
