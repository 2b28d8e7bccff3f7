//! All webhooks at one revision. The only file that names the map.

use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use rpds::HashTrieMapSync;

use super::Revision;
use crate::config::Webhook;
use crate::key::{Key, Target, WebhookKey};

/// A persistent map: a copy costs nothing and a change touches its own path only, so one key costs the same among three
/// and among a million.
type Map<K, V> = HashTrieMapSync<K, V, RandomState>;

fn empty<K: Eq + std::hash::Hash, V>() -> Map<K, V> {
    Map::new_with_hasher_and_ptr_kind(RandomState::default())
}

/// The configuration at one revision. It never changes.
#[derive(Clone)]
pub struct Snapshot {
    revision: Revision,
    loaded: bool,
    slots: Map<WebhookKey, Slot>,
    /// How many slots each namespace has.
    namespaces: Map<Box<str>, usize>,
    refusals: Map<Key, Arc<Refusal>>,
    counts: Counts,
}

/// How much there is in a [`Snapshot`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Webhooks that are served, with their newest or with their last good configuration.
    pub webhooks: usize,
    /// Of these, the ones without any guard.
    pub open: usize,
    /// Webhooks that answer 503, as there is no configuration of theirs to serve.
    pub fenced: usize,
    /// Namespaces that have at least one webhook, fenced ones included.
    pub namespaces: usize,
    /// Connections.
    pub connections: usize,
    /// Keys whose newest value does not compile.
    pub refused: usize,
}

/// Why the newest value of a key is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) reason: String,
    pub(crate) revision: Revision,
    pub(crate) serving: bool,
}

impl Refusal {
    /// What is wrong with the value. It quotes no value.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The revision that brought the refused value.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether an earlier, good value is served meanwhile.
    pub fn is_serving_last_good(&self) -> bool {
        self.serving
    }
}

/// What is kept of one webhook's key.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Of the newest bytes, whether they compiled or not: equal bytes need no second look.
    pub(crate) digest: [u8; 16],
    /// Whether these bytes name a connection: then what they mean hangs on more than themselves.
    pub(crate) linked: bool,
    /// What is served; `None` answers 503.
    pub(crate) serving: Option<Arc<Webhook>>,
}

/// What a target leads to.
pub(crate) enum Found<'a> {
    Serving(&'a Arc<Webhook>),
    Fenced,
    Nothing,
}

/// Not what is in it: that may be a million webhooks.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("loaded", &self.loaded)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            revision: 0,
            loaded: false,
            slots: empty(),
            namespaces: empty(),
            refusals: empty(),
            counts: Counts::default(),
        }
    }
}

impl Snapshot {
    /// The revision it shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether a configuration has been loaded at all.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// How much there is in it.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The webhook that is served for `target`.
    pub fn webhook(&self, target: &Target) -> Option<&Arc<Webhook>> {
        match self.find(target) {
            Found::Serving(webhook) => Some(webhook),
            Found::Fenced | Found::Nothing => None,
        }
    }

    /// All webhooks that are served, in no order.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.slots.values().filter_map(|slot| slot.serving.as_ref())
    }

    /// The keys whose newest value does not compile, in no order.
    pub fn refusals(&self) -> impl Iterator<Item = (&Key, &Refusal)> {
        self.refusals.iter().map(|(key, refusal)| (key, &**refusal))
    }

    pub(crate) fn find(&self, target: &Target) -> Found<'_> {
        match self.slots.get(target.as_str()) {
            Some(Slot { serving: Some(webhook), .. }) => Found::Serving(webhook),
            Some(_) => Found::Fenced,
            None => Found::Nothing,
        }
    }

    pub(crate) fn slot(&self, key: &WebhookKey) -> Option<&Slot> {
        self.slots.get(key)
    }

    pub(crate) fn refusal(&self, key: &Key) -> Option<&Arc<Refusal>> {
        self.refusals.get(key)
    }

    pub(crate) fn set_slot(&mut self, key: WebhookKey, slot: Slot) {
        let in_namespace = self.namespaces.get(key.namespace()).copied().unwrap_or(0);
        match self.slots.get(&key).cloned() {
            Some(before) => self.count(&before, |count| *count -= 1),
            None => self.namespaces.insert_mut(key.namespace().into(), in_namespace + 1),
        }
        self.count(&slot, |count| *count += 1);
        self.slots.insert_mut(key, slot);
    }

    pub(crate) fn remove_slot(&mut self, key: &WebhookKey) {
        let Some(slot) = self.slots.get(key).cloned() else { return };
        self.count(&slot, |count| *count -= 1);
        self.slots.remove_mut(key);
        match self.namespaces.get(key.namespace()).copied() {
            Some(more) if more > 1 => self.namespaces.insert_mut(key.namespace().into(), more - 1),
            _ => {
                self.namespaces.remove_mut(key.namespace());
            }
        }
    }

    pub(crate) fn set_refusal(&mut self, key: Key, refusal: Option<Arc<Refusal>>) {
        match refusal {
            Some(refusal) => self.refusals.insert_mut(key, refusal),
            None => {
                self.refusals.remove_mut(&key);
            }
        }
        self.counts.refused = self.refusals.size();
    }

    /// Seals it as the state at `revision`.
    pub(crate) fn finish(&mut self, revision: Revision, connections: usize) {
        self.revision = revision;
        self.loaded = true;
        self.counts.namespaces = self.namespaces.size();
        self.counts.connections = connections;
    }

    fn count(&mut self, slot: &Slot, by: impl Fn(&mut usize)) {
        match &slot.serving {
            Some(webhook) => {
                by(&mut self.counts.webhooks);
                if webhook.is_open() {
                    by(&mut self.counts.open);
                }
            }
            None => by(&mut self.counts.fenced),
        }
    }

    #[cfg(test)]
    pub(super) fn at(revision: Revision) -> Self {
        Self { revision, loaded: true, ..Self::default() }
    }
}
