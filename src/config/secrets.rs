//! Checks that no secret in a value is blank or an unfilled placeholder.

use std::cell::OnceCell;

use super::{CompileError, Node};
use crate::base::secret::{InvalidSecret, check_secret};
use crate::base::secret_names::is_secret;

/// A place in a value, named by the keys that lead to it. Items of an array share the place of the array.
///
/// Examining a name costs more than examining most texts, so a place is classified at its first use, and only once.
pub(crate) struct Place<'a> {
    key: &'a str,
    outer: Option<&'a Place<'a>>,
    kind: Kind,
    holds_secret: OnceCell<bool>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// No text at this place is a secret.
    Metadata,
    /// Each text at this place is a secret, or a part of one.
    Guard,
    /// The names of the keys decide which texts are secrets.
    Other,
}

impl<'a> Place<'a> {
    /// The place of a top-level key.
    pub(crate) fn of(key: &'a str, is_guard: bool) -> Self {
        let kind = match key {
            _ if is_guard => Kind::Guard,
            "metadata" => Kind::Metadata,
            _ => Kind::Other,
        };
        Self { key, outer: None, kind, holds_secret: OnceCell::new() }
    }

    /// The place of a key of the object at this place.
    pub(crate) fn inside(&'a self, key: &'a str) -> Self {
        Self { key, outer: Some(self), kind: self.kind, holds_secret: OnceCell::new() }
    }

    /// Whether a text at this place is a secret, contains one, or belongs to a guard.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(self.kind, Kind::Guard) || self.is_secret()
    }

    /// Whether a text at this place is a secret, or contains one, according to its name.
    fn is_secret(&self) -> bool {
        let is_secret = || {
            let is_value_of_secret = || self.key == "value" && self.outer.is_some_and(Self::is_secret);
            holds_secret(self.key) || is_value_of_secret()
        };
        !matches!(self.kind, Kind::Metadata) && *self.holds_secret.get_or_init(is_secret)
    }
}

/// Whether a text at `key` is a secret, or contains one, such as an address with a password.
fn holds_secret(key: &str) -> bool {
    const ADDRESSES: [&str; 3] = ["url", "uri", "dsn"];
    let last = key.rsplit(['_', '-']).next().unwrap_or(key);
    is_secret(key) || ADDRESSES.iter().any(|address| last.eq_ignore_ascii_case(address))
}

/// Refuses secrets that are blank, or that are unfilled placeholders.
pub(crate) fn check(node: &Node, place: &Place<'_>) -> Result<(), CompileError> {
    match node {
        Node::String(text) | Node::Expanded(text) | Node::Filled(text) => match check_secret(text) {
            // A guard checks its own secrets for blanks. Its other texts, such as a prefix, may be blank.
            Err(error @ InvalidSecret::Empty) if place.is_secret() => Err(CompileError::new(error.to_string())),
            Err(error @ InvalidSecret::Placeholder(_)) if place.is_guarded() => {
                Err(CompileError::new(error.to_string()))
            }
            _ => Ok(()),
        },
        Node::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(at, item)| check(item, place).map_err(|error| error.inside(&at.to_string()))),
        Node::Object(fields) => fields
            .iter()
            .try_for_each(|(key, value)| check(value, &place.inside(key)).map_err(|error| error.inside(key))),
        Node::Null | Node::Bool(_) | Node::Number(_) => Ok(()),
    }
}
