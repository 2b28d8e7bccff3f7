//! The error for unusable options of an egress.

use std::fmt;

/// A list of networks, or certificates, that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEgress(pub(super) &'static str);

impl fmt::Display for InvalidEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidEgress {}
