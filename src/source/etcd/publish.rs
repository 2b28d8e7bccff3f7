//! Passes configuration from etcd to the feed, and to the copy on disk.

use std::time::Instant;

use super::client::Account;
use super::health::Health;
use super::machine::{Entry, Event, Fault, Header, Put, Revision};
use super::options::EtcdOptions;
use super::saved::{Kept, Keys, Saved, SavedCopy};
use crate::config::Key;
use crate::reflector::{Change, Feed, Replacement};
use crate::source::ignored::{Ignored, Logged};
use crate::store::{ErrorKind, ListReason, SourceState};

pub(super) struct Publisher {
    feed: Feed,
    /// The prefix of every key.
    prefix: String,
    health: Health,
    listing: Option<Listing>,
    /// Published keys that are neither a webhook's nor a connection's.
    ignored: Ignored,
    logged: Logged,
    copy: Option<SavedCopy>,
}

/// The list that is being read.
struct Listing {
    replacement: Replacement,
    ignored: Ignored,
    /// For the copy on disk, if there is one.
    keys: Keys,
}

impl Listing {
    fn new(replacement: Replacement) -> Self {
        Self { replacement, ignored: Ignored::default(), keys: Keys::new() }
    }
}

impl Publisher {
    pub(super) fn new(options: &EtcdOptions, feed: Feed) -> Self {
        let prefix = options.prefix.clone();
        let copy = options.copy.clone().map(|directory| SavedCopy::new(directory, prefix.clone()));
        let (health, ignored, logged) = (Health::default(), Ignored::default(), Logged::default());
        Self { feed, prefix, health, listing: None, ignored, logged, copy }
    }

    /// Publishes the copy that an earlier process left on disk.
    pub(super) async fn load_copy(&mut self) -> Option<Saved> {
        let saved = match self.copy.as_mut()?.read() {
            Ok(saved) => saved?,
            Err(reason) => {
                tracing::warn!(reason, "the saved configuration is not used");
                self.feed.report(|report| report.copy_error = Some(reason));
                return None;
            }
        };
        let revision = saved.header.revision.unsigned_abs();
        let mut replacement = self.feed.replace().await;
        let mut refused = Vec::new();
        for (key, kept) in saved.keys.iter() {
            let Some(key) = self.key(key) else {
                self.ignored.add(&self.prefix, key, &mut self.logged);
                continue;
            };
            let modified = kept.meta.modified.unsigned_abs();
            match &kept.last_good {
                Some(good) => {
                    replacement.put(key.clone(), modified, good.clone()).await;
                    refused.push(Change { key, value: Some(kept.value.clone()) });
                }
                None => replacement.put(key, modified, kept.value.clone()).await,
            }
        }
        tracing::info!(revision, keys = saved.keys.len(), "serving the saved configuration until etcd is reached");
        self.feed.report(|report| report.from_saved_copy = true);
        self.show_ignored();
        self.feed.commit(replacement, revision).await;
        if !refused.is_empty() {
            self.feed.apply(revision, refused).await;
        }
        Some(saved)
    }

    /// Waits until a reader needs a proof.
    pub(super) async fn wanted(&self) {
        self.feed.wanted().await;
    }

    pub(super) async fn begin(&mut self, reason: ListReason) {
        self.listing = Some(Listing::new(self.feed.replace().await));
        self.feed.report(|report| *report.lists.entry(reason).or_default() += 1);
    }

    pub(super) fn drop_list(&mut self) {
        self.listing = None;
    }

    pub(super) async fn bring(&mut self, entries: Vec<Entry>) {
        let Some(mut listing) = self.listing.take() else { return };
        for Entry { key, value, meta } in entries {
            match self.key(&key) {
                Some(ours) => listing.replacement.put(ours, meta.modified.unsigned_abs(), value.clone()).await,
                None => listing.ignored.add(&self.prefix, &key, &mut self.logged),
            }
            if self.copy.is_some() {
                listing.keys.insert(key, Kept { meta, value, last_good: None });
            }
        }
        self.listing = Some(listing);
    }

    pub(super) async fn commit(&mut self, header: Header) {
        let Some(Listing { replacement, ignored, mut keys }) = self.listing.take() else { return };
        self.ignored = ignored;
        self.show_ignored();
        self.feed.commit(replacement, header.revision.unsigned_abs()).await;
        self.look_for_webhooks();
        if let Some(mut copy) = self.copy.take() {
            for (key, kept) in &mut keys {
                kept.last_good = self.last_good(key, copy.keys().get(key));
            }
            copy.replace(header, keys);
            self.copy = Some(copy);
        }
    }

    pub(super) async fn apply(&mut self, revision: Revision, events: Vec<Event>) {
        let mut changes = Vec::with_capacity(events.len());
        for Event { key: name, put, .. } in &events {
            match (self.key(name), put) {
                (Some(key), put) => changes.push(Change { key, value: put.as_ref().map(|put| put.value.clone()) }),
                (None, None) => self.ignored.remove(name),
                (None, Some(Put { version: 1, .. })) => self.ignored.add(&self.prefix, name, &mut self.logged),
                (None, Some(_)) => {}
            }
        }
        if changes.len() < events.len() {
            self.show_ignored();
        }
        self.feed.apply(revision.unsigned_abs(), changes).await;
        self.look_for_webhooks();
        if let Some(mut copy) = self.copy.take() {
            for event in events {
                let meta = event.meta();
                let kept = event.put.zip(meta).map(|(put, meta)| {
                    let last_good = self.last_good(&event.key, copy.keys().get(&event.key));
                    Kept { meta, value: put.value, last_good }
                });
                copy.set(event.key, kept);
            }
            copy.at(revision);
            self.copy = Some(copy);
        }
    }

    /// Marks the list as the beginning of another history.
    pub(super) fn new_epoch(&mut self) {
        self.listing.iter_mut().for_each(|listing| listing.replacement.begin_history());
        tracing::warn!("etcd has another history than before; the configuration is replaced");
        self.feed.report(|report| report.epoch += 1);
    }

    /// Records that nothing else has changed up to this revision.
    pub(super) async fn advance(&mut self, revision: Revision) {
        self.feed.advance(revision.unsigned_abs()).await;
        self.copy.iter_mut().for_each(|copy| copy.at(revision));
    }

    pub(super) fn proven(&mut self, at: Instant) {
        self.feed.proven(at);
    }

    pub(super) fn audit_held(&mut self) {
        self.feed.report(|report| report.audits += 1);
    }

    pub(super) fn audit_differs(&mut self) {
        tracing::warn!(
            "a key or a value in etcd differs from the configuration that is served; reading everything again"
        );
        self.feed.report(|report| report.differences += 1);
    }

    pub(super) fn connecting(&mut self, endpoint: &str) {
        self.feed.report(|report| report.endpoint = Some(endpoint.to_owned()));
    }

    pub(super) fn connected(&mut self) {
        self.feed.report(|report| report.connects += 1);
    }

    pub(super) fn live(&mut self) {
        self.feed.report(|report| report.from_saved_copy = false);
        self.feed.state(SourceState::Live);
    }

    pub(super) fn stale(&mut self) {
        self.feed.state(SourceState::Stale);
    }

    pub(super) fn disconnected(&mut self, Fault { kind, reason }: Fault) {
        self.feed.report(|report| {
            report.anomalies += u64::from(kind == ErrorKind::LostEvents);
            report.failed(kind, reason.clone());
        });
        self.feed.state(SourceState::Disconnected(reason));
    }

    pub(super) fn credentials_are_idle(&mut self, idle: bool) {
        if self.health.credentials_are_idle(idle) {
            self.show_health();
        }
    }

    pub(super) fn take_account(&mut self, account: Result<Account, Fault>) {
        if self.health.take_account(account) {
            self.show_health();
        }
    }

    /// Keeps the copy on disk up to date.
    pub(super) async fn save(&mut self) {
        let Some(copy) = &mut self.copy else { return };
        if let Some(outcome) = copy.tick().await {
            let error = outcome.err().map(|error| error.to_string());
            if let Some(error) = &error {
                tracing::warn!(error, "the configuration cannot be saved");
            }
            self.feed.report(|report| report.copy_error = error);
        }
    }

    /// The value that is served in place of a key's newest one; `before` is what was kept of the key.
    fn last_good(&self, key: &[u8], before: Option<&Kept>) -> Option<bytes::Bytes> {
        let key = self.key(key)?;
        let before = before.filter(|_| self.feed.is_serving_last_good(&key))?;
        Some(before.last_good.clone().unwrap_or_else(|| before.value.clone()))
    }

    /// The key below the prefix, if it is a webhook's or a connection's.
    fn key(&self, key: &[u8]) -> Option<Key> {
        let relative = key.strip_prefix(self.prefix.as_bytes())?;
        Key::parse(relative).ok()
    }

    fn look_for_webhooks(&mut self) {
        let counts = self.feed.counts();
        if self.health.holds(&self.prefix, counts.webhooks + counts.fenced, self.ignored.total()) {
            self.show_health();
        }
    }

    fn show_ignored(&mut self) {
        self.feed.ignored_keys(self.ignored.total(), self.ignored.list());
    }

    fn show_health(&mut self) {
        let health = &self.health;
        self.feed.report(|report| health.show(report));
    }
}
