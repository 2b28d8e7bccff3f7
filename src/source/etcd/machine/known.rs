//! The known state of a key.

use sha2::{Digest, Sha256};

/// A revision of etcd; always positive.
pub(in crate::source::etcd) type Revision = i64;

/// etcd's metadata of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Meta {
    /// 1 when the key is created, and one more with each put.
    pub(in crate::source::etcd) version: i64,
    /// The revision that created the key.
    pub(in crate::source::etcd) created: Revision,
    /// The revision that last changed the key.
    pub(in crate::source::etcd) modified: Revision,
}

/// The metadata of a key and the digest of its value. A script that is run again on an emptied etcd produces the same
/// metadata; only values can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Known {
    pub(in crate::source::etcd) meta: Meta,
    /// The first half of the value's SHA-256.
    digest: [u8; 16],
}

impl Known {
    pub(in crate::source::etcd) fn new(meta: Meta, value: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(value)[..16]);
        Self { meta, digest }
    }
}
