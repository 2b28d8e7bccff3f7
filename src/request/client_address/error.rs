//! Why a client's address is not known.

use std::fmt;

/// Why a client's address is not known, though a trusted proxy has sent the field that should hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidClientAddress(&'static str);

impl InvalidClientAddress {
    pub(super) const MALFORMED: Self = Self("The field that names the client's address is malformed");
    pub(super) const UNKNOWN: Self = Self("The field that names the client's address has none for the client");

    /// The same as its `Display`.
    pub fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for InvalidClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidClientAddress {}
