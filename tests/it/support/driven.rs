//! A source that the test controls, step by step.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tower_webhook::config::{Key, WebhookKey};
use tower_webhook::source::{Feed, Replacement, Source};
use tower_webhook::store::{Revision, SourceState};
use tower_webhook::{Change, OnInvalid, Registry, Store, reflect};

use super::within;

enum Command {
    Replace(Revision, Vec<(Key, Bytes)>),
    /// As of another history.
    Begin(Revision, Vec<(Key, Bytes)>),
    Apply(Revision, Vec<Change>),
    Advance(Revision),
    State(SourceState),
    Ignored(u64),
}

pub(crate) struct Driven {
    commands: mpsc::UnboundedReceiver<(Command, oneshot::Sender<()>)>,
}

impl Source for Driven {
    const NAME: &'static str = "driven";

    async fn run(mut self, mut feed: Feed) {
        while let Some((command, done)) = self.commands.recv().await {
            match command {
                Command::Replace(revision, entries) => {
                    let replacement = bring(&mut feed, revision, entries).await;
                    feed.commit(replacement, revision).await;
                }
                Command::Begin(revision, entries) => {
                    let mut replacement = bring(&mut feed, revision, entries).await;
                    replacement.begin_history();
                    feed.commit(replacement, revision).await;
                }
                Command::Apply(revision, changes) => feed.apply(revision, changes).await,
                Command::Advance(revision) => feed.advance(revision).await,
                Command::State(state) => feed.state(state),
                Command::Ignored(keys) => feed.ignored_keys(keys, Vec::new()),
            }
            let _ = done.send(());
        }
    }
}

async fn bring(feed: &mut Feed, revision: Revision, entries: Vec<(Key, Bytes)>) -> Replacement {
    let mut replacement = feed.replace().await;
    for (key, value) in entries {
        replacement.put(key, revision, value).await;
    }
    replacement
}

/// Delivers nothing, and does not end.
pub(crate) struct Silent;

impl Source for Silent {
    const NAME: &'static str = "silent";

    async fn run(self, _: Feed) {
        std::future::pending().await
    }
}

/// Controls a [`Driven`] source, and holds the store that it fills.
pub(crate) struct Driver {
    commands: mpsc::UnboundedSender<(Command, oneshot::Sender<()>)>,
    pub(crate) store: Store,
    revision: Revision,
}

impl Driver {
    pub(crate) fn new(registry: Registry, on_invalid: OnInvalid) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        let (store, reflector) = reflect(Driven { commands }, registry);
        tokio::spawn(reflector.on_invalid(on_invalid).run());
        Self { commands: sender, store, revision: 0 }
    }

    async fn command(&self, command: Command) {
        let (done, was_done) = oneshot::channel();
        self.commands.send((command, done)).ok().unwrap();
        within("the source to do as told", was_done).await.unwrap();
    }

    /// Makes the store hold exactly these entries.
    pub(crate) async fn replace(&mut self, entries: Vec<(Key, Bytes)>) {
        self.revision += 1;
        self.command(Command::Replace(self.revision, entries)).await;
        self.check_revision().await;
    }

    /// Makes the store hold exactly these entries, as another history of the source.
    pub(crate) async fn begin_history(&mut self, entries: Vec<(Key, Bytes)>) {
        self.revision += 1;
        self.command(Command::Begin(self.revision, entries)).await;
        self.check_revision().await;
    }

    /// Applies changes as one revision.
    pub(crate) async fn apply(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        self.command(Command::Apply(self.revision, changes)).await;
        self.check_revision().await;
    }

    pub(crate) async fn put(&mut self, key: Key, value: &str) {
        self.apply(vec![put(key, value)]).await;
    }

    pub(crate) async fn delete(&mut self, key: Key) {
        self.apply(vec![delete(key)]).await;
    }

    pub(crate) async fn advance(&mut self, revision: Revision) {
        self.revision = revision;
        self.command(Command::Advance(revision)).await;
        self.check_revision().await;
    }

    pub(crate) async fn state(&self, state: SourceState) {
        self.command(Command::State(state)).await;
    }

    pub(crate) async fn ignored(&self, keys: u64) {
        self.command(Command::Ignored(keys)).await;
    }

    async fn check_revision(&self) {
        assert!(within("the revision", self.store.wait_for_revision(self.revision)).await);
        assert_eq!(self.store.snapshot().revision(), self.revision);
    }
}

pub(crate) fn webhook(namespace: &str, id: &str) -> Key {
    Key::Webhook(WebhookKey::new(namespace, id).unwrap())
}

pub(crate) fn connection(name: &str) -> Key {
    Key::Connection(name.into())
}

pub(crate) fn put(key: Key, value: &str) -> Change {
    Change { key, value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

pub(crate) fn delete(key: Key) -> Change {
    Change { key, value: None }
}
