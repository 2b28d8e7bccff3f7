//! What a source pours into.

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
/// A source first brings everything there is with [`replace`](Self::replace), then each change with
/// [`apply`](Self::apply), and says in between how it is doing with [`state`](Self::state).
///
/// What has more than 16 KiB is compiled on one of tokio's blocking threads, and waited for. If a future of this type is
/// dropped after it was polled, what it has begun may be published all the same, in its order: whatever is called next
/// waits for that.
pub struct Feed {
    published: Aside<Published>,
    compiler: Compiler,
    on_invalid: OnInvalid,
    writer: Arc<Writer>,
    reasons: Reasons,
}

impl Feed {
    pub(super) fn new(compiler: Compiler, writer: Writer, on_invalid: OnInvalid) -> Self {
        let writer = Arc::new(writer);
        let published = Published::new(compiler.clone(), Arc::clone(&writer), on_invalid);
        Self { published: Aside::new(published), compiler, on_invalid, writer, reasons: Reasons::default() }
    }

    /// Begins to replace everything. Readers see nothing of it before [`commit`](Self::commit).
    pub async fn replace(&mut self) -> Replacement {
        self.published.here().await;
        Replacement::new(self.compiler.clone(), self.on_invalid, self.writer.current())
    }

    /// Publishes what was brought as the state at `revision`: what was not brought is gone.
    pub async fn commit(&mut self, replacement: Replacement, revision: Revision) {
        let (mut looked, brought, bytes) = replacement.into_parts().await;
        let work = move |published: &mut Published| {
            looked.look_through(brought);
            published.commit(looked, revision);
        };
        self.published.work(bytes, work).await;
    }

    /// Applies changes, in order, and publishes them all at once as `revision`.
    pub async fn apply(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change> + Send) {
        let changes: Vec<Change> = changes.into_iter().collect();
        let bytes = self.published.here().await.weight(&changes);
        self.published.work(bytes, move |published| published.apply(revision, changes)).await;
    }

    /// Says that nothing but the revision has changed: the source is known to hold at `revision` what it held before.
    pub async fn advance(&mut self, revision: Revision) {
        self.published.here().await.advance(revision);
    }

    /// Says how the source is doing. A change is logged once; so is another reason, unless it was logged within the last
    /// minute.
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

    /// Says how many keys the source holds that are neither a webhook's nor a connection's, and lists some of them.
    pub fn ignored_keys(&mut self, total: u64, listed: Vec<IgnoredKey>) {
        self.writer.set_ignored(total, listed);
    }

    /// Changes what the source tells of itself beside its state.
    pub fn report(&mut self, change: impl FnOnce(&mut SourceReport)) {
        self.writer.report(|report| {
            change(report);
            metrics::reported(report);
        });
    }

    /// Waits until somebody waits for what only [`proven`](Self::proven) can say. Nothing is lost when it is dropped.
    pub async fn wanted(&self) {
        self.writer.wanted().await;
    }

    /// How many webhooks and connections there are.
    #[cfg(feature = "etcd")]
    pub(crate) fn counts(&self) -> Counts {
        self.writer.current().counts()
    }

    /// Whether the newest value of `key` is refused and an earlier one serves in its place.
    pub fn is_serving_last_good(&self, key: &Key) -> bool {
        self.writer.current().refusal(key).is_some_and(|refusal| refusal.is_serving_last_good())
    }

    /// Says that what is published was what the source held at `at`.
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
