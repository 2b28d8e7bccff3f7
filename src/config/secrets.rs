//! Secrets of a value: none may be a placeholder that nothing has filled in.

use super::{CompileError, Node};
use crate::auth::{InvalidSecret, check_secret};
use crate::sensitive::is_secret;

/// Whether a text that stands at `key` is a secret, or holds one, as an address with a password does.
pub(super) fn holds_secret(key: &str) -> bool {
    const ADDRESSES: [&str; 3] = ["url", "uri", "dsn"];
    let last = key.rsplit(['_', '-']).next().unwrap_or(key);
    is_secret(key) || ADDRESSES.iter().any(|address| last.eq_ignore_ascii_case(address))
}

/// Refuses such placeholders in what stands at `key`; all of a guard is secret.
pub(super) fn check(key: &str, node: &Node, is_guard: bool) -> Result<(), CompileError> {
    // To look into the names costs more, and hardly any value needs it.
    if !holds_placeholder(node) {
        return Ok(());
    }
    Walk { is_guard }.check(node, is_guard || holds_secret(key)).map_err(|error| error.inside(key))
}

fn holds_placeholder(node: &Node) -> bool {
    match node {
        Node::String(text) | Node::Expanded(text) | Node::Filled(text) => {
            matches!(check_secret(text), Err(InvalidSecret::Placeholder(_)))
        }
        Node::Array(items) => items.iter().any(holds_placeholder),
        Node::Object(fields) => fields.iter().any(|(_, value)| holds_placeholder(value)),
        Node::Null | Node::Bool(_) | Node::Number(_) => false,
    }
}

struct Walk {
    is_guard: bool,
}

impl Walk {
    fn check(&self, node: &Node, is_secret: bool) -> Result<(), CompileError> {
        match node {
            Node::String(text) | Node::Expanded(text) | Node::Filled(text) if is_secret => match check_secret(text) {
                // Who must have a secret says so: a client may have none.
                Ok(()) | Err(InvalidSecret::Empty) => Ok(()),
                Err(error) => Err(CompileError::new(error.to_string())),
            },
            Node::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(at, item)| self.check(item, is_secret).map_err(|error| error.inside(&at.to_string()))),
            Node::Object(fields) => fields.iter().try_for_each(|(key, value)| {
                let is_secret = self.is_guard || holds_secret(key) || (is_secret && key == "value");
                self.check(value, is_secret).map_err(|error| error.inside(key))
            }),
            _ => Ok(()),
        }
    }
}
