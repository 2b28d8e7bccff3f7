//! Secrets of a value: none may be blank, or a placeholder that nothing has filled in.

use std::cell::OnceCell;

use super::{CompileError, Node};
use crate::base::secret::{InvalidSecret, check_secret};
use crate::base::secret_names::is_secret;

/// A place in a value, named by the keys that lead to it. Items of an array share the place of the array.
///
/// To look into a name costs more than to look at most texts, so a place decides only when it is asked, and once.
pub(crate) struct Place<'a> {
    key: &'a str,
    outer: Option<&'a Place<'a>>,
    kind: Kind,
    holds_secret: OnceCell<bool>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// No text of it is a secret.
    Metadata,
    /// Each text of it is a secret, or belongs to one.
    Guard,
    /// The names tell which texts are secrets.
    Other,
}

impl<'a> Place<'a> {
    /// The place of a key of the whole value.
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

    /// Whether a text at this place is a secret, holds one, or is a part of a guard.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(self.kind, Kind::Guard) || self.is_secret()
    }

    /// Whether a text at this place is a secret, or holds one, by its name.
    fn is_secret(&self) -> bool {
        let is_secret = || {
            let is_value_of_secret = || self.key == "value" && self.outer.is_some_and(Self::is_secret);
            holds_secret(self.key) || is_value_of_secret()
        };
        !matches!(self.kind, Kind::Metadata) && *self.holds_secret.get_or_init(is_secret)
    }
}

/// Whether a text at `key` is a secret, or holds one, as an address with a password does.
fn holds_secret(key: &str) -> bool {
    const ADDRESSES: [&str; 3] = ["url", "uri", "dsn"];
    let last = key.rsplit(['_', '-']).next().unwrap_or(key);
    is_secret(key) || ADDRESSES.iter().any(|address| last.eq_ignore_ascii_case(address))
}

/// Refuses secrets that are blank, or a placeholder that nothing has filled in.
pub(crate) fn check(node: &Node, place: &Place<'_>) -> Result<(), CompileError> {
    match node {
        Node::String(text) | Node::Expanded(text) | Node::Filled(text) => match check_secret(text) {
            // A guard itself refuses a secret that is blank. Its other texts, such as a prefix, may be.
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
