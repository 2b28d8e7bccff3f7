//! How far the configuration has got.

/// A revision of the configuration.
///
/// From etcd it is etcd's own revision; from a file it counts the times the files were taken over. 0 is before the
/// first.
pub type Revision = u64;
