//! The name of a module or connection, as a webhook gives it.

use std::fmt;

use super::error::shown;
use super::{CompileError, Node};

/// A name. Its `Display` is for an operator's eyes.
pub(super) struct Name {
    text: String,
    /// Whether the configuration spells it out: what a variable holds may be a secret, and is not shown.
    is_written: bool,
}

impl Name {
    /// Reads the name that stands at `key`.
    pub(super) fn read(key: &str, node: Node) -> Result<Self, CompileError> {
        let is_written = matches!(node, Node::String(_));
        let text = node.read().map_err(|error| error.inside(key))?;
        Ok(Self { text, is_written })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_written {
            true => write!(f, "`{}`", shown(&self.text)),
            false => f.write_str("of the name that a variable holds"),
        }
    }
}
