//! The name of a module or connection, as a webhook gives it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::error::shown;

/// A name. Its `Display` is for an operator's eyes.
pub(crate) struct Name {
    text: String,
    /// Whether the configuration spells it out: what a variable holds may be a secret, and is not shown.
    is_written: bool,
}

impl Name {
    /// By this type a [`Node`](super::Node) knows that a name is read, and says where its text comes from.
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

    /// The configuration spells it out.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        Ok(Name { text: String::deserialize(deserializer)?, is_written: true })
    }

    /// At least a part of it is what a variable holds.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        Ok(Name { text: String::deserialize(deserializer)?, is_written: false })
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
