//! The type of a webhook's bodies.

use serde::Deserialize;

/// The type of a webhook's bodies: the key `data_type` of its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DataType {
    /// One JSON value.
    #[default]
    Json,
    /// Any bytes.
    Blob,
}
