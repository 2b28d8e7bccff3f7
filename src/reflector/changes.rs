//! Log lines about the keys that a revision changed.

use std::sync::Arc;

use super::links::Digest;
use crate::config::{Key, WebhookKey};
use crate::store::{Refusal, Revision, Slot, Snapshot};

/// The most keys that are logged one by one. Of a larger change only the counts and the first refusals are logged.
const MAX_LINES: usize = 20;

/// The difference between two snapshots, noted key by key.
#[derive(Default)]
pub(super) struct Changes {
    added: usize,
    changed: usize,
    removed: usize,
    refused: usize,
    /// The first changed keys, and how each changed.
    named: Vec<(Key, &'static str)>,
    /// The first refusals.
    refusals: Vec<(Key, Arc<Refusal>)>,
}

/// A key in one of the two snapshots.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen<'a> {
    /// The digest of its bytes, if it has any.
    pub(super) digest: Option<&'a Digest>,
    pub(super) refusal: Option<&'a Arc<Refusal>>,
}

impl Changes {
    pub(super) fn note(&mut self, key: impl FnOnce() -> Key, before: Seen<'_>, after: Seen<'_>) {
        // A refusal that is not new is the same object; compiling a value makes a new one.
        if let Some(refusal) = after.refusal
            && !before.refusal.is_some_and(|before| Arc::ptr_eq(before, refusal))
        {
            self.refused += 1;
            if self.refusals.len() < MAX_LINES {
                self.refusals.push((key(), Arc::clone(refusal)));
            }
            return;
        }
        let (count, change) = match (before.digest, after.digest) {
            (None, Some(_)) => (&mut self.added, "added"),
            (Some(_), None) => (&mut self.removed, "removed"),
            (Some(before), Some(after)) if before != after => (&mut self.changed, "changed"),
            // The bytes are the same, and are valid since a connection changed.
            (Some(_), Some(_)) if before.refusal.is_some() && after.refusal.is_none() => (&mut self.changed, "changed"),
            _ => return,
        };
        *count += 1;
        if self.named.len() < MAX_LINES {
            self.named.push((key(), change));
        }
    }

    pub(super) fn note_webhook(
        &mut self,
        key: &WebhookKey,
        (before, old): (&Snapshot, Option<&Slot>),
        (after, new): (&Snapshot, Option<&Slot>),
    ) {
        let key = Key::Webhook(key.clone());
        let old = Seen { digest: old.map(|slot| &slot.digest), refusal: before.refusal(&key) };
        let new = Seen { digest: new.map(|slot| &slot.digest), refusal: after.refusal(&key) };
        self.note(|| key.clone(), old, new);
    }

    /// Logs each refused key with its reason.
    pub(super) fn log_refusals(&self, revision: Revision) {
        for (key, refusal) in &self.refusals {
            let Refusal { reason, revision, serving, .. } = &**refusal;
            tracing::warn!(%key, revision, reason, serving_last_good = serving, "configuration refused");
        }
        let left_out = self.refused - self.refusals.len();
        if left_out > 0 {
            tracing::warn!(revision, refused = self.refused, left_out, "configuration refused: too many keys to name");
        }
    }

    /// Logs the keys that were changed and not refused.
    pub(super) fn log_changes(&self, revision: Revision) {
        let &Self { added, changed, removed, refused, .. } = self;
        if added + changed + removed > MAX_LINES {
            tracing::info!(revision, added, changed, removed, refused, "configuration changed");
            return;
        }
        for (key, change) in &self.named {
            tracing::info!(%key, change, revision, "configuration changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(nth: usize) -> Key {
        Key::connection(&format!("c{nth}")).unwrap()
    }

    fn refusal() -> Arc<Refusal> {
        let (reason, at) = ("it is wrong".to_owned(), std::time::SystemTime::UNIX_EPOCH);
        Arc::new(Refusal { reason, revision: 1, at, serving: false })
    }

    fn digest(digest: &Digest) -> Seen<'_> {
        Seen { digest: Some(digest), refusal: None }
    }

    #[test]
    fn each_key_that_differs_is_noted_once() {
        let (one, two, none) = ([1; 16], [2; 16], Seen::default());
        let (wrong, other) = (refusal(), refusal());
        let refused = |refusal| Seen { digest: Some(&one), refusal: Some(refusal) };
        for (before, after, counts, change) in [
            (none, digest(&one), [1, 0, 0, 0], Some("added")),
            (digest(&one), digest(&two), [0, 1, 0, 0], Some("changed")),
            (digest(&one), none, [0, 0, 1, 0], Some("removed")),
            (digest(&one), digest(&one), [0; 4], None),
            (none, none, [0; 4], None),
            (none, refused(&wrong), [0, 0, 0, 1], None),
            (digest(&two), refused(&wrong), [0, 0, 0, 1], None),
            (refused(&wrong), refused(&other), [0, 0, 0, 1], None),
            (refused(&wrong), refused(&wrong), [0; 4], None),
            (refused(&wrong), digest(&one), [0, 1, 0, 0], Some("changed")),
            (refused(&wrong), none, [0, 0, 1, 0], Some("removed")),
        ] {
            let mut changes = Changes::default();
            changes.note(|| key(0), before, after);
            assert_eq!([changes.added, changes.changed, changes.removed, changes.refused], counts);
            assert_eq!(changes.named.iter().map(|(_, change)| *change).next(), change);
        }
    }

    #[test]
    fn few_keys_are_named_of_many() {
        let (mut changes, one, wrong) = (Changes::default(), [1; 16], refusal());
        for nth in 0..1000 {
            changes.note(|| key(nth), Seen::default(), digest(&one));
            changes.note(|| key(nth), Seen::default(), Seen { digest: Some(&one), refusal: Some(&wrong) });
        }
        assert_eq!((changes.added, changes.refused), (1000, 1000));
        assert_eq!((changes.named.len(), changes.refusals.len()), (MAX_LINES, MAX_LINES));
    }
}
