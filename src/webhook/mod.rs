//! A webhook, compiled.

mod chain;
mod compile;
mod identity;
mod registry;
mod spec;

#[cfg(fuzzing)]
pub(crate) use self::compile::fuzz;
pub(crate) use self::compile::{Compiler, Connections, Parsed, Read};
pub use self::registry::{Capabilities, Registry};

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::auth::Guards;
use crate::config::{Connection, DataType, Warnings, WebhookInfo, WebhookKey};
use crate::dedup::DedupRule;
use crate::delivery::{Gates, Steps};

/// What a webhook's 2xx answer promises: the key `ack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Promise {
    /// 200: the module has the event.
    #[default]
    Delivered,
    /// 202: the event is on disk, and will be delivered or become a dead letter.
    Accepted,
}

/// A configured webhook, compiled.
pub struct Webhook {
    pub(crate) info: Arc<WebhookInfo>,
    pub(crate) promise: Promise,
    pub(crate) guards: Guards,
    pub(crate) dedup: Option<DedupRule>,
    pub(crate) gates: Gates,
    pub(crate) steps: Steps,
    pub(crate) connections: Box<[Arc<Connection>]>,
    pub(crate) variables: Box<[Box<str>]>,
    pub(crate) warnings: Warnings,
}

impl Webhook {
    /// The part of it that its events carry along.
    pub fn info(&self) -> &Arc<WebhookInfo> {
        &self.info
    }

    /// Its name.
    pub fn key(&self) -> &WebhookKey {
        self.info.key()
    }

    /// The namespace it belongs to.
    pub fn namespace(&self) -> &str {
        self.info.namespace()
    }

    /// Its id within the namespace.
    pub fn id(&self) -> &str {
        self.info.id()
    }

    /// What its body must be.
    pub fn data_type(&self) -> DataType {
        self.info.data_type()
    }

    /// What its answer promises.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// The name of its module; of a chain, of the first one.
    pub fn module_name(&self) -> &str {
        self.steps.module_name()
    }

    /// Whether it has no guard: anybody may send.
    pub fn is_open(&self) -> bool {
        self.guards.is_empty()
    }

    /// The value of the key `metadata`, placeholders filled in: whatever an application that puts single layers before
    /// its own handler wants to keep with the webhook. This crate does not look at it.
    pub fn metadata(&self) -> Option<&Value> {
        self.info.metadata()
    }

    /// What makes two of its events the same; `None` if each is its own.
    pub fn dedup(&self) -> Option<&DedupRule> {
        self.dedup.as_ref()
    }

    /// What is odd about its configuration, though it compiles: a number that was moved into range, a key without
    /// effect. At most 16 texts, of at most 500 characters; none quotes a text of the configuration that may be a secret.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(|text| &**text)
    }

    pub(crate) fn shared_warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The connections that its modules may use.
    pub(crate) fn connections(&self) -> &[Arc<Connection>] {
        &self.connections
    }

    /// The variables that its placeholders name.
    pub(crate) fn variables(&self) -> &[Box<str>] {
        &self.variables
    }

    pub(crate) fn guards(&self) -> &Guards {
        &self.guards
    }

    pub(crate) fn gates(&self) -> &Gates {
        &self.gates
    }

    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("info", &self.info)
            .field("guards", &self.guards)
            .field("dedup", &self.dedup)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
