//! What a webhook's body must be.

use serde::Deserialize;

/// What a webhook's body is: the key `data_type` of its configuration.
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
