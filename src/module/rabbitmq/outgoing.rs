//! A message to be published.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;

use crate::event::EventId;

/// A message to be published.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) address: Address,
    /// Whether the routing key names a queue that is made if it is missing.
    pub(super) declare: bool,
    /// The `message_id` of `properties`.
    pub(super) id: EventId,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
}
