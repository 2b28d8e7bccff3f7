//! A configuration from the program itself: constant, or changed by the program.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::base::lock::lock;
use crate::config::{InvalidName, Key, WebhookKey};
use crate::reflector::{Change, Feed, Source};
use crate::store::{Revision, SourceState};

/// The revision of the initial configuration.
const FIRST: Revision = 1;

/// The most changes of a [`LiveHandle`] that wait for the source.
const WAITING: usize = 16;

/// Webhooks from constants, for tests and for embedding. [`live`](Self::live) makes them changeable.
///
/// A value that does not compile is refused, as with any other source: its webhook answers 503.
#[derive(Clone, Default)]
pub struct FixedSource {
    entries: Vec<(Key, Bytes)>,
}

impl FixedSource {
    /// A source without webhooks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a webhook. `json` is the value, in the same form as in etcd.
    ///
    /// # Errors
    ///
    /// When the namespace or the id is not a valid name.
    pub fn webhook(mut self, namespace: &str, id: &str, json: impl Into<Bytes>) -> Result<Self, InvalidName> {
        self.entries.push((Key::Webhook(WebhookKey::new(namespace, id)?), json.into()));
        Ok(self)
    }

    /// Adds a connection. `json` is the value, in the same form as in etcd.
    ///
    /// # Errors
    ///
    /// When it is not a valid name.
    pub fn connection(mut self, name: &str, json: impl Into<Bytes>) -> Result<Self, InvalidName> {
        self.entries.push((Key::connection(name)?, json.into()));
        Ok(self)
    }

    /// Starts with these webhooks and connections, and follows the changes that are made with the handle.
    /// `examples/live_config.rs` is a server that changes a webhook while it runs.
    ///
    /// ```
    /// use tower_webhook::source::FixedSource;
    /// use tower_webhook::{Registry, reflect};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (source, handle) = FixedSource::new().webhook("shop", "orders", r#"{"module": "discard"}"#)?.live();
    /// let (store, reflector) = reflect(source, Registry::builtin());
    /// tokio::spawn(reflector.run());
    ///
    /// let revision = handle.put_webhook("shop", "refunds", r#"{"module": "discard"}"#).await?;
    /// assert!(store.wait_for_revision(revision).await);
    /// assert_eq!(store.snapshot().counts().webhooks, 2);
    ///
    /// let revision = handle.remove_webhook("shop", "orders").await?;
    /// assert!(store.wait_for_revision(revision).await);
    /// assert_eq!(store.snapshot().counts().webhooks, 1);
    /// # Ok(()) }
    /// ```
    pub fn live(self) -> (LiveSource, LiveHandle) {
        let (sender, changes) = mpsc::channel(WAITING);
        let handle = LiveHandle { changes: sender, last: Arc::new(Mutex::new(FIRST)) };
        (LiveSource { begins_with: self, changes }, handle)
    }

    async fn load(self, feed: &mut Feed) {
        let mut replacement = feed.replace().await;
        for (key, json) in self.entries {
            replacement.put(key, FIRST, json).await;
        }
        feed.commit(replacement, FIRST).await;
        feed.state(SourceState::Live);
    }
}

/// Omits the values, which may be secrets.
impl fmt::Debug for FixedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(key, _)| key)).finish()
    }
}

impl Source for FixedSource {
    const NAME: &'static str = "fixed";

    async fn run(self, mut feed: Feed) {
        self.load(&mut feed).await;
    }
}

/// Webhooks and connections that the program changes while it runs; made by [`FixedSource::live`].
///
/// The source ends once its last handle is dropped and all earlier changes are applied; the store then keeps its last
/// snapshot. Until then it answers [`Store::wait_fresh`](crate::Store::wait_fresh), and
/// [`Status::staleness`](crate::store::Status::staleness) counts from its last answer.
#[derive(Debug)]
pub struct LiveSource {
    begins_with: FixedSource,
    changes: mpsc::Receiver<ChangeSet>,
}

impl Source for LiveSource {
    const NAME: &'static str = "live";

    async fn run(self, mut feed: Feed) {
        let Self { begins_with, mut changes } = self;
        begins_with.load(&mut feed).await;
        loop {
            tokio::select! {
                next = changes.recv() => match next {
                    Some(ChangeSet { revision, changes }) => feed.apply(revision, changes).await,
                    None => return,
                },
                () = feed.wanted() => {
                    let asked = Instant::now();
                    // Later changes are not part of the proof; waiting for them might take for ever.
                    for _ in 0..changes.len() {
                        let Ok(ChangeSet { revision, changes }) = changes.try_recv() else { break };
                        feed.apply(revision, changes).await;
                    }
                    feed.proven(asked);
                }
            }
        }
    }
}

/// Changes that become visible together.
#[derive(Debug)]
struct ChangeSet {
    revision: Revision,
    changes: Vec<Change>,
}

/// Changes the webhooks and connections of a [`LiveSource`]. Clones change the same source.
///
/// Each call is one change. It becomes visible as a whole, under the revision that the call returns:
/// [`Store::wait_for_revision`](crate::Store::wait_for_revision) waits for it. The initial configuration has the
/// revision 1, and each call the next one. All changes are applied in the order of their revisions and none is skipped:
/// a good value that is soon followed by a bad one is still the last good one.
///
/// The source compiles the value, not the call. A value that does not compile is refused, as with any other source, and
/// [`Store::status`](crate::Store::status) has the reason.
///
/// At most 16 changes wait for the source, even before the reflector runs; the next call waits for room. A call whose
/// future is dropped while it waits changes nothing.
///
/// Dropping a handle does not change the configuration. Once the source is dropped, each call returns
/// [`ChangeError::SourceGone`]; a change that was still waiting never becomes visible, and `wait_for_revision` returns
/// `false`.
#[derive(Clone, Debug)]
pub struct LiveHandle {
    changes: mpsc::Sender<ChangeSet>,
    /// The last revision that was handed out. Locked while a change is queued, so that the queue is in the order of
    /// revisions.
    last: Arc<Mutex<Revision>>,
}

impl LiveHandle {
    /// Adds or replaces a webhook. `json` is the value, in the same form as in etcd.
    ///
    /// # Errors
    ///
    /// When the namespace or the id is not a valid name, and when the source is gone.
    pub async fn put_webhook(
        &self,
        namespace: &str,
        id: &str,
        json: impl Into<Bytes>,
    ) -> Result<Revision, ChangeError> {
        let key = Key::Webhook(WebhookKey::new(namespace, id)?);
        self.apply([Change { key, value: Some(json.into()) }]).await
    }

    /// Adds or replaces a connection. `json` is the value, in the same form as in etcd.
    ///
    /// # Errors
    ///
    /// When it is not a valid name, and when the source is gone.
    pub async fn put_connection(&self, name: &str, json: impl Into<Bytes>) -> Result<Revision, ChangeError> {
        let key = Key::connection(name)?;
        self.apply([Change { key, value: Some(json.into()) }]).await
    }

    /// Removes a webhook. If there is none, only the revision changes.
    ///
    /// # Errors
    ///
    /// When the namespace or the id is not a valid name, and when the source is gone.
    pub async fn remove_webhook(&self, namespace: &str, id: &str) -> Result<Revision, ChangeError> {
        let key = Key::Webhook(WebhookKey::new(namespace, id)?);
        self.apply([Change { key, value: None }]).await
    }

    /// Removes a connection. If there is none, only the revision changes.
    ///
    /// # Errors
    ///
    /// When it is not a valid name, and when the source is gone.
    pub async fn remove_connection(&self, name: &str) -> Result<Revision, ChangeError> {
        let key = Key::connection(name)?;
        self.apply([Change { key, value: None }]).await
    }

    /// Makes several changes at once: no request sees some of them without the others. If a key is changed twice, the
    /// last change counts.
    ///
    /// # Errors
    ///
    /// When the source is gone.
    pub async fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Result<Revision, ChangeError> {
        let changes = changes.into_iter().collect();
        let room = self.changes.reserve().await.map_err(|_| ChangeError::SourceGone)?;
        // The lock guards one addition, which cannot panic half-way.
        let mut last = lock(&self.last);
        *last += 1;
        room.send(ChangeSet { revision: *last, changes });
        Ok(*last)
    }
}

/// Why a call of a [`LiveHandle`] changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError {
    /// The name of the webhook or connection is invalid.
    InvalidName(InvalidName),
    /// The source was dropped, for example with its reflector.
    SourceGone,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName(error) => error.fmt(f),
            Self::SourceGone => {
                f.write_str("the source of the configuration was dropped, so the change is not applied")
            }
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<InvalidName> for ChangeError {
    fn from(error: InvalidName) -> Self {
        Self::InvalidName(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::config::Target;
    use crate::reflector::reflect;
    use crate::store::Store;
    use crate::webhook::Registry;

    const OPEN: &str = r#"{"module": "discard"}"#;

    fn put(id: &str, json: &'static str) -> Change {
        Change { key: Key::Webhook(WebhookKey::new("shop", id).unwrap()), value: Some(json.into()) }
    }

    fn is_served(store: &Store, id: &str) -> bool {
        store.snapshot().webhook(&Target::new("shop", id).unwrap()).is_some()
    }

    #[tokio::test]
    async fn changes_made_before_the_source_runs_follow_what_it_begins_with() {
        let (source, handle) = FixedSource::new().webhook("shop", "a", OPEN).unwrap().live();
        assert_eq!(handle.remove_webhook("shop", "a").await, Ok(2));
        assert_eq!(handle.clone().put_webhook("shop", "b", OPEN).await, Ok(3));
        assert_eq!(handle.put_connection("c", r#"{"type": "http", "url": "http://localhost"}"#).await, Ok(4));
        assert_eq!(handle.remove_connection("c").await, Ok(5));
        drop(handle);
        let (store, reflector) = reflect(source, Registry::builtin());
        reflector.run().await;
        assert!(store.wait_for_revision(5).await, "changes that wait are applied although the handle is gone");
        assert!(!store.wait_for_revision(6).await, "no change comes after the last one");
        assert!(!is_served(&store, "a") && is_served(&store, "b"));
        assert_eq!((store.status().source, store.status().state), ("live", SourceState::Live));
        assert_eq!(store.snapshot().counts().connections, 0);
    }

    #[tokio::test]
    async fn several_changes_become_visible_together() {
        let (source, handle) = FixedSource::new().live();
        let (store, reflector) = reflect(source, Registry::builtin());
        tokio::spawn(reflector.run());
        let mut reached = 0;
        for _ in 0..20 {
            let remove = ["a", "b"].map(|id| Change { value: None, ..put(id, OPEN) });
            handle.apply([put("a", OPEN), put("b", OPEN)]).await.unwrap();
            let revision = handle.apply(remove).await.unwrap();
            while reached < revision {
                let snapshot = store.snapshot();
                let [a, b] = ["a", "b"].map(|id| snapshot.webhook(&Target::new("shop", id).unwrap()).is_some());
                assert_eq!(a, b, "at revision {}", snapshot.revision());
                assert_eq!(a, snapshot.revision() > 0 && snapshot.revision() % 2 == 0);
                reached = snapshot.revision();
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_good_value_is_never_skipped() {
        let guarded = |token| {
            format!(r#"{{"module": "discard", "metadata": "{token}", "authorization": "Bearer {token}-s3cret"}}"#)
        };
        let (source, handle) = FixedSource::new().webhook("shop", "a", guarded("old")).unwrap().live();
        handle.put_webhook("shop", "a", guarded("new")).await.unwrap();
        let revision = handle.put_webhook("shop", "a", "{").await.unwrap();
        let (store, reflector) = reflect(source, Registry::builtin());
        tokio::spawn(reflector.run());
        assert!(store.wait_for_revision(revision).await);
        let snapshot = store.snapshot();
        assert_eq!(snapshot.counts().refused, 1);
        let serving = snapshot.webhook(&Target::new("shop", "a").unwrap()).unwrap();
        assert_eq!(serving.info().metadata(), Some(&"new".into()));
    }

    #[tokio::test]
    async fn a_call_waits_while_many_changes_wait() {
        let (source, handle) = FixedSource::new().live();
        for n in 0..WAITING {
            handle.put_webhook("shop", &format!("w{n}"), OPEN).await.unwrap();
        }
        assert!(handle.put_webhook("shop", "given_up", OPEN).now_or_never().is_none());
        let (store, reflector) = reflect(source, Registry::builtin());
        tokio::spawn(reflector.run());
        let revision = handle.put_webhook("shop", "last", OPEN).await.unwrap();
        assert_eq!(revision, FIRST + WAITING as Revision + 1);
        assert!(store.wait_for_revision(revision).await);
        assert_eq!(store.snapshot().counts().webhooks, WAITING + 1);
        assert!(!is_served(&store, "given_up"));
    }

    #[tokio::test]
    async fn a_proof_covers_every_change_that_was_made_before() {
        let (source, handle) = FixedSource::new().live();
        let (store, reflector) = reflect(source, Registry::builtin());
        tokio::spawn(reflector.run());
        store.wait_ready(Duration::from_secs(60)).await.unwrap();
        // A value of this size is compiled on another thread, so this test goes on meanwhile.
        let long = format!("{OPEN}{}", " ".repeat(17 << 10));
        for n in 0..50 {
            handle.put_webhook("shop", &format!("a{n}"), long.clone()).await.unwrap();
            let revision = handle.put_webhook("shop", &format!("b{n}"), long.clone()).await.unwrap();
            assert!(store.wait_fresh().await);
            assert!(store.snapshot().revision() >= revision);
        }
    }

    #[tokio::test]
    async fn a_source_that_is_gone_is_an_error() {
        let (source, handle) = FixedSource::new().live();
        let (store, reflector) = reflect(source, Registry::builtin());
        let waits = handle.put_webhook("shop", "a", OPEN).await.unwrap();
        drop(reflector);
        assert_eq!(handle.put_webhook("shop", "a", OPEN).await, Err(ChangeError::SourceGone));
        assert_eq!(handle.apply([]).await, Err(ChangeError::SourceGone));
        assert!(!store.wait_for_revision(waits).await);
    }

    #[tokio::test]
    async fn an_invalid_name_changes_nothing() {
        let (_source, handle) = FixedSource::new().live();
        for refused in [
            handle.put_webhook("shop", "no spaces", OPEN).await,
            handle.put_connection("", "{}").await,
            handle.remove_webhook("a/b", "c").await,
            handle.remove_connection("a/b").await,
        ] {
            assert!(matches!(refused, Err(ChangeError::InvalidName(_))), "{refused:?}");
        }
        assert_eq!(handle.remove_webhook("shop", "a").await, Ok(2), "no revision was used up");
    }
}
