//! Makes the next snapshot from the current one, and publishes it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::changes::{Changes, Seen};
use super::each::for_each;
use super::links::{Compiled, Digest, Links, Set, digest};
use super::metrics;
use super::replacement::{Brought, Look, Looked};
use super::settle::{LastGood, OnInvalid, last_good, refuse, settle, slot, take_over, withdraw_last_good};
use crate::config::{Key, Variables, WebhookKey};
use crate::store::{Revision, Slot, Snapshot, Writer};
use crate::webhook::Compiler;

/// One key's new value.
#[derive(Clone)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The value; `None` when the key was deleted.
    pub value: Option<Bytes>,
}

/// The state that is published, and all that is needed to make the next snapshot.
pub(super) struct Published {
    compiler: Compiler,
    writer: Arc<Writer>,
    on_invalid: OnInvalid,
    links: Links,
}

impl Published {
    pub(super) fn new(compiler: Compiler, writer: Arc<Writer>, on_invalid: OnInvalid) -> Self {
        Self { compiler, writer, on_invalid, links: Links::default() }
    }

    /// The number of bytes that these changes make it compile, including the webhooks that depend on changed
    /// connections.
    pub(super) fn weight(&self, changes: &[Change]) -> usize {
        let values = changes.iter().filter_map(|change| change.value.as_ref()).map(Bytes::len).sum::<usize>();
        // A changed connection may name a variable that any of the dependents uses.
        match changes.iter().any(|change| matches!(change.key, Key::Connection(_))) {
            true => values + self.weight_of_dependents(),
            false => values,
        }
    }

    /// Publishes a complete replacement.
    pub(super) fn commit(&mut self, looked: Looked, revision: Revision) {
        let Looked { begins_history, mut draft, mut slots, connections, waiting, .. } = looked;
        // Compared with the current state, not with that at the start of the replacement: secret files may have changed
        // since.
        let before = self.writer.current();
        let mut old = std::mem::take(&mut self.links);
        for (name, (bytes, brought_at)) in connections {
            let key = Key::Connection(name.clone());
            let refused = before.refusal(&key);
            // In a new history, only a connection that is valid and unchanged stays in use.
            if !begins_history || (refused.is_none() && old.digests.get(&name) == Some(&digest(&bytes))) {
                self.links.carry_over(&old, &name);
                draft.set_refusal(key, refused.cloned());
            }
            self.set_connection(&mut draft, brought_at, &name, Some(bytes));
        }
        self.links.reserve();
        let waiting: Vec<_> = waiting.into_values().collect();
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
                    let last_good = self.last_good(&before, &key);
                    self.settle(&mut draft, revision, &key, digest, compiled, last_good)
                }
            };
            slots.push((key, slot));
        }
        if begins_history {
            slots.iter_mut().for_each(|(key, slot)| withdraw_last_good(&mut draft, key, slot));
        }
        let changes = self.changes_of_all(&before, &draft, &old.digests, &slots);
        self.links.served = old.served;
        self.links.served.begin_anew();
        for (key, slot) in &slots {
            self.links.served.serve(key, slot.serving.as_deref());
        }
        draft.fill(slots);
        self.publish(draft, revision, &changes);
    }

    pub(super) fn apply(&mut self, revision: Revision, changes: Vec<Change>) {
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
        let variables = if connections.is_empty() { Variables::new() } else { self.links.reserve() };
        for (key, value) in webhooks {
            touched.push(key.clone());
            self.set_webhook(&mut draft, revision, key, value);
        }
        touched.extend(self.rebuild_dependents(&mut draft, revision, &relinked, &variables));
        touched.sort_unstable();
        touched.dedup();
        let mut changes = Changes::default();
        for (name, digest) in &connections {
            self.note_connection(&mut changes, name, (&before, digest.as_ref()), &draft);
        }
        for key in &touched {
            changes.note_webhook(key, (&before, before.slot(key)), (&draft, draft.slot(key)));
            self.links.served.serve(key, draft.slot(key).and_then(|slot| slot.serving.as_deref()));
        }
        self.publish(draft, revision, &changes);
    }

    /// The number of bytes that may have to be compiled because secret files have changed.
    pub(super) fn weight_of_dependents(&self) -> usize {
        self.links.dependents.values().map(|dependent| dependent.bytes.len()).sum()
    }

    /// Builds the webhooks and connections that name one of these changed secret files.
    pub(super) fn refresh(&mut self, files: &Variables) {
        let before = self.writer.current();
        let revision = before.revision();
        let mut draft = (*before).clone();
        let names = self.links.connections_with(files);
        let mut relinked = BTreeSet::new();
        for name in &names {
            let set = self.links.rebuild_connection(&self.compiler, self.on_invalid, name);
            if self.settle_connection(&mut draft, revision, name, set) {
                relinked.insert(name.clone());
            }
        }
        let variables: Variables = self.links.reserve().union(files).cloned().collect();
        let touched = self.rebuild_dependents(&mut draft, revision, &relinked, &variables);
        if names.is_empty() && touched.is_empty() {
            return;
        }
        let mut changes = Changes::default();
        for name in &names {
            let digest = self.links.digests.get(name).copied();
            self.note_connection(&mut changes, name, (&before, digest.as_ref()), &draft);
        }
        for key in &touched {
            changes.note_webhook(key, (&before, before.slot(key)), (&draft, draft.slot(key)));
            self.links.served.serve(key, draft.slot(key).and_then(|slot| slot.serving.as_deref()));
        }
        tracing::info!(
            files = files.len(),
            webhooks = touched.len(),
            connections = names.len(),
            "secret files have changed; the webhooks and connections that name them are built again"
        );
        self.publish(draft, revision, &changes);
    }

    pub(super) fn advance(&mut self, revision: Revision) {
        let mut draft = (*self.writer.current()).clone();
        draft.finish(revision, self.links.connections.len());
        self.show(draft);
    }

    /// Returns whether webhooks that name the connection must be built again.
    fn set_connection(&mut self, draft: &mut Snapshot, revision: Revision, name: &str, value: Option<Bytes>) -> bool {
        let key = Key::Connection(name.into());
        let Some(bytes) = value else {
            draft.set_refusal(key, None);
            return self.links.remove_connection(name);
        };
        let set = self.links.set_connection(&self.compiler, self.on_invalid, name, &bytes);
        self.settle_connection(draft, revision, name, set)
    }

    /// Records the outcome for a connection's bytes. Returns whether the connection has changed.
    fn settle_connection(&mut self, draft: &mut Snapshot, revision: Revision, name: &str, set: Set) -> bool {
        let key = Key::Connection(name.into());
        match set {
            Set::Unchanged => false,
            Set::Good { is_another } => {
                draft.set_refusal(key, None);
                is_another
            }
            Set::Refused { error, is_gone } => {
                refuse(draft, key, revision, &error, self.links.connections.contains_key(name));
                is_gone
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
        let last_good = self.last_good(draft, &key);
        let slot = self.settle(draft, revision, &key, digest, compiled, last_good);
        draft.set_slot(key, slot);
    }

    /// Returns the keys of the webhooks that were built again.
    fn rebuild_dependents(
        &mut self,
        draft: &mut Snapshot,
        revision: Revision,
        relinked: &BTreeSet<Box<str>>,
        variables: &Variables,
    ) -> Vec<WebhookKey> {
        let dependents = self.links.dependents_on(relinked, variables);
        let compiled =
            for_each(&dependents, |(key, bytes)| (digest(bytes), self.links.compile(&self.compiler, key, bytes)));
        let mut rebuilt = Vec::new();
        for ((key, _), (digest, compiled)) in dependents.into_iter().zip(compiled) {
            let last_good = self.last_good(draft, &key);
            let slot = self.settle(draft, revision, &key, digest, compiled, last_good);
            draft.set_slot(key.clone(), slot);
            rebuilt.push(key);
        }
        rebuilt
    }

    /// The webhook that may go on being served if a new value does not compile: one whose connections are still in use
    /// and whose variables are still free.
    fn last_good(&self, before: &Snapshot, key: &WebhookKey) -> Option<LastGood> {
        last_good(before, key, self.on_invalid).filter(|last_good| self.links.allow(&last_good.webhook))
    }

    /// Decides what is served for a webhook that may name connections: the new value, or `last_good` if the new value
    /// does not compile.
    fn settle(
        &mut self,
        draft: &mut Snapshot,
        revision: Revision,
        key: &WebhookKey,
        digest: Digest,
        Compiled { outcome, mut dependent }: Compiled,
        last_good: Option<LastGood>,
    ) -> Slot {
        if let (Err(_), Some(last_good)) = (&outcome, &last_good) {
            dependent.include(&last_good.webhook);
        }
        let slot = slot(digest, dependent.is_linked(), last_good);
        self.links.relink(key, Some(dependent));
        settle(draft, revision, key, slot, outcome)
    }

    /// Publishes the draft, to readers and to the metrics.
    fn show(&self, draft: Snapshot) {
        self.writer.publish(draft);
        metrics::published(&self.writer.current());
    }

    /// The difference between the whole state before and the whole state now; `slots` are the current webhooks.
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

    fn publish(&mut self, mut draft: Snapshot, revision: Revision, changes: &Changes) {
        let first = !self.writer.current().is_loaded();
        draft.finish(revision, self.links.connections.len());
        let counts = draft.counts();
        let unused = self.links.served.open();
        self.show(draft);
        unused.iter().for_each(|connection| connection.client().close());
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

// Omits the value, which may be a secret.

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.value.as_ref().map(Bytes::len);
        f.debug_struct("Change").field("key", &self.key).field("bytes", &bytes).finish()
    }
}
