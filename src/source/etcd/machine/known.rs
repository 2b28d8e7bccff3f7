//! What is known of a key.

use sha2::{Digest, Sha256};

/// A revision of etcd; always positive.
pub(in crate::source::etcd) type Revision = i64;

/// etcd's own count of a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Meta {
    /// 1 when the key is made, and one more with each put.
    pub(in crate::source::etcd) version: i64,
    /// The revision that made it.
    pub(in crate::source::etcd) created: Revision,
    /// The revision that changed it last.
    pub(in crate::source::etcd) modified: Revision,
}

/// A key's life and its value. A script that is run again against an emptied etcd makes the same lives: only the values
/// differ.
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
