//! How far the configuration has got.

/// A revision of the configuration.
///
/// From etcd it is etcd's own revision; from a file it counts the times the files were taken over; from a
/// [`LiveHandle`](crate::source::LiveHandle) it counts the changes. 0 is before the first.
pub type Revision = u64;
