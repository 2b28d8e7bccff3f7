//! A configured connection.

use std::fmt;

use serde::de::DeserializeOwned;

use super::BuildError;
use super::node::Node;

/// A configured connection: the address and credentials that modules share.
pub struct Connection {
    pub(crate) name: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) config: Node,
}

impl Connection {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its `type`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Everything but its `type`, read as `T`. Unknown fields are refused.
    ///
    /// # Errors
    ///
    /// When it does not fit. The text holds no value.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, BuildError> {
        Ok(self.config.clone().read()?)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}
