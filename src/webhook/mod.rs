//! A compiled webhook.

mod any_of;
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
use crate::config::{Connection, DataType, Warning, Warnings, WebhookInfo, WebhookKey};
use crate::dedup::DedupRule;
use crate::delivery::{Gates, Steps};
use crate::handshake::Handshake;
use crate::history::Kept;

/// The promise of a webhook's 2xx answer: the key `ack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Promise {
    /// 200: the module has taken the event.
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
    pub(crate) history: Kept,
    pub(crate) handshake: Option<Handshake>,
    pub(crate) gates: Gates,
    pub(crate) steps: Steps,
    pub(crate) connections: Box<[Arc<Connection>]>,
    pub(crate) variables: Box<[Box<str>]>,
    pub(crate) warnings: Warnings,
}

impl Webhook {
    /// The part of the webhook that its events carry along.
    pub fn info(&self) -> &Arc<WebhookInfo> {
        &self.info
    }

    /// The name of the webhook.
    pub fn key(&self) -> &WebhookKey {
        self.info.key()
    }

    /// The namespace that the webhook belongs to.
    pub fn namespace(&self) -> &str {
        self.info.namespace()
    }

    /// The webhook's id within the namespace.
    pub fn id(&self) -> &str {
        self.info.id()
    }

    /// The type of the webhook's bodies.
    pub fn data_type(&self) -> DataType {
        self.info.data_type()
    }

    /// The promise of the webhook's 2xx answers.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// The name of the webhook's module; the first one of a chain.
    pub fn module_name(&self) -> &str {
        self.steps.module_name()
    }

    /// The name of the webhook's module, shared.
    pub(crate) fn module(&self) -> Arc<str> {
        self.steps.module()
    }

    /// Whether the webhook has no guard: anybody may send.
    pub fn is_open(&self) -> bool {
        self.guards.is_empty()
    }

    /// The value of the key `metadata`, with placeholders filled in, for an application that puts single layers before
    /// its own handler. This crate does not use it.
    pub fn metadata(&self) -> Option<&Value> {
        self.info.metadata()
    }

    /// The rule by which duplicate events are recognised; `None` without `dedup`.
    pub fn dedup(&self) -> Option<&DedupRule> {
        self.dedup.as_ref()
    }

    /// How much a history keeps of the webhook's events.
    pub fn history(&self) -> Kept {
        self.history
    }

    /// The warnings about the webhook's configuration, such as a number that was moved into range or a key without
    /// effect. At most 16 texts of at most 500 characters; none quotes text that may be secret.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(Warning::text)
    }

    /// The warnings that are logged when the webhook is accepted.
    pub(crate) fn logged_warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().filter(|warning| warning.is_logged()).map(Warning::text)
    }

    pub(crate) fn shared_warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The connections that the webhook's modules may use.
    pub(crate) fn connections(&self) -> &[Arc<Connection>] {
        &self.connections
    }

    /// The variables named in the webhook's placeholders.
    pub(crate) fn variables(&self) -> &[Box<str>] {
        &self.variables
    }

    /// How its provider makes sure of it.
    pub(crate) fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
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
            .field("handshake", &self.handshake)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
