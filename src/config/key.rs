//! The rules for the names of webhooks, namespaces and connections.
//!
//! A valid name is safe in a URL path, an etcd key and a file name without escaping: ASCII letters, digits, `_` and
//! `-`, at most [`MAX_NAME`] bytes.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrayvec::ArrayString;

/// The longest namespace, webhook id or connection name, in bytes.
pub const MAX_NAME: usize = 64;

/// The longest `namespace/id`, in bytes.
const MAX_KEY: usize = 2 * MAX_NAME + 1;

/// Ids that are reserved for the operator's routes, compared without regard to case.
const RESERVED: [&str; 12] = [
    "stats",
    "health",
    "docs",
    "openapi.json",
    "redoc",
    "api",
    "admin",
    "root",
    "system",
    "internal",
    "favicon.ico",
    "robots.txt",
];

/// The bytes of a name. A table, because each request's path is checked.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < allowed.len() {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'_' | b'-');
        byte += 1;
    }
    allowed
};

/// The one webhook a request is meant for: a valid namespace and id, stored inline.
///
/// [`RouteNamespace`](crate::layers::RouteNamespace) adds it to the request. Making one allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    text: ArrayString<MAX_KEY>,
    split: u8,
}

impl Target {
    /// Names the webhook `id` of `namespace`.
    ///
    /// # Errors
    ///
    /// When one of the two is not a valid name.
    #[inline]
    pub fn new(namespace: &str, id: &str) -> Result<Self, InvalidName> {
        validate_namespace(namespace)?;
        validate_id(id)?;
        let mut text = ArrayString::new();
        // Both are at most MAX_NAME long, so the three pieces always fit.
        text.push_str(namespace);
        text.push('/');
        text.push_str(id);
        Ok(Self { text, split: namespace.len() as u8 })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.split)]
    }

    /// The webhook's id within its namespace.
    pub fn id(&self) -> &str {
        &self.text[usize::from(self.split) + 1..]
    }

    /// `namespace/id`, the key of the webhook in a snapshot.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.as_str())
    }
}

/// The name of a configured webhook: its namespace and its id. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WebhookKey {
    text: Arc<str>,
    split: u8,
}

impl WebhookKey {
    /// Names the webhook `id` of `namespace`.
    ///
    /// # Errors
    ///
    /// When one of the two is not a valid name.
    pub fn new(namespace: &str, id: &str) -> Result<Self, InvalidName> {
        Target::new(namespace, id).map(Self::from)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.split)]
    }

    /// The webhook's id within its namespace.
    pub fn id(&self) -> &str {
        &self.text[usize::from(self.split) + 1..]
    }

    /// `namespace/id`.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&WebhookKey> for Target {
    fn from(key: &WebhookKey) -> Self {
        let mut text = ArrayString::new();
        // The lengths were checked when `key` was made from a target.
        text.push_str(&key.text);
        Self { text, split: key.split }
    }
}

impl From<Target> for WebhookKey {
    fn from(target: Target) -> Self {
        Self { text: target.as_str().into(), split: target.split }
    }
}

impl Borrow<str> for WebhookKey {
    fn borrow(&self) -> &str {
        &self.text
    }
}

// `Borrow<str>` demands the hash of the text alone. The split is a function of the text.
impl Hash for WebhookKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookKey({self})")
    }
}

/// A key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Key {
    /// A webhook.
    Webhook(WebhookKey),
    /// A connection, shared by all namespaces.
    Connection(Box<str>),
}

impl Key {
    /// The key of a connection.
    ///
    /// # Errors
    ///
    /// When it is not a valid name. The rules are the same as for a namespace.
    pub fn connection(name: &str) -> Result<Self, InvalidName> {
        check_charset("connection name", name)?;
        Ok(Self::Connection(name.into()))
    }

    /// Parses a key relative to the prefix: `{namespace}/webhooks/{id}` or `global/connections/{name}`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey::Foreign`] for a key of another shape, [`InvalidKey::Name`] for a key of one of these shapes whose
    /// name no request could ask for.
    pub fn parse(relative: &[u8]) -> Result<Self, InvalidKey> {
        let text = std::str::from_utf8(relative).map_err(|_| InvalidKey::Foreign)?;
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some("webhooks"), Some(id), None) => Ok(Self::Webhook(WebhookKey::new(namespace, id)?)),
            (Some("global"), Some("connections"), Some(name), None) => Ok(Self::connection(name)?),
            _ => Err(InvalidKey::Foreign),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(key) => write!(f, "{}/webhooks/{}", key.namespace(), key.id()),
            Self::Connection(name) => write!(f, "global/connections/{name}"),
        }
    }
}

/// Why a key is neither a webhook's nor a connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The key has another shape. It is ignored and counted.
    Foreign,
    /// The key has the right shape and an invalid name: an operator's mistake.
    Name(InvalidName),
}

impl From<InvalidName> for InvalidKey {
    fn from(name: InvalidName) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("neither a webhook's nor a connection's key"),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl std::error::Error for InvalidKey {}

/// A namespace, webhook id or connection name that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {}", self.what, self.rule)
    }
}

impl std::error::Error for InvalidName {}

/// A namespace: 1 to 64 of `A-Z a-z 0-9 _ -`.
pub(crate) fn validate_namespace(name: &str) -> Result<(), InvalidName> {
    check_charset("namespace", name)
}

/// A webhook id: a valid namespace that also begins with a letter or digit, has no `--` or `__`, and is not a reserved
/// word.
pub(crate) fn validate_id(id: &str) -> Result<(), InvalidName> {
    const WHAT: &str = "webhook id";
    let invalid = |rule| Err(InvalidName { what: WHAT, rule });

    if RESERVED.iter().any(|word| id.eq_ignore_ascii_case(word)) {
        return invalid("it is a reserved word");
    }
    check_charset(WHAT, id)?;
    if !id.as_bytes()[0].is_ascii_alphanumeric() {
        return invalid("it must begin with a letter or a digit");
    }
    // Other characters that are neither letters nor digits were refused above.
    if id.as_bytes().windows(2).any(|pair| pair[0] == pair[1] && !pair[0].is_ascii_alphanumeric()) {
        return invalid("it must not contain `--` or `__`");
    }
    if ["internal_", "system_", "admin_"].iter().any(|p| starts_with_ignore_case(id, p)) {
        return invalid("it must not begin with `internal_`, `system_` or `admin_`");
    }
    if ["_internal", "_system", "_admin"].iter().any(|s| ends_with_ignore_case(id, s)) {
        return invalid("it must not end with `_internal`, `_system` or `_admin`");
    }
    Ok(())
}

fn check_charset(what: &'static str, name: &str) -> Result<(), InvalidName> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(InvalidName { what, rule: "it must be 1 to 64 characters long" });
    }
    if !name.bytes().all(|byte| ALLOWED[usize::from(byte)]) {
        return Err(InvalidName { what, rule: "only ASCII letters, digits, `_` and `-` are allowed" });
    }
    Ok(())
}

fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn ends_with_ignore_case(text: &str, suffix: &str) -> bool {
    text.len()
        .checked_sub(suffix.len())
        .and_then(|at| text.get(at..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_ids_are_valid() {
        for id in ["test_log", "a", "0", "GitHub-push", "x".repeat(64).as_str(), "administrator"] {
            assert_eq!(validate_id(id), Ok(()), "{id}");
        }
    }

    #[test]
    fn bad_ids_are_not() {
        let long = "x".repeat(65);
        for id in [
            "",
            long.as_str(),
            "_a",
            "-a",
            "a b",
            "a/b",
            "a.b",
            "a--b",
            "a__b",
            "é",
            "a\n",
            "a%2Fb",
            "a\0",
            "stats",
            "Health",
            "openapi.json",
            "FAVICON.ICO",
            "internal_x",
            "System_x",
            "admin_x",
            "x_internal",
            "x_SYSTEM",
            "x_admin",
        ] {
            assert!(validate_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn namespaces_have_no_trailing_newline_hole() {
        assert!(validate_namespace("default").is_ok());
        assert!(validate_namespace("_x-").is_ok());
        assert!(validate_namespace("default\n").is_err());
        assert!(validate_namespace("").is_err());
    }

    #[test]
    fn keys_of_both_families_are_read() {
        let key = Key::parse(b"default/webhooks/test_log").unwrap();
        assert_eq!(key, Key::Webhook(WebhookKey::new("default", "test_log").unwrap()));
        assert_eq!(key.to_string(), "default/webhooks/test_log");
        assert_eq!(Key::parse(b"global/connections/db").unwrap(), Key::Connection("db".into()));
        assert!(matches!(Key::parse(b"global/webhooks/x").unwrap(), Key::Webhook(_)));
    }

    #[test]
    fn other_keys_are_foreign_and_bad_names_are_named() {
        for key in
            [&b"default/hooks/a"[..], b"default/webhooks/a/b", b"default/connections/db", b"", b"/", b"\xff/webhooks/a"]
        {
            assert_eq!(Key::parse(key), Err(InvalidKey::Foreign), "{key:?}");
        }
        assert!(matches!(Key::parse(b"default/webhooks/-a"), Err(InvalidKey::Name(_))));
        assert!(matches!(Key::parse(b"/webhooks/a"), Err(InvalidKey::Name(_))));
        assert!(matches!(Key::parse(b"global/connections/a b"), Err(InvalidKey::Name(_))));
    }

    proptest! {
        #[test]
        fn a_target_and_its_key_agree(ns in "[A-Za-z0-9_-]{1,64}", id in "[a-z0-9]{1,64}") {
            let Ok(target) = Target::new(&ns, &id) else { return Ok(()) };
            let key = WebhookKey::from(target);
            prop_assert_eq!((target.namespace(), target.id()), (ns.as_str(), id.as_str()));
            prop_assert_eq!((key.namespace(), key.id()), (ns.as_str(), id.as_str()));
            prop_assert_eq!(<WebhookKey as Borrow<str>>::borrow(&key), target.as_str());
            let full = format!("{ns}/webhooks/{id}");
            prop_assert_eq!(Key::parse(full.as_bytes()), Ok(Key::Webhook(key)));
        }

        #[test]
        fn no_input_panics_and_what_passes_is_safe_in_a_path(ns in ".{0,70}", id in ".{0,70}") {
            if let Ok(target) = Target::new(&ns, &id) {
                prop_assert!(target.as_str().bytes().all(|b| b.is_ascii_graphic()));
                prop_assert_eq!(target.as_str().matches('/').count(), 1);
            }
        }
    }
}
