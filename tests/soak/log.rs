//! The states that were written, to compare the served ones with.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use tower_webhook::Webhook;
use tower_webhook::store::Snapshot;

use crate::reader::Seen;
use crate::writer::{Kind, Write};

/// For each history, the revisions and the hash of the state after each.
#[derive(Default)]
pub struct Log {
    histories: Vec<Vec<(u64, u64)>>,
    /// The value that is served for each key.
    state: State,
    /// All states so far, to explain what is wrong with one that was served.
    states: BTreeMap<(usize, u64), State>,
    /// When the writer learned of each write, in order, with its history and revision.
    known: Vec<(Instant, (usize, u64))>,
}

impl Log {
    pub fn begin(&mut self) {
        self.histories.push(vec![(0, 0)]);
        self.state.clear();
    }

    pub fn revision(&self) -> u64 {
        self.histories.last().and_then(|history| history.last()).map_or(0, |(revision, _)| *revision)
    }

    pub fn now(&self) -> u64 {
        self.histories.last().and_then(|history| history.last()).map_or(0, |(_, hash)| *hash)
    }

    pub fn writes(&self) -> usize {
        self.histories.iter().map(|history| history.len() - 1).sum()
    }

    pub fn note(&mut self, revision: u64, write: &Write) {
        for key in &write.keys {
            match write.kind {
                Kind::Put => {
                    self.state.insert(key.clone(), write.stamp);
                }
                // No other value is served in its place.
                Kind::Bad | Kind::Delete => {
                    self.state.remove(key);
                }
            }
        }
        let hash = hash_of(&self.state);
        self.histories.last_mut().unwrap().push((revision, hash));
        let place = (self.histories.len() - 1, revision);
        self.states.insert(place, self.state.clone());
        self.known.push((Instant::now(), place));
    }

    /// Checks that each state that one run of a gateway has served is a state that etcd had at that revision, in a
    /// possible order, and no older than reported.
    pub fn check(&self, run: &[Seen], seed: u64) {
        let (mut history, mut last) = (0, 0);
        for seen in run {
            let least = self.known_at(seen.proven);
            let found = (history..self.histories.len()).find(|&at| {
                let states = &self.histories[at];
                let then = states.partition_point(|(revision, _)| *revision <= seen.revision);
                states[then - 1].1 == seen.hash
                    && (at > history || seen.revision >= last)
                    && least.is_none_or(|least| (at, seen.revision) >= least)
            });
            let Some(found) = found else {
                let then = self.states.range(..=(history, seen.revision)).next_back().map(|(_, state)| state);
                let differences: Vec<_> = then
                    .into_iter()
                    .flat_map(|then| then.keys().chain(seen.state.keys()).map(move |key| (key, then.get(key))))
                    .filter(|(key, then)| *then != seen.state.get(*key))
                    .map(|(key, then)| (key, then, seen.state.get(key)))
                    .collect();
                panic!(
                    "seed {seed}: what was served at {} was not the state of etcd then (key, etcd, served): \
                     {differences:?}; before it revision {last} of history {history}; not before (history, revision) \
                     {least:?}, by its staleness",
                    seen.revision
                );
            };
            (history, last) = (found, seen.revision);
        }
    }

    /// The newest write that was known when the served state is said to have been proven.
    fn known_at(&self, proven: Option<Instant>) -> Option<(usize, u64)> {
        let proven = proven?;
        let known = self.known.partition_point(|(at, _)| *at <= proven);
        known.checked_sub(1).map(|newest| self.known[newest].1)
    }
}

/// The value that is served for each key.
pub type State = BTreeMap<String, u64>;

pub fn state_of(snapshot: &Snapshot) -> State {
    let stamp = |webhook: &Webhook| webhook.metadata().and_then(serde_json::Value::as_u64).unwrap_or_default();
    let key = |webhook: &Webhook| format!("{}/webhooks/{}", webhook.namespace(), webhook.id());
    snapshot.webhooks().map(|webhook| (key(webhook), stamp(webhook))).collect()
}

pub fn hash_of(state: &State) -> u64 {
    state.iter().fold(0, |hash, (key, stamp)| hash ^ entry_hash(key, *stamp))
}

fn entry_hash(key: &str, stamp: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, stamp).hash(&mut hasher);
    hasher.finish()
}
