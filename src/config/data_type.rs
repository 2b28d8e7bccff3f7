//! The type of a webhook's bodies.

use std::fmt;

use serde::Deserialize;

/// The type of a webhook's bodies: the key `data_type` of its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DataType {
    /// One JSON value.
    #[default]
    Json,
    /// A form: `application/x-www-form-urlencoded`.
    Form,
    /// Any bytes.
    Blob,
}

impl fmt::Display for DataType {
    /// The word in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Form => "form",
            Self::Blob => "blob",
        })
    }
}
