//! A message to be published.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;

/// A message to be published.
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    /// Whether the routing key names a queue that is made if it is missing.
    pub(super) declare: bool,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}
