//! What a module or a scheme learns of the webhook that it is built for.

use std::fmt;
use std::sync::Arc;

use super::key::WebhookKey;
use super::warning::Notes;
use super::{CompileError, Connection, DataType};

/// What a module or scheme may know when it is built.
#[derive(Clone, Copy, Debug)]
pub struct BuildContext<'a> {
    pub(crate) webhook: &'a WebhookKey,
    pub(crate) data_type: DataType,
    pub(crate) connection: Option<&'a Arc<Connection>>,
    pub(crate) notes: &'a Notes,
}

impl<'a> BuildContext<'a> {
    /// The webhook it is built for.
    pub fn webhook(&self) -> &'a WebhookKey {
        self.webhook
    }

    /// The webhook's data type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The connection that the webhook names, of whatever kind; from now on the key `connection` has an effect.
    pub(crate) fn named_connection(&self) -> Option<&'a Arc<Connection>> {
        self.notes.asked();
        self.connection
    }

    /// Tells the operator of something odd that is no reason to refuse the configuration, as
    /// [`Webhook::warnings`](crate::webhook::Webhook::warnings) does. The text must hold no secret. Of one webhook 16 warnings are kept, and of each 500
    /// characters.
    pub fn warn(&self, text: impl fmt::Display) {
        self.notes.warn(CompileError::new(text.to_string()));
    }

    /// The context of a webhook with the `data_type` json, without a connection, whose warnings nobody reads. Only tests of
    /// modules and schemes need this.
    pub fn bare(webhook: &'a WebhookKey) -> Self {
        static NOTES: Notes = Notes::new();
        Self { webhook, data_type: DataType::Json, connection: None, notes: &NOTES }
    }
}
