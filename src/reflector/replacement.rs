//! A replacement of the whole configuration, while the source brings it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::aside::Aside;
use super::each::for_each;
use super::links::{Digest, digest, guarded, read};
use super::settle::{OnInvalid, last_good, settle, slot, take_over};
use crate::config::{CompileError, Key, Variables, WebhookKey};
use crate::store::{Revision, Slot, Snapshot};
use crate::webhook::{Compiler, Connections, Read, Webhook};

/// Collects everything that the source holds at one revision. A replacement that is dropped before
/// [`Feed::commit`](super::Feed::commit) changes nothing.
pub struct Replacement {
    looked: Aside<Looked>,
    begins_history: bool,
    /// Webhooks that have not been compiled yet.
    brought: Vec<Brought>,
    /// The total length of the values in `brought`.
    fresh: usize,
    /// The total length of all values so far.
    bytes: usize,
    /// The number of webhooks and connections so far.
    count: usize,
}

/// The part of a replacement that has been compiled.
pub(super) struct Looked {
    /// Whether no earlier value may be served in place of one that does not compile.
    pub(super) begins_history: bool,
    compiler: Compiler,
    on_invalid: OnInvalid,
    pub(super) before: Arc<Snapshot>,
    /// Holds only refusals until the commit.
    pub(super) draft: Snapshot,
    pub(super) slots: Vec<(WebhookKey, Slot)>,
    /// Each with the revision that last changed it.
    pub(super) connections: BTreeMap<Box<str>, (Bytes, Revision)>,
    /// Webhooks that can only be compiled at the commit: they name connections, which may still come, or variables,
    /// which may belong to a connection; or an earlier value that does so may go on being served. Of a key that is
    /// brought twice, the last value counts.
    pub(super) waiting: BTreeMap<WebhookKey, Brought>,
}

/// The number of webhooks that are compiled together: enough for several threads, and few enough to be compiled while
/// the source still reads the rest.
const TOGETHER: usize = 4096;

/// The same limit in bytes.
const BYTES_TOGETHER: usize = 8 << 20;

/// A webhook's value, last changed at a revision.
pub(super) struct Brought {
    pub(super) key: WebhookKey,
    pub(super) bytes: Bytes,
    pub(super) revision: Revision,
}

/// The result of examining a webhook's value.
pub(super) enum Look<'a, T> {
    /// The bytes and their meaning are the same as before.
    Same(&'a Slot),
    Compiled(Digest, T),
}

impl Replacement {
    pub(super) fn new(compiler: Compiler, on_invalid: OnInvalid, before: Arc<Snapshot>) -> Self {
        let looked = Looked {
            begins_history: false,
            compiler,
            on_invalid,
            before,
            draft: Snapshot::default(),
            slots: Vec::new(),
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        let looked = Aside::new(looked);
        Self { looked, begins_history: false, brought: Vec::new(), fresh: 0, bytes: 0, count: 0 }
    }

    /// Says that what is brought is of another history than what was published before: a backup was restored, or the source
    /// was wiped.
    ///
    /// Then no earlier value serves in place of one that does not compile, whatever [`OnInvalid`] says: such a webhook answers
    /// 503. Serving on would be more available, and less safe: the earlier value may hold a token that was revoked, and no
    /// later value of its history can come to revoke it.
    pub fn begin_history(&mut self) {
        self.begins_history = true;
    }

    /// Adds one key, last changed at `revision`. A webhook whose bytes have not changed is not built again. If a key is
    /// added more than once, the last value counts.
    ///
    /// Sometimes waits while earlier values are compiled.
    pub async fn put(&mut self, key: Key, revision: Revision, value: Bytes) {
        self.count += 1;
        self.bytes += value.len();
        match key {
            Key::Webhook(key) => {
                self.fresh += value.len();
                self.brought.push(Brought { key, bytes: value, revision });
                if self.brought.len() >= TOGETHER || self.fresh >= BYTES_TOGETHER {
                    let (brought, bytes) = (std::mem::take(&mut self.brought), std::mem::take(&mut self.fresh));
                    self.looked.work(bytes, |looked| looked.look_through(brought)).await;
                }
            }
            Key::Connection(name) => drop(self.looked.here().await.connections.insert(name, (value, revision))),
        }
    }

    /// The compiled part, the values that have not been compiled yet, and the total length of all values.
    pub(super) async fn into_parts(self) -> (Looked, Vec<Brought>, usize) {
        let mut looked = self.looked.into_state().await;
        looked.begins_history = self.begins_history;
        (looked, self.brought, self.bytes)
    }
}

impl Looked {
    /// Compiles the values that name neither connections nor variables; the others wait for the commit.
    pub(super) fn look_through(&mut self, brought: Vec<Brought>) {
        let before = Arc::clone(&self.before);
        let looks = for_each(&brought, |brought| self.look(&before, brought));
        for (brought, look) in brought.into_iter().zip(looks) {
            let slot = match look {
                None => {
                    self.waiting.insert(brought.key.clone(), brought);
                    continue;
                }
                Some(Look::Same(slot)) => take_over(&mut self.draft, &before, &brought.key, slot),
                Some(Look::Compiled(digest, outcome)) => {
                    let last_good = last_good(&before, &brought.key, self.on_invalid);
                    let slot = slot(digest, false, last_good);
                    settle(&mut self.draft, brought.revision, &brought.key, slot, outcome)
                }
            };
            self.waiting.remove(&brought.key);
            self.slots.push((brought.key, slot));
        }
    }

    /// `None` if the webhook must wait for the connections.
    fn look<'a>(
        &self,
        before: &'a Snapshot,
        Brought { key, bytes, .. }: &Brought,
    ) -> Option<Look<'a, Result<Arc<Webhook>, CompileError>>> {
        let digest = digest(bytes);
        let slot = before.slot(key);
        if let Some(slot) = slot.filter(|slot| slot.digest == digest) {
            return (!slot.linked).then_some(Look::Same(slot));
        }
        let Read { variables, outcome } = read(&self.compiler, key, bytes, &Variables::new());
        let outcome = match outcome {
            _ if !variables.is_empty() => return None,
            Ok(parsed) if parsed.connections().next().is_some() => return None,
            Ok(parsed) => guarded(|| self.compiler.build_webhook(key, parsed, &Connections::new()).map(Arc::new)),
            Err(error) => Err(error),
        };
        // The earlier value may go on being served if its connections and variables allow it, which is decided at the
        // commit.
        match outcome.is_err() && slot.is_some_and(|slot| slot.linked) {
            true => None,
            false => Some(Look::Compiled(digest, outcome)),
        }
    }
}

// Omits the values, which may be secrets.
impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").field("keys", &self.count).finish_non_exhaustive()
    }
}
