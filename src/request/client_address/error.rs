//! The error of a client's address that is not known.

use std::fmt;

/// The client's address is not known, although a trusted proxy has sent the field that should contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidClientAddress(&'static str);

impl InvalidClientAddress {
    pub(super) const MALFORMED: Self = Self("The field with the client's address is malformed");
    pub(super) const UNKNOWN: Self = Self("The field with the client's address names no address for the client");

    /// The text of the error, as shown by its `Display`.
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
