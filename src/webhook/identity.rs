//! The identity of the steps of a webhook. Events that wait on disk remember, with this identity, which steps have
//! taken them.

use sha2::{Digest, Sha256};

use super::chain::StepSpec;
use crate::config::{Name, Node};

/// Computes the identity of steps: which modules, in which order, with which configuration. The order of keys does not
/// count, nor whether a string came from a variable. The identity is written to disk, so it must not depend on the
/// compiler or the platform.
pub(super) fn identity(steps: &[StepSpec], connection: Option<&Name>) -> [u8; 8] {
    let mut hasher = Sha256::new();
    for step in steps {
        let connection = step.connection.as_ref().or(connection).map(Name::as_str);
        text(&mut hasher, b'm', step.module.as_str());
        text(&mut hasher, b'c', connection.unwrap_or_default());
        node(&mut hasher, &step.config);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}

/// Each value is preceded by a byte for its type and, where its length varies, by its length: different values feed
/// different bytes.
fn node(hasher: &mut Sha256, value: &Node) {
    match value {
        Node::Null => hasher.update(b"n"),
        Node::Bool(value) => hasher.update(if *value { b"t" } else { b"f" }),
        Node::Number(value) => text(hasher, b'd', &value.to_string()),
        Node::String(value) | Node::Expanded(value) | Node::Filled(value) => text(hasher, b's', value),
        Node::Array(items) => {
            length(hasher, b'a', items.len());
            items.iter().for_each(|item| node(hasher, item));
        }
        Node::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            length(hasher, b'o', fields.len());
            for (key, value) in fields {
                text(hasher, b'k', key);
                node(hasher, value);
            }
        }
    }
}

fn text(hasher: &mut Sha256, kind: u8, text: &str) {
    length(hasher, kind, text.len());
    hasher.update(text);
}

fn length(hasher: &mut Sha256, kind: u8, length: usize) {
    hasher.update([kind]);
    hasher.update((length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Retry;

    fn of(steps: &[(&str, &str)]) -> [u8; 8] {
        let name = |text: &str| Node::String(text.into()).read::<Name>().unwrap();
        let step = |&(module, config): &(&str, &str)| StepSpec {
            item: None,
            module: name(module),
            connection: None,
            config: Node::parse(config.as_bytes()).unwrap(),
            retry: Retry::never(),
        };
        identity(&steps.iter().map(step).collect::<Vec<_>>(), None)
    }

    #[test]
    fn it_is_the_same_in_every_version() {
        // With another identity, the steps that are done would be repeated for events that wait on a disk.
        let identity = of(&[("log", r#"{"pretty_print": true, "n": [1, null, "x"]}"#), ("discard", "{}")]);
        assert_eq!(identity, [0x65, 0x9b, 0xa0, 0xcd, 0x2f, 0xc3, 0x14, 0x07]);
    }

    #[test]
    fn it_depends_on_what_the_steps_do() {
        let base = of(&[("log", r#"{"a": "1", "b": 2}"#), ("discard", "{}")]);
        assert_eq!(of(&[("log", r#"{"b": 2, "a": "1"}"#), ("discard", "{}")]), base, "the order of keys");
        for other in [
            vec![("discard", "{}"), ("log", r#"{"a": "1", "b": 2}"#)],
            vec![("log", r#"{"a": 1, "b": 2}"#), ("discard", "{}")],
            vec![("log", r#"{"a": "1", "b": [2]}"#), ("discard", "{}")],
            vec![("log", r#"{"a": "1"}"#), ("discard", r#"{"b": 2}"#)],
            vec![("log", r#"{"a": "1", "b": 2}"#)],
        ] {
            assert_ne!(of(&other), base, "{other:?}");
        }
    }
}
