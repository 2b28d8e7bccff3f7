//! The interface through which a source delivers configuration to a store.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::aside::Aside;
use super::metrics;
use super::published::{Change, Published};
use super::reasons::Reasons;
use super::replacement::Replacement;
use super::settle::OnInvalid;
use crate::config::Key;
#[cfg(feature = "etcd")]
use crate::store::Counts;
use crate::store::{IgnoredKey, Revision, SourceReport, SourceState, Writer};
use crate::webhook::Compiler;

/// The write end of a store, for a [`Source`](super::Source).
///
/// A source first delivers everything with [`replace`](Self::replace), then each change with [`apply`](Self::apply),
/// and reports its own state with [`state`](Self::state).
///
/// More than 16 KiB of values are compiled on one of tokio's blocking threads, and waited for. If a future of this type
/// is dropped after its first poll, the work that it has started may still be published, in order: the next call waits
/// for it.
pub struct Feed {
    published: Shared,
    compiler: Compiler,
    on_invalid: OnInvalid,
    writer: Arc<Writer>,
    reasons: Reasons,
}

/// The published state, which the source and the secret files change, one after the other.
pub(super) type Shared = Arc<Lock<Aside<Published>>>;

/// Locked while a change is compiled, perhaps on another thread: the next change waits.
#[allow(clippy::disallowed_types)]
type Lock<T> = tokio::sync::Mutex<T>;

impl Feed {
    pub(super) fn new(compiler: Compiler, writer: Writer, on_invalid: OnInvalid) -> Self {
        let writer = Arc::new(writer);
        let published = Published::new(compiler.clone(), Arc::clone(&writer), on_invalid);
        Self {
            published: Arc::new(Lock::new(Aside::new(published))),
            compiler,
            on_invalid,
            writer,
            reasons: Reasons::default(),
        }
    }

    pub(super) fn published(&self) -> Shared {
        Arc::clone(&self.published)
    }

    /// Starts a replacement of everything. Readers see nothing of it before [`commit`](Self::commit).
    pub async fn replace(&mut self) -> Replacement {
        self.published.lock().await.here().await;
        Replacement::new(self.compiler.clone(), self.on_invalid, self.writer.current())
    }

    /// Publishes `replacement` as the state at `revision`. Keys that are not in it are gone.
    pub async fn commit(&mut self, replacement: Replacement, revision: Revision) {
        let (mut looked, brought, bytes) = replacement.into_parts().await;
        let work = move |published: &mut Published| {
            looked.look_through(brought);
            published.commit(looked, revision);
        };
        self.published.lock().await.work(bytes, work).await;
    }

    /// Applies changes, in order, and publishes them all at once as `revision`.
    pub async fn apply(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change> + Send) {
        let changes: Vec<Change> = changes.into_iter().collect();
        let mut published = self.published.lock().await;
        let bytes = published.here().await.weight(&changes);
        published.work(bytes, move |published| published.apply(revision, changes)).await;
    }

    /// Reports that only the revision has changed: at `revision`, the source holds the same configuration as before.
    pub async fn advance(&mut self, revision: Revision) {
        self.published.lock().await.here().await.advance(revision);
    }

    /// Reports the state of the source. A change of state is logged once. Another reason for the same state is logged
    /// too, unless it was logged within the last minute.
    pub fn state(&mut self, state: SourceState) {
        let before = self.writer.set_state(state.clone());
        let now = Instant::now();
        if before.label() != state.label() {
            metrics::source_state(&state);
            if let Some(reason) = state.reason() {
                self.reasons.name(now, reason);
            }
        } else if !state.reason().is_some_and(|reason| self.reasons.is_news(now, reason)) {
            tracing::debug!(reason = state.reason(), "still {}", state.label());
            return;
        }
        let loaded = self.writer.current().is_loaded();
        match state {
            SourceState::Starting => {}
            SourceState::Live => tracing::info!("the configuration is live"),
            SourceState::Stale => tracing::warn!("the source of the configuration is silent; asking it"),
            SourceState::Disconnected(reason) if loaded => {
                tracing::warn!(reason, "cannot follow the configuration; the last one is served");
            }
            SourceState::Disconnected(reason) => tracing::warn!(reason, "cannot load the configuration; trying again"),
        }
    }

    /// Reports how many keys the source holds that are neither a webhook's nor a connection's, and lists some of them.
    pub fn ignored_keys(&mut self, total: u64, listed: Vec<IgnoredKey>) {
        self.writer.set_ignored(total, listed);
    }

    /// Changes the facts that the source reports beside its state.
    pub fn report(&mut self, change: impl FnOnce(&mut SourceReport)) {
        self.writer.report(|report| {
            change(report);
            metrics::reported(report);
        });
    }

    /// Waits until a reader needs a proof, which only [`proven`](Self::proven) can give. The future may be dropped and
    /// called again without losing a request.
    pub async fn wanted(&self) {
        self.writer.wanted().await;
    }

    /// The number of webhooks and connections.
    #[cfg(feature = "etcd")]
    pub(crate) fn counts(&self) -> Counts {
        self.writer.current().counts()
    }

    /// Whether the newest value of `key` was refused and an earlier one is served in its place.
    pub fn is_serving_last_good(&self, key: &Key) -> bool {
        self.writer.current().refusal(key).is_some_and(|refusal| refusal.is_serving_last_good())
    }

    /// Reports a proof: the published configuration is the one that the source held at `at`.
    pub fn proven(&mut self, at: Instant) {
        self.writer.set_proven(at);
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("revision", &self.writer.current().revision()).finish_non_exhaustive()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.state(SourceState::Disconnected("the source panicked, and follows nothing any more".to_owned()));
        }
    }
}
