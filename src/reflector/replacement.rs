//! Everything at once, while it is brought.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::aside::Aside;
use super::each::for_each;
use super::links::{Digest, digest, guarded, read};
use super::settle::{OnInvalid, last_good, settle, take_over};
use crate::config::{CompileError, Key, Variables, WebhookKey};
use crate::store::{Revision, Slot, Snapshot};
use crate::webhook::{Compiler, Connections, Read, Webhook};

/// Everything that the source holds at one revision, being brought. Dropped before
/// [`Feed::commit`](super::Feed::commit) it changes nothing.
pub struct Replacement {
    looked: Aside<Looked>,
    begins_history: bool,
    /// Webhooks that nobody has looked at yet.
    brought: Vec<Brought>,
    /// What these have.
    fresh: usize,
    /// What all that was brought has, in bytes.
    bytes: usize,
    /// How many webhooks and connections.
    count: usize,
}

/// What was brought, as far as it has been looked at.
pub(super) struct Looked {
    /// Whether nothing of before may serve in place of what does not compile.
    pub(super) begins_history: bool,
    compiler: Compiler,
    on_invalid: OnInvalid,
    pub(super) before: Arc<Snapshot>,
    /// With the refusals only.
    pub(super) draft: Snapshot,
    pub(super) slots: Vec<(WebhookKey, Slot)>,
    /// Each with the revision that changed it last.
    pub(super) connections: BTreeMap<Box<str>, (Bytes, Revision)>,
    /// Webhooks that name connections, which may be still to come, or variables, which may belong to one of these, and
    /// webhooks of which an earlier value that does so may go on serving. Of a key that is brought twice only the last value.
    pub(super) waiting: BTreeMap<WebhookKey, Brought>,
}

/// So many webhooks are looked at together: enough for several threads, and few enough to be looked at while the source
/// still reads what follows.
const TOGETHER: usize = 4096;

/// Or so many bytes of them.
const BYTES_TOGETHER: usize = 8 << 20;

/// A webhook's value, last changed at a revision.
pub(super) struct Brought {
    pub(super) key: WebhookKey,
    pub(super) bytes: Bytes,
    pub(super) revision: Revision,
}

/// What a look at a webhook's value shows.
pub(super) enum Look<'a, T> {
    /// It is, and means, what it did before.
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

    /// Brings one key, last changed at `revision`. A webhook whose bytes are those of before is not built again. Of a key
    /// that is brought more than once the last value counts.
    ///
    /// Waits now and then, while what was brought is compiled.
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

    /// What was looked at, what was not yet, and how many bytes all of it has.
    pub(super) async fn into_parts(self) -> (Looked, Vec<Brought>, usize) {
        let mut looked = self.looked.into_state().await;
        looked.begins_history = self.begins_history;
        (looked, self.brought, self.bytes)
    }
}

impl Looked {
    /// Compiles what was brought, but for what names connections or variables.
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
                    let slot = Slot { digest, linked: false, serving: last_good };
                    settle(&mut self.draft, brought.revision, &brought.key, slot, outcome)
                }
            };
            self.waiting.remove(&brought.key);
            self.slots.push((brought.key, slot));
        }
    }

    /// `None` of one that must wait for the connections.
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
        let Read { variables, outcome } = read(&self.compiler, bytes, &Variables::new());
        let outcome = match outcome {
            _ if !variables.is_empty() => return None,
            Ok(parsed) if parsed.connections().next().is_some() => return None,
            Ok(parsed) => guarded(|| self.compiler.build_webhook(key, parsed, &Connections::new()).map(Arc::new)),
            Err(error) => Err(error),
        };
        // The value of before may serve on, if its connections and variables allow it.
        match outcome.is_err() && slot.is_some_and(|slot| slot.linked) {
            true => None,
            false => Some(Look::Compiled(digest, outcome)),
        }
    }
}

// Shows no value: any may be a secret.
impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").field("keys", &self.count).finish_non_exhaustive()
    }
}
