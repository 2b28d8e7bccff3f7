//! A configuration that never changes.

use std::fmt;

use bytes::Bytes;

use crate::config::{InvalidName, Key, WebhookKey};
use crate::reflector::{Feed, Source};
use crate::store::SourceState;

/// Webhooks from constants, for tests and for embedding.
///
/// A value that does not compile is refused as from any other source: its webhook answers 503.
#[derive(Clone, Default)]
pub struct FixedSource {
    entries: Vec<(Key, Bytes)>,
}

impl FixedSource {
    /// Without any webhook.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a webhook; `json` is what etcd would hold.
    ///
    /// # Errors
    ///
    /// When the namespace or the id is not a valid name.
    pub fn webhook(mut self, namespace: &str, id: &str, json: impl Into<Bytes>) -> Result<Self, InvalidName> {
        self.entries.push((Key::Webhook(WebhookKey::new(namespace, id)?), json.into()));
        Ok(self)
    }

    /// Adds a connection; `json` is what etcd would hold.
    ///
    /// # Errors
    ///
    /// When it is not a valid name.
    pub fn connection(mut self, name: &str, json: impl Into<Bytes>) -> Result<Self, InvalidName> {
        self.entries.push((Key::connection(name)?, json.into()));
        Ok(self)
    }
}

/// Not the values: any of them may be a secret.
impl fmt::Debug for FixedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(key, _)| key)).finish()
    }
}

impl Source for FixedSource {
    const NAME: &'static str = "fixed";

    async fn run(self, mut feed: Feed) {
        let mut replacement = feed.replace().await;
        for (key, json) in self.entries {
            replacement.put(key, 1, json).await;
        }
        feed.commit(replacement, 1).await;
        feed.state(SourceState::Live);
    }
}
