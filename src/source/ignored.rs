//! Keys of a source that are not used, with the nearest key that would be.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use sha2::{Digest as _, Sha256};

use crate::base::shown::Shown;
use crate::config::{InvalidKey, Key};
use crate::store::IgnoredKey;

/// The number of ignored keys that are listed, and the number that are logged.
const MOST: usize = 100;

/// The most listed keys without a hint. Such keys probably belong to somebody else, and must not displace a misspelt
/// key.
const MOST_FOREIGN: usize = 50;

/// The number of characters of a key that are shown.
const SHOWN: usize = 200;

/// The digest of a key: keys may be long.
type Name = [u8; 32];

/// The ignored keys of a source: all are counted, the first ones are listed.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    total: u64,
    listed: HashMap<Name, IgnoredKey, RandomState>,
}

impl Ignored {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Adds a key that was not there before.
    pub(super) fn add(&mut self, prefix: &str, key: &[u8], logged: &mut Logged) {
        self.total += 1;
        if logged.full && self.listed.len() >= MOST {
            return;
        }
        let ignored = explain(prefix, key);
        let name = name(key);
        logged.once(name, &ignored);
        if has_room(self.listed.len(), &ignored) {
            self.listed.insert(name, ignored);
        }
    }

    /// Removes a key that is gone.
    #[cfg(feature = "etcd")]
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.total = self.total.saturating_sub(1);
        self.listed.remove(&name(key));
    }

    /// The listed keys, in order.
    pub(super) fn list(&self) -> Vec<IgnoredKey> {
        let mut list: Vec<_> = self.listed.values().cloned().collect();
        list.sort_by(|a, b| a.key.cmp(&b.key));
        list
    }
}

/// The ignored keys that were logged: each once in the life of a process, and a limited number in all.
#[derive(Debug, Default)]
pub(super) struct Logged {
    names: HashSet<Name, RandomState>,
    full: bool,
}

impl Logged {
    fn once(&mut self, name: Name, IgnoredKey { key, reason, hint }: &IgnoredKey) {
        if self.names.contains(&name) {
            return;
        }
        if self.names.len() < MOST {
            self.names.insert(name);
            match hint {
                Some(hint) => tracing::warn!(key, reason, hint, "a key of the configuration is ignored"),
                None => tracing::warn!(key, reason, "a key of the configuration is ignored"),
            }
        } else if !std::mem::replace(&mut self.full, true) {
            tracing::warn!("more keys of the configuration are ignored; the log names no more than {MOST} of them");
        }
    }
}

fn has_room(listed: usize, ignored: &IgnoredKey) -> bool {
    listed < if ignored.hint.is_some() { MOST } else { MOST_FOREIGN }
}

fn name(key: &[u8]) -> Name {
    Sha256::digest(key).into()
}

/// Why the key is ignored, and the nearest key that would be used. `key` begins with the prefix.
fn explain(prefix: &str, key: &[u8]) -> IgnoredKey {
    let relative = key.strip_prefix(prefix.as_bytes()).unwrap_or(key);
    let text = std::str::from_utf8(relative).ok();
    IgnoredKey {
        key: format!("{prefix}{}", Shown::new(relative, SHOWN)),
        reason: text.map_or_else(|| "it is not UTF-8".to_owned(), reason),
        hint: text.and_then(nearest).map(|key| format!("{prefix}{key}")),
    }
}

fn reason(text: &str) -> String {
    let parts: Vec<_> = text.split('/').collect();
    let reason = match parts[..] {
        [""] => "it is the prefix alone",
        _ if text.ends_with(['\n', '\r']) => "it ends in a line break",
        _ if text.contains(char::is_control) => "it contains a control character",
        _ if parts.iter().any(|part| part.trim() != *part) => {
            "it contains a blank before or after a slash, or at its end"
        }
        [_, "webhooks", ""] => "the id is missing",
        ["global", "connections", ""] => "the name is missing",
        ["", "webhooks", _] => "the namespace is missing",
        _ if parts.contains(&"") => "it contains a slash too many",
        [namespace, "connections", _] if namespace != "global" => "connections belong to the namespace `global`",
        _ => match Key::parse(text.as_bytes()) {
            Err(InvalidKey::Name(name)) => return name.to_string(),
            _ => "it is neither {namespace}/webhooks/{id} nor global/connections/{name}",
        },
    };
    reason.to_owned()
}

/// The key that was probably meant.
fn nearest(text: &str) -> Option<Key> {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let parts: Vec<_> = text.split('/').map(|part| part.trim_matches(blank)).filter(|part| !part.is_empty()).collect();
    let at = |exact: bool| parts.iter().position(|part| Family::of(part).is_some_and(|(_, is)| is >= exact));
    let (family, namespace, rest) = match (at(true).or_else(|| at(false)), &parts[..]) {
        (None, [namespace, id]) => (Family::Webhook, *namespace, std::slice::from_ref(id)),
        (None, _) => return None,
        // The namespace is missing, or comes after the family.
        (Some(0), [family, namespace, rest @ ..]) if !rest.is_empty() => (Family::of(family)?.0, *namespace, rest),
        (Some(0), [family, rest @ ..]) => (Family::of(family)?.0, "default", rest),
        (Some(at), parts) => (Family::of(parts[at])?.0, parts[at - 1], &parts[at + 1..]),
    };
    let name = allowed(&rest.join("-"));
    let nearest = match family {
        Family::Webhook => format!("{}/webhooks/{name}", allowed(namespace)),
        Family::Connection => format!("global/connections/{name}"),
    };
    Key::parse(nearest.as_bytes()).ok()
}

#[derive(Clone, Copy, Debug)]
enum Family {
    Webhook,
    Connection,
}

impl Family {
    /// The family that a part of a key probably means, and whether it is spelt correctly.
    fn of(part: &str) -> Option<(Self, bool)> {
        let near = |word| strsim::osa_distance(&part.to_ascii_lowercase(), word) <= 2;
        match part {
            "webhooks" => Some((Self::Webhook, true)),
            "connections" => Some((Self::Connection, true)),
            _ if part.len() > 20 => None,
            _ if near("webhooks") || part.eq_ignore_ascii_case("hooks") => Some((Self::Webhook, false)),
            _ if near("connections") => Some((Self::Connection, false)),
            _ => None,
        }
    }
}

/// The name with each run of forbidden characters replaced by `-`.
fn allowed(name: &str) -> String {
    let mut allowed = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        if c.is_ascii_alphanumeric() || !allowed.ends_with(c) {
            allowed.push(c);
        }
    }
    allowed.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_mistake_has_a_reason_and_the_corrected_key() {
        for (key, reason, hint) in [
            ("default/webhooks/a\n", "line break", Some("default/webhooks/a")),
            ("default/webhooks/a\r\n", "line break", Some("default/webhooks/a")),
            ("default/webhooks\n/a", "control", Some("default/webhooks/a")),
            ("default/webhooks/a\0", "control", Some("default/webhooks/a")),
            (" default/webhooks/a", "blank", Some("default/webhooks/a")),
            ("default/webhook/a", "neither", Some("default/webhooks/a")),
            ("default/Webhooks/a", "neither", Some("default/webhooks/a")),
            ("default/WEBHOOK/a", "neither", Some("default/webhooks/a")),
            ("default/hooks/a", "neither", Some("default/webhooks/a")),
            ("default/wehbooks/a", "neither", Some("default/webhooks/a")),
            ("default/webhooks", "neither", None),
            ("default/webhooks/", "id is missing", None),
            ("/webhooks/a", "namespace is missing", Some("default/webhooks/a")),
            ("webhooks/a", "neither", Some("default/webhooks/a")),
            ("webhooks/acme/a", "neither", Some("acme/webhooks/a")),
            ("default/webhooks/a/", "slash too many", Some("default/webhooks/a")),
            ("default//webhooks/a", "slash too many", Some("default/webhooks/a")),
            ("/default/webhooks/a", "slash too many", Some("default/webhooks/a")),
            ("cwm/default/webhooks/a", "neither", Some("default/webhooks/a")),
            ("default/webhooks/a/b", "neither", Some("default/webhooks/a-b")),
            ("default/webhooks/a.b", "invalid webhook id", Some("default/webhooks/a-b")),
            ("default/webhooks/-a--b", "invalid webhook id", Some("default/webhooks/a-b")),
            ("default/webhooks/health", "reserved", None),
            ("my ns/webhooks/a", "invalid namespace", Some("my-ns/webhooks/a")),
            ("global/connection/db", "neither", Some("global/connections/db")),
            ("global/Connections/db", "neither", Some("global/connections/db")),
            ("default/connections/db", "`global`", Some("global/connections/db")),
            ("connections/db", "neither", Some("global/connections/db")),
            ("global/connections/", "name is missing", None),
            ("global/connections/my db", "invalid connection name", Some("global/connections/my-db")),
            ("default/a", "neither", Some("default/webhooks/a")),
            ("version", "neither", None),
            ("a/b/c/d", "neither", None),
            ("", "prefix alone", None),
        ] {
            let ignored = explain("/cwm/", format!("/cwm/{key}").as_bytes());
            assert!(ignored.reason.contains(reason), "{key:?}: {}", ignored.reason);
            assert_eq!(ignored.hint, hint.map(|hint| format!("/cwm/{hint}")), "{key:?}");
        }
        let ignored = explain("/cwm/", b"/cwm/default/webhooks/\xff");
        assert_eq!((&*ignored.reason, ignored.hint), ("it is not UTF-8", None));
        assert_eq!(ignored.key, r"/cwm/default/webhooks/\xff");
    }

    #[test]
    fn there_is_always_room_for_a_misspelt_key_among_foreign_ones() {
        let (mut ignored, mut logged) = (Ignored::default(), Logged::default());
        for n in 0..10_000 {
            ignored.add("/cwm/", format!("elsewhere/{n}/a/b").as_bytes(), &mut logged);
        }
        ignored.add("/cwm/", b"default/webhook/a", &mut logged);
        assert_eq!((ignored.total(), ignored.list().len()), (10_001, MOST_FOREIGN + 1));
        assert_eq!(logged.names.len(), MOST);
        for n in 0..10_000 {
            ignored.add("/cwm/", format!("default/webhook/{n}").as_bytes(), &mut logged);
        }
        assert_eq!(ignored.list().len(), MOST);
        for n in 0..10_000 {
            ignored.remove(format!("default/webhook/{n}").as_bytes());
            ignored.remove(format!("elsewhere/{n}/a/b").as_bytes());
        }
        assert_eq!((ignored.total(), ignored.list().len()), (1, 1));
    }

    proptest! {
        #[test]
        fn a_hint_is_a_key_and_what_is_shown_is_one_short_line(text in ".{0,300}", parts in "[a/ bweho k.\\-_\n]{0,20}") {
            for key in [text.as_str(), parts.as_str(), &format!("default/webhook/{text}"), &format!("{text}/Webhooks/{parts}")] {
                if Key::parse(key.as_bytes()).is_ok() {
                    continue;
                }
                let ignored = explain("/cwm/", format!("/cwm/{key}").as_bytes());
                prop_assert!(!ignored.key.contains(char::is_control) && ignored.key.chars().count() <= 10 * SHOWN + 10);
                if let Some(hint) = &ignored.hint {
                    prop_assert!(Key::parse(&hint.as_bytes()[5..]).is_ok(), "{hint}");
                    prop_assert_ne!(&hint[5..], key);
                }
            }
        }

        #[test]
        fn no_bytes_panic(key: Vec<u8>) {
            let ignored = explain("/cwm/", &key);
            prop_assert!(!ignored.key.contains(char::is_control));
        }
    }
}
