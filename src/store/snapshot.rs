//! The webhooks of the configuration at one revision.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use foldhash::fast::RandomState;

use super::map::Map;
use super::revision::Revision;
use crate::config::{Key, Target, Warnings, WebhookKey};
use crate::webhook::Webhook;

/// The configuration at one revision. A snapshot never changes.
#[derive(Clone, Default)]
pub struct Snapshot {
    revision: Revision,
    loaded: bool,
    slots: Map<WebhookKey, Slot>,
    /// The number of slots of each namespace.
    namespaces: Map<Box<str>, usize>,
    refusals: Map<Key, Arc<Refusal>>,
    /// The warnings of the values that are served. A key without warnings has no entry.
    warnings: Map<Key, Warnings>,
    counts: Counts,
}

/// The sizes of a [`Snapshot`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Webhooks that are served, with their newest or with their last good configuration.
    pub webhooks: usize,
    /// How many of the served webhooks have no guard.
    pub open: usize,
    /// Webhooks that answer 503 because none of their values may be served.
    pub fenced: usize,
    /// Namespaces that have at least one webhook, fenced ones included.
    pub namespaces: usize,
    /// Connections.
    pub connections: usize,
    /// Keys whose newest value does not compile.
    pub refused: usize,
    /// Keys that have warnings.
    pub warned: usize,
}

/// Why the newest value of a key is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) reason: String,
    pub(crate) revision: Revision,
    pub(crate) at: SystemTime,
    pub(crate) serving: bool,
}

impl Refusal {
    /// The error, which quotes no value.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The revision that brought the refused value.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The time at which this process refused the value.
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Whether an earlier value is served instead.
    pub fn is_serving_last_good(&self) -> bool {
        self.serving
    }
}

/// The state of one webhook's key.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The digest of the newest bytes, valid or not: equal bytes are not compiled again.
    pub(crate) digest: [u8; 16],
    /// Whether the newest bytes, or the value that is served in their place, name a connection or a variable. The
    /// meaning of such a value depends on more than its bytes.
    pub(crate) linked: bool,
    /// The webhook that is served; `None` answers 503.
    pub(crate) serving: Option<Arc<Webhook>>,
    /// The revision that brought the value that is served; of no meaning if none is.
    pub(crate) revision: Revision,
}

impl Slot {
    /// The warnings of the webhook that is served, if it has any.
    fn warnings(&self) -> Option<&Warnings> {
        let warnings = self.serving.as_ref()?.shared_warnings();
        (!warnings.is_empty()).then_some(warnings)
    }
}

/// The result of looking a target up.
pub(crate) enum Found<'a> {
    Serving(&'a Arc<Webhook>),
    /// The webhook never had a value that compiles.
    Fenced,
    /// There is no such webhook.
    Unknown,
    /// No configuration has been loaded yet, so there may be such a webhook.
    NotLoaded,
}

/// Omits the contents, which may be a million webhooks.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("loaded", &self.loaded)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The revision of the configuration.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether a configuration has been loaded at all.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The sizes of the snapshot.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The webhook that is served for `target`.
    pub fn webhook(&self, target: &Target) -> Option<&Arc<Webhook>> {
        match self.find(target) {
            Found::Serving(webhook) => Some(webhook),
            Found::Fenced | Found::Unknown | Found::NotLoaded => None,
        }
    }

    /// All webhooks that are served, in no particular order.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.slots.iter().filter_map(|(_, slot)| slot.serving.as_ref())
    }

    /// The keys whose newest value does not compile, in no particular order.
    pub fn refusals(&self) -> impl Iterator<Item = (&Key, &Refusal)> {
        self.refusals.iter().map(|(key, refusal)| (key, &**refusal))
    }

    /// The warnings about values that are served, each with its key, in no particular order.
    pub fn warnings(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.warnings.iter().flat_map(|(key, texts)| texts.iter().map(move |warning| (key, warning.text())))
    }

    pub(crate) fn find(&self, target: &Target) -> Found<'_> {
        match self.slots.get(target.as_str()) {
            Some(Slot { serving: Some(webhook), .. }) => Found::Serving(webhook),
            Some(_) => Found::Fenced,
            None if self.loaded => Found::Unknown,
            None => Found::NotLoaded,
        }
    }

    pub(crate) fn slot(&self, key: &WebhookKey) -> Option<&Slot> {
        self.slots.get(key)
    }

    /// The keys of all webhooks, in no particular order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&WebhookKey, &Slot)> {
        self.slots.iter()
    }

    pub(crate) fn refusal(&self, key: &Key) -> Option<&Arc<Refusal>> {
        self.refusals.get(key)
    }

    /// Inserts all slots at once, which costs less than one by one. The snapshot must have no slots yet.
    pub(crate) fn fill(&mut self, slots: Vec<(WebhookKey, Slot)>) {
        self.slots = slots.into_iter().collect();
        let slots = self.slots.clone();
        let mut namespaces = HashMap::<&str, usize, RandomState>::default();
        for (key, slot) in slots.iter() {
            self.count(slot, |count| *count += 1);
            *namespaces.entry(key.namespace()).or_default() += 1;
        }
        self.namespaces = namespaces.into_iter().map(|(name, count)| (name.into(), count)).collect();
        let warned =
            slots.iter().filter_map(|(key, slot)| Some((Key::Webhook(key.clone()), Arc::clone(slot.warnings()?))));
        self.warnings = warned.collect();
        self.counts.warned = self.warnings.len();
    }

    pub(crate) fn set_slot(&mut self, key: WebhookKey, slot: Slot) {
        self.count(&slot, |count| *count += 1);
        self.set_warnings(&key, Some(&slot));
        match self.slots.insert(key.clone(), slot) {
            Some(before) => self.count(&before, |count| *count -= 1),
            None => {
                let before = self.namespaces.get(key.namespace()).copied().unwrap_or(0);
                self.namespaces.insert(key.namespace().into(), before + 1);
            }
        }
    }

    pub(crate) fn remove_slot(&mut self, key: &WebhookKey) {
        let Some(slot) = self.slots.remove(key) else { return };
        self.count(&slot, |count| *count -= 1);
        self.set_warnings(key, None);
        match self.namespaces.get(key.namespace()).copied() {
            Some(more) if more > 1 => drop(self.namespaces.insert(key.namespace().into(), more - 1)),
            _ => drop(self.namespaces.remove(key.namespace())),
        }
    }

    pub(crate) fn set_refusal(&mut self, key: Key, refusal: Option<Arc<Refusal>>) {
        match refusal {
            Some(refusal) => self.refusals.insert(key, refusal),
            None => self.refusals.remove(&key),
        };
        self.counts.refused = self.refusals.len();
    }

    fn set_warnings(&mut self, key: &WebhookKey, slot: Option<&Slot>) {
        match slot.and_then(Slot::warnings) {
            Some(warnings) => drop(self.warnings.insert(Key::Webhook(key.clone()), Arc::clone(warnings))),
            None if self.warnings.len() == 0 => {}
            None => drop(self.warnings.remove(&Key::Webhook(key.clone()))),
        }
        self.counts.warned = self.warnings.len();
    }

    /// Completes the snapshot as the state at `revision`.
    pub(crate) fn finish(&mut self, revision: Revision, connections: usize) {
        self.revision = revision;
        self.loaded = true;
        self.counts.namespaces = self.namespaces.len();
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
