//! The name of a module or connection, as it is written in a webhook.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::error::shown;

/// A name. `Display` shows it to an operator.
pub(crate) struct Name {
    text: String,
    /// Whether the configuration spells the name out. A name from a variable is not shown, because the variable may
    /// hold a secret.
    is_spelled_out: bool,
}

impl Name {
    /// The type name by which a [`Node`](super::Node) recognises that a `Name` is read, and reports where its text
    /// comes from.
    pub(crate) const TYPE: &'static str = "tower_webhook::Name";

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(Self::TYPE, Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    /// The name is spelled out.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        Ok(Name { text: String::deserialize(deserializer)?, is_spelled_out: true })
    }

    /// At least a part of the name comes from a variable.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        Ok(Name { text: String::deserialize(deserializer)?, is_spelled_out: false })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_spelled_out {
            true => write!(f, "`{}`", shown(&self.text)),
            false => f.write_str("(named by a variable)"),
        }
    }
}
