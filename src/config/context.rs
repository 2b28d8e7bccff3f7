//! The facts about a webhook that its modules and schemes get when they are built.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::key::WebhookKey;
use super::public_url::PublicUrl;
use super::warning::Notes;
use super::{CompileError, Connection, DataType};
use crate::base::network::Network;
use crate::base::wall_clock::WallClock;

/// The facts about a webhook that a module or scheme may use when it is built.
#[derive(Clone, Copy, Debug)]
pub struct BuildContext<'a> {
    pub(crate) webhook: &'a WebhookKey,
    pub(crate) data_type: DataType,
    pub(crate) connection: Option<&'a Arc<Connection>>,
    /// The address by which senders know it, if it is known.
    #[cfg_attr(not(feature = "signature"), allow(dead_code))]
    pub(crate) public_url: Option<&'a PublicUrl>,
    #[cfg_attr(not(feature = "signature"), allow(dead_code))]
    pub(crate) dedup: Option<DedupBy<'a>>,
    pub(crate) clock: &'a WallClock,
    pub(crate) trusted_proxies: &'a [Network],
    pub(crate) notes: &'a Notes,
    /// Whether the module is an item of a chain.
    #[cfg_attr(not(feature = "nats"), allow(dead_code))]
    pub(crate) is_in_chain: bool,
}

/// The kind of the webhook's rule for duplicate events, as far as a guard must know it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "signature"), allow(dead_code))]
pub(crate) struct DedupBy<'a> {
    /// The JSON pointer to the event's id, if there is its place.
    pub(crate) pointer: Option<&'a str>,
    /// How long an event is remembered.
    pub(crate) ttl: Duration,
}

impl<'a> BuildContext<'a> {
    /// The name of the webhook.
    pub fn webhook(&self) -> &'a WebhookKey {
        self.webhook
    }

    /// The webhook's data type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The clock that dates are compared with.
    pub fn clock(&self) -> &'a WallClock {
        self.clock
    }

    /// The connection that the webhook names, whatever its kind. Calling this records that the key `connection` has an
    /// effect.
    pub(crate) fn named_connection(&self) -> Option<&'a Arc<Connection>> {
        self.notes.asked();
        self.connection
    }

    /// The proxies in the webhook's key `trusted_proxies`.
    pub(crate) fn trusted_proxies(&self) -> &'a [Network] {
        self.trusted_proxies
    }

    /// Whether the module is an item of a chain, so that others of its kind may get the same event.
    #[cfg(feature = "nats")]
    pub(crate) fn is_in_chain(&self) -> bool {
        self.is_in_chain
    }

    /// Reports something that an operator should know, but that is no reason to refuse the configuration. It appears in
    /// [`Webhook::warnings`](crate::Webhook::warnings). The text must not hold a secret. A webhook keeps 16
    /// warnings, and 500 characters of each.
    pub fn warn(&self, text: impl fmt::Display) {
        self.notes.warn(CompileError::new(text.to_string()));
    }

    /// Like [`warn`](Self::warn), for something that is not new: the warning is listed but not logged.
    pub fn remark(&self, text: impl fmt::Display) {
        self.notes.remark(CompileError::new(text.to_string()));
    }

    /// The context of a webhook with the `data_type` json and without a connection; its warnings are dropped. Only
    /// tests of modules and schemes need this.
    pub fn bare(webhook: &'a WebhookKey) -> Self {
        static NOTES: Notes = Notes::new();
        static CLOCK: WallClock = WallClock::system();
        Self {
            webhook,
            data_type: DataType::Json,
            connection: None,
            public_url: None,
            dedup: None,
            clock: &CLOCK,
            trusted_proxies: &[],
            notes: &NOTES,
            is_in_chain: false,
        }
    }
}
