//! The revision of the configuration.

/// A revision of the configuration.
///
/// In etcd it is etcd's own revision. A file source counts the times it has loaded its files, and a
/// [`LiveHandle`](crate::source::LiveHandle) counts its changes. 0 means that nothing has been loaded yet.
pub type Revision = u64;
