//! What a source pours into.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::OnInvalid;
use super::aside::Aside;
use super::changes::{Changes, Seen};
use super::each::for_each;
use super::links::{Compiled, Digest, Links, digest};
use super::reasons::Reasons;
use super::replacement::{Brought, Look, Looked, Replacement};
use crate::config::{CompileError, Compiler, Webhook};
use crate::key::{Key, WebhookKey};
#[cfg(feature = "etcd")]
use crate::store::Counts;
use crate::store::{IgnoredKey, Refusal, Revision, Slot, Snapshot, SourceReport, SourceState, Writer};
use crate::telemetry;

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

/// What makes the next snapshot from the one before.
struct Published {
    compiler: Compiler,
    writer: Arc<Writer>,
    on_invalid: OnInvalid,
    links: Links,
}

/// One key's new value.
#[derive(Clone)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The value; `None` when the key was deleted.
    pub value: Option<Bytes>,
}

impl Feed {
    pub(super) fn new(compiler: Compiler, writer: Writer, on_invalid: OnInvalid) -> Self {
        let (writer, links) = (Arc::new(writer), Links::default());
        let published = Published { compiler: compiler.clone(), writer: Arc::clone(&writer), on_invalid, links };
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
        let bytes = self.published.here().await.links.weight(&changes);
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
            telemetry::source_state(&state);
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
            telemetry::reported(report);
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

impl Published {
    fn commit(&mut self, looked: Looked, revision: Revision) {
        let Looked { mut draft, mut slots, before, connections, waiting, .. } = looked;
        let mut old = std::mem::take(&mut self.links);
        for (name, bytes, brought_at) in connections {
            if let Some(digest) = old.digests.get(&name) {
                self.links.digests.insert(name.clone(), *digest);
            }
            if let Some(connection) = old.connections.get(&name) {
                self.links.connections.insert(name.clone(), Arc::clone(connection));
            }
            let key = Key::Connection(name.clone());
            draft.set_refusal(key.clone(), before.refusal(&key).cloned());
            self.set_connection(&mut draft, brought_at, &name, Some(bytes));
        }
        let looks = for_each(&waiting, |Brought { key, bytes, .. }| {
            let digest = digest(bytes);
            match before.slot(key).filter(|slot| slot.digest == digest) {
                Some(slot) if self.links.are_as_before(&old, key) => Look::Same(slot),
                _ => Look::Compiled(digest, self.links.compile(&self.compiler, key, bytes)),
            }
        });
        for (Brought { key, revision, .. }, look) in waiting.into_iter().zip(looks) {
            let slot = match look {
                Look::Same(slot) => {
                    self.links.relink(&key, old.dependents.remove(&key));
                    take_over(&mut draft, &before, &key, slot)
                }
                Look::Compiled(digest, compiled) => {
                    let last_good = last_good(&before, &key, self.on_invalid);
                    self.settle(&mut draft, revision, &key, digest, compiled, last_good)
                }
            };
            slots.push((key, slot));
        }
        let changes = self.changes_of_all(&before, &draft, &old.digests, &slots);
        draft.fill(slots);
        self.publish(draft, revision, &changes);
    }

    fn apply(&mut self, revision: Revision, changes: Vec<Change>) {
        let before = self.writer.current();
        let mut draft = (*before).clone();
        let mut relinked = BTreeSet::new();
        let (mut connections, mut webhooks, mut touched) = (Vec::new(), Vec::new(), Vec::new());
        // Connections first: a webhook of the same revision may name them.
        for Change { key, value } in changes {
            match key {
                Key::Webhook(key) => webhooks.push((key, value)),
                Key::Connection(name) => {
                    connections.push((name.clone(), self.links.digests.get(&name).copied()));
                    if self.set_connection(&mut draft, revision, &name, value) {
                        relinked.insert(name);
                    }
                }
            }
        }
        for (key, value) in webhooks {
            touched.push(key.clone());
            self.set_webhook(&mut draft, revision, key, value);
        }
        touched.extend(self.rebuild_dependents(&mut draft, revision, &relinked));
        touched.sort_unstable();
        touched.dedup();
        let mut changes = Changes::default();
        for (name, digest) in &connections {
            self.note_connection(&mut changes, name, (&before, digest.as_ref()), &draft);
        }
        for key in &touched {
            changes.note_webhook(key, (&before, before.slot(key)), (&draft, draft.slot(key)));
        }
        self.publish(draft, revision, &changes);
    }

    fn advance(&mut self, revision: Revision) {
        let mut draft = (*self.writer.current()).clone();
        draft.finish(revision, self.links.connections.len());
        self.show(draft);
    }

    /// Returns whether the connection is another one now.
    fn set_connection(&mut self, draft: &mut Snapshot, revision: Revision, name: &str, value: Option<Bytes>) -> bool {
        let key = Key::Connection(name.into());
        let Some(bytes) = value else {
            self.links.digests.remove(name);
            draft.set_refusal(key, None);
            return self.links.connections.remove(name).is_some();
        };
        let digest = digest(&bytes);
        if self.links.digests.insert(name.into(), digest) == Some(digest) {
            return false;
        }
        match self.compiler.connection(name, &bytes) {
            Ok(connection) => {
                self.links.connections.insert(name.into(), Arc::new(connection));
                draft.set_refusal(key, None);
                true
            }
            Err(error) => {
                let fenced = self.on_invalid == OnInvalid::Fence && self.links.connections.remove(name).is_some();
                let serving = self.links.connections.contains_key(name);
                refuse(draft, key, revision, &error, serving);
                fenced
            }
        }
    }

    fn set_webhook(&mut self, draft: &mut Snapshot, revision: Revision, key: WebhookKey, value: Option<Bytes>) {
        let Some(bytes) = value else {
            self.links.dependents.remove(&key);
            draft.remove_slot(&key);
            draft.set_refusal(Key::Webhook(key), None);
            return;
        };
        let digest = digest(&bytes);
        if draft.slot(&key).is_some_and(|slot| slot.digest == digest) {
            return;
        }
        let compiled = self.links.compile(&self.compiler, &key, &bytes);
        let last_good = last_good(draft, &key, self.on_invalid);
        let slot = self.settle(draft, revision, &key, digest, compiled, last_good);
        draft.set_slot(key, slot);
    }

    /// Returns the keys of those that were built again.
    fn rebuild_dependents(
        &mut self,
        draft: &mut Snapshot,
        revision: Revision,
        relinked: &BTreeSet<Box<str>>,
    ) -> Vec<WebhookKey> {
        if relinked.is_empty() {
            return Vec::new();
        }
        let dependents = self.links.dependents.iter().filter(|(_, webhook)| !webhook.connections.is_disjoint(relinked));
        let dependents: Vec<_> = dependents.map(|(key, webhook)| (key.clone(), webhook.bytes.clone())).collect();
        let compiled =
            for_each(&dependents, |(key, bytes)| (digest(bytes), self.links.compile(&self.compiler, key, bytes)));
        let mut rebuilt = Vec::new();
        for ((key, _), (digest, compiled)) in dependents.into_iter().zip(compiled) {
            let last_good = last_good(draft, &key, self.on_invalid);
            let slot = self.settle(draft, revision, &key, digest, compiled, last_good);
            draft.set_slot(key.clone(), slot);
            rebuilt.push(key);
        }
        rebuilt
    }

    /// What becomes of a webhook that may name connections; `last_good` serves if it does not compile.
    fn settle(
        &mut self,
        draft: &mut Snapshot,
        revision: Revision,
        key: &WebhookKey,
        digest: Digest,
        Compiled { outcome, dependent }: Compiled,
        last_good: Option<Arc<Webhook>>,
    ) -> Slot {
        let slot = Slot { digest, linked: dependent.is_some(), serving: last_good };
        self.links.relink(key, dependent);
        settle(draft, revision, key, slot, outcome)
    }

    /// Makes the draft what readers and metrics see.
    fn show(&self, draft: Snapshot) {
        self.writer.publish(draft);
        telemetry::published(&self.writer.current());
    }

    /// The difference between everything before and everything now; `slots` are the webhooks now.
    fn changes_of_all(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        connections: &HashMap<Box<str>, Digest>,
        slots: &[(WebhookKey, Slot)],
    ) -> Changes {
        let mut changes = Changes::default();
        let names: BTreeSet<&Box<str>> = self.links.digests.keys().chain(connections.keys()).collect();
        for name in names {
            self.note_connection(&mut changes, name, (before, connections.get(name)), after);
        }
        let mut known = 0;
        for (key, slot) in slots {
            let old = before.slot(key);
            known += usize::from(old.is_some());
            changes.note_webhook(key, (before, old), (after, Some(slot)));
        }
        let all = before.counts();
        if known < all.webhooks + all.fenced {
            let kept: HashSet<&WebhookKey, RandomState> = slots.iter().map(|(key, _)| key).collect();
            for (key, slot) in before.slots().filter(|(key, _)| !kept.contains(key)) {
                changes.note_webhook(key, (before, Some(slot)), (after, None));
            }
        }
        changes
    }

    fn note_connection(
        &self,
        changes: &mut Changes,
        name: &str,
        (before, digest): (&Snapshot, Option<&Digest>),
        after: &Snapshot,
    ) {
        let key = Key::Connection(name.into());
        let before = Seen { digest, refusal: before.refusal(&key) };
        let after = Seen { digest: self.links.digests.get(name), refusal: after.refusal(&key) };
        changes.note(|| key.clone(), before, after);
    }

    fn publish(&self, mut draft: Snapshot, revision: Revision, changes: &Changes) {
        let first = !self.writer.current().is_loaded();
        draft.finish(revision, self.links.connections.len());
        let counts = draft.counts();
        self.show(draft);
        changes.log_refusals(revision);
        if first {
            tracing::info!(
                revision,
                webhooks = counts.webhooks,
                namespaces = counts.namespaces,
                connections = counts.connections,
                refused = counts.refused,
                warned = counts.warned,
                open = counts.open,
                "configuration loaded"
            );
        } else {
            changes.log_changes(revision);
        }
    }
}

// None of these shows a value: any of them may be a secret.

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.value.as_ref().map(Bytes::len);
        f.debug_struct("Change").field("key", &self.key).field("bytes", &bytes).finish()
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

/// Takes over what was served before.
pub(super) fn take_over(draft: &mut Snapshot, before: &Snapshot, key: &WebhookKey, slot: &Slot) -> Slot {
    let key = Key::Webhook(key.clone());
    let refusal = before.refusal(&key).cloned();
    draft.set_refusal(key, refusal);
    slot.clone()
}

/// What goes on serving if a new value does not compile.
pub(super) fn last_good(before: &Snapshot, key: &WebhookKey, on_invalid: OnInvalid) -> Option<Arc<Webhook>> {
    let serving = before.slot(key).and_then(|slot| slot.serving.clone());
    serving.filter(|_| on_invalid == OnInvalid::Keep)
}

/// What becomes of a webhook whose bytes have been compiled; the draft learns of a refusal. `slot` holds what serves if
/// nothing better came.
pub(super) fn settle(
    draft: &mut Snapshot,
    revision: Revision,
    key: &WebhookKey,
    mut slot: Slot,
    outcome: Result<Arc<Webhook>, CompileError>,
) -> Slot {
    let name = Key::Webhook(key.clone());
    match outcome {
        Ok(webhook) => {
            for warning in webhook.warnings() {
                tracing::warn!(key = %name, revision, warning, "configuration taken with a warning");
            }
            draft.set_refusal(name, None);
            slot.serving = Some(webhook);
        }
        Err(error) => refuse(draft, name, revision, &error, slot.serving.is_some()),
    }
    slot
}

fn refuse(draft: &mut Snapshot, key: Key, revision: Revision, error: &CompileError, serving: bool) {
    draft.set_refusal(key, Some(Arc::new(Refusal { reason: error.to_string(), revision, serving })));
}
