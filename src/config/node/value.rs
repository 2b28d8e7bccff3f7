//! The value itself, and what is read off it.

use serde::de::{self, DeserializeOwned};
use serde_json::{Number, Value};

use crate::config::error::CompileError;

/// A configuration value.
#[derive(Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    /// The value of a placeholder that was the whole string.
    Expanded(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
    /// A string with placeholders in it, after their values were filled in.
    Filled(String),
}

impl Node {
    /// The number of keys and items in this value, at all levels.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Array(items) => items.iter().map(|item| 1 + item.held()).sum(),
            Self::Object(fields) => fields.iter().map(|(_, value)| 1 + value.held()).sum(),
            _ => 0,
        }
    }

    /// The total length of the keys and strings in this value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Array(items) => items.iter().map(Self::bytes).sum(),
            Self::Object(fields) => fields.iter().map(|(key, value)| key.len() + value.bytes()).sum(),
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => text.len(),
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
        }
    }

    /// Reads a `T`. Fields that `T` does not know are refused, with or without `deny_unknown_fields`.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, CompileError> {
        T::deserialize(self)
    }

    /// Reads the value of the key `key`.
    pub(crate) fn read_at<T: DeserializeOwned>(self, key: &str) -> Result<T, CompileError> {
        self.read().map_err(|error| error.inside(key))
    }

    /// The value of a key, if this is an object with that key.
    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(value) => Value::Number(value),
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => Value::String(text),
            Self::Array(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(fields) => fields.into_iter().map(|(key, value)| (key, value.into_value())).collect(),
        }
    }

    /// The error for a value whose type is not `expected`.
    pub(crate) fn is_not(&self, expected: &str) -> CompileError {
        de::Error::invalid_type(self.unexpected(), &expected)
    }

    pub(super) fn unexpected(&self) -> de::Unexpected<'_> {
        match self {
            Self::Null => de::Unexpected::Unit,
            Self::Bool(value) => de::Unexpected::Bool(*value),
            Self::Number(_) => de::Unexpected::Unsigned(0),
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => de::Unexpected::Str(text),
            Self::Array(_) => de::Unexpected::Seq,
            Self::Object(_) => de::Unexpected::Map,
        }
    }
}
