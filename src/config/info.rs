//! The part of a webhook that its events carry along.

use std::fmt;

use serde_json::Value;

use super::DataType;
use super::key::WebhookKey;

/// The part of a webhook that its events carry along. It is made once, when the webhook is compiled, and all events
/// of the webhook share it.
///
/// ```
/// use tower_webhook::config::{DataType, WebhookInfo, WebhookKey};
///
/// let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
/// assert_eq!((info.namespace(), info.id()), ("shop", "orders"));
/// ```
pub struct WebhookInfo {
    key: WebhookKey,
    data_type: DataType,
    metadata: Option<Box<Value>>,
}

impl WebhookInfo {
    /// A webhook without `metadata`. Only tests need this: the compiler makes the info of a configured webhook.
    pub fn new(key: WebhookKey, data_type: DataType) -> Self {
        Self { key, data_type, metadata: None }
    }

    /// The same webhook with this `metadata`.
    #[must_use]
    pub fn with_metadata(self, metadata: Value) -> Self {
        Self { metadata: Some(Box::new(metadata)), ..self }
    }

    /// The name of the webhook.
    pub fn key(&self) -> &WebhookKey {
        &self.key
    }

    /// The namespace that the webhook belongs to.
    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    /// The webhook's id within the namespace.
    pub fn id(&self) -> &str {
        self.key.id()
    }

    /// The type of the webhook's bodies.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The value of the key `metadata`, placeholders filled in: whatever an application wants to keep with the webhook.
    /// This crate does not look at it.
    pub fn metadata(&self) -> Option<&Value> {
        self.metadata.as_deref()
    }
}

/// Without the metadata, which may hold secrets.
impl fmt::Debug for WebhookInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookInfo")
            .field("key", &self.key)
            .field("data_type", &self.data_type)
            .finish_non_exhaustive()
    }
}
