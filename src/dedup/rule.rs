//! Rules: where a request's event id is found, and for how long it is remembered.

use std::fmt;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, Request};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::config::{DataType, DedupBy, WebhookKey};
use crate::form;
use crate::json::{InvalidPointer, Pointer, Scalar};
use crate::request::{Collected, Rejection, RejectionKind};

/// The default time that an event is remembered: senders retry for about three days.
pub const DEFAULT_TTL: Duration = Duration::from_secs(72 * 3600);

/// The longest time that an event is remembered.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest id that a sender may give an event, in bytes.
pub const MAX_ID: usize = 256;

/// The longest name of a header field that holds the id, in bytes.
const MAX_NAME: usize = 256;

/// Where the id of an event is found, and for how long the event is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Config")]
pub struct DedupRule {
    source: Source,
    /// In seconds.
    ttl: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Header(HeaderName),
    Pointer(Pointer),
    /// The name of a field.
    Form(Box<str>),
    /// The name of a field that holds JSON, and the pointer to the id in it.
    PointerInForm(Box<str>, Pointer),
    Digest,
}

impl DedupRule {
    /// The id is the value of the header field `name`, which must be present exactly once.
    ///
    /// # Errors
    ///
    /// When `name` is not a valid name of a header field, or is longer than 256 bytes.
    pub fn header(name: &str) -> Result<Self, InvalidRule> {
        // The response to each event without an id quotes the name.
        if name.len() > MAX_NAME {
            return Err(InvalidRule::new("`header` must have at most 256 bytes"));
        }
        let name = name.parse().map_err(|_| InvalidRule::new("`header` is not a valid name of a header field"))?;
        Ok(Self::new(Source::Header(name)))
    }

    /// The id is the string or number at `pointer` (RFC 6901) in the JSON body, such as `/id`. A number counts as it is
    /// written: `1` and `1.0` are different ids.
    ///
    /// # Errors
    ///
    /// When `pointer` is not a valid pointer, points to the whole body, or is longer than 1,024 bytes.
    pub fn pointer(pointer: &str) -> Result<Self, InvalidRule> {
        Ok(Self::new(Source::Pointer(parse(pointer)?)))
    }

    /// The id is the value of the field `name` of the form in the body. The field must be present exactly once.
    ///
    /// # Errors
    ///
    /// When the name is empty or longer than 256 bytes.
    pub fn form(name: &str) -> Result<Self, InvalidRule> {
        Ok(Self::new(Source::Form(field(name)?)))
    }

    /// The id is the string or number at `pointer` in the JSON that the field `name` of the form holds, such as the field
    /// `payload` of Slack's interactions.
    ///
    /// # Errors
    ///
    /// The errors of [`form`](Self::form) and [`pointer`](Self::pointer).
    pub fn pointer_in_form(name: &str, pointer: &str) -> Result<Self, InvalidRule> {
        Ok(Self::new(Source::PointerInForm(field(name)?, parse(pointer)?)))
    }

    /// The id is a digest of the body: two requests with the same bytes are the same event.
    pub fn digest() -> Self {
        Self::new(Source::Digest)
    }

    /// How long an event is remembered after it was taken: from one second to [`MAX_TTL`], in whole seconds. The default is
    /// [`DEFAULT_TTL`].
    ///
    /// # Errors
    ///
    /// When `ttl` is out of this range.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self, InvalidRule> {
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(InvalidRule::new("`ttl` must be from 1 to 2592000 seconds"));
        }
        self.ttl = ttl.as_secs() as u32;
        Ok(self)
    }

    pub(crate) fn ttl_seconds(&self) -> u32 {
        self.ttl
    }

    /// The facts about the rule that guards need.
    pub(crate) fn summary(&self) -> DedupBy<'_> {
        let pointer = if let Source::Pointer(pointer) = &self.source { Some(pointer.as_str()) } else { None };
        DedupBy { pointer, ttl: Duration::from_secs(self.ttl.into()) }
    }

    /// The key that locates the id in the body, and the type that the body must have; `None` if any body will do.
    pub(crate) fn needs(&self) -> Option<(&'static str, DataType)> {
        match self.source {
            Source::Pointer(_) => Some(("pointer", DataType::Json)),
            Source::Form(_) | Source::PointerInForm(..) => Some(("form", DataType::Form)),
            Source::Header(_) | Source::Digest => None,
        }
    }

    fn new(source: Source) -> Self {
        Self { source, ttl: DEFAULT_TTL.as_secs() as u32 }
    }

    /// The digest that identifies the event of `req`.
    pub(crate) fn event(&self, scope: Scope<'_>, req: &Request<Collected>) -> Result<EventDigest, Rejection> {
        let missing = |why: String| Rejection::with_detail(RejectionKind::MissingEventId, why);
        match &self.source {
            Source::Header(name) => {
                let id = one(req.headers(), name)
                    .map_err(|wrong| missing(format!("The event has no id: the header {name} {wrong}")))?;
                Ok(EventDigest::new(scope, b"header", id))
            }
            Source::Pointer(pointer) => {
                pointed(scope, pointer, req.body().bytes(), format_args!("the body")).map_err(missing)
            }
            Source::Form(name) => {
                let wrong = |wrong: &dyn fmt::Display| missing(format!("The event has no id: {} {wrong}", Shown(name)));
                let id = form::find(req.body().bytes(), name).map_err(|not_found| wrong(&not_found))?;
                checked(id.as_bytes()).map_err(|fault| wrong(&fault))?;
                Ok(EventDigest::new(scope, b"form", id.as_bytes()))
            }
            Source::PointerInForm(name, pointer) => {
                let json = form::find(req.body().bytes(), name)
                    .map_err(|not_found| missing(format!("The event has no id: {} {not_found}", Shown(name))))?;
                pointed(scope, pointer, json.as_bytes(), format_args!("{}", Shown(name))).map_err(missing)
            }
            Source::Digest => Ok(EventDigest::new(scope, b"digest", req.body().bytes())),
        }
    }
}

fn parse(pointer: &str) -> Result<Pointer, InvalidRule> {
    Pointer::parse(pointer).map_err(|InvalidPointer(rule)| InvalidRule::new(rule))
}

/// Checks the name of a form's field. Its length is limited because the response to each event without an id quotes it.
fn field(name: &str) -> Result<Box<str>, InvalidRule> {
    match name.len() {
        0 => Err(InvalidRule::new("`form` must not be empty")),
        1..=MAX_NAME => Ok(name.into()),
        _ => Err(InvalidRule::new("`form` must have at most 256 bytes")),
    }
}

/// The event whose id is at `pointer` in this JSON; otherwise the text for the sender. `place` names the part of the
/// request that the JSON is in.
fn pointed(scope: Scope<'_>, pointer: &Pointer, json: &[u8], place: fmt::Arguments<'_>) -> Result<EventDigest, String> {
    let (kind, id) = match pointer.find(json) {
        Some(Scalar::String(text)) => (&b"string"[..], text),
        Some(Scalar::Number(text)) => (&b"number"[..], text),
        None => return Err(format!("The event has no id: {pointer} is not found in {place}")),
    };
    checked(id.as_bytes()).map_err(|wrong| format!("The event has no id: {pointer} in {place} {wrong}"))?;
    Ok(EventDigest::new(scope, kind, id.as_bytes()))
}

/// Displays a form's field in the text for the sender.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the field `{}` of the form", self.0.escape_debug())
    }
}

/// The value of a header field that is present exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => checked(value.as_bytes().trim_ascii()),
        (None, _) => Err("is missing"),
        _ => Err("appears more than once"),
    }
}

fn checked(id: &[u8]) -> Result<&[u8], &'static str> {
    match id.len() {
        0 => Err("is empty"),
        1..=MAX_ID => Ok(id),
        _ => Err("is longer than 256 bytes"),
    }
}

/// The scope within which an id identifies an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    Webhook(&'a WebhookKey),
    /// A name given by the application.
    Named(&'a str),
}

/// Identifies an event: two tags of its owner, and a digest of its scope and id. It contains no text of the sender.
///
/// 96 bits of a SHA-256 are enough: a sender that finds two ids with the same digest can only make one of its own events
/// pass for another one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EventDigest(pub(crate) [u8; 16]);

/// The namespace and the webhook whose shares an event counts for, as tags. Two namespaces or webhooks with the same tag
/// have one share between them; their events differ all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) namespace: u16,
    pub(crate) webhook: u16,
}

impl EventDigest {
    fn new(scope: Scope<'_>, kind: &[u8], id: &[u8]) -> Self {
        let mut hash = Sha256::new();
        let owner = match scope {
            Scope::Webhook(key) => {
                add(&mut hash, b"webhook");
                add(&mut hash, key.namespace().as_bytes());
                let namespace = tag(&hash);
                add(&mut hash, key.id().as_bytes());
                Owner { namespace, webhook: tag(&hash) }
            }
            Scope::Named(name) => {
                add(&mut hash, b"named");
                add(&mut hash, name.as_bytes());
                let tag = tag(&hash);
                Owner { namespace: tag, webhook: tag }
            }
        };
        add(&mut hash, kind);
        add(&mut hash, id);
        let mut digest = [0; 12];
        digest.copy_from_slice(&hash.finalize()[..12]);
        Self::from_parts(owner, digest)
    }

    pub(crate) fn from_parts(owner: Owner, digest: [u8; 12]) -> Self {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&owner.namespace.to_be_bytes());
        bytes[2..4].copy_from_slice(&owner.webhook.to_be_bytes());
        bytes[4..].copy_from_slice(&digest);
        Self(bytes)
    }

    pub(crate) fn owner(self) -> Owner {
        let [n1, n2, w1, w2, ..] = self.0;
        Owner { namespace: u16::from_be_bytes([n1, n2]), webhook: u16::from_be_bytes([w1, w2]) }
    }

    pub(crate) fn digest(self) -> [u8; 12] {
        let [_, _, _, _, digest @ ..] = self.0;
        digest
    }

    /// The part that the event belongs to, of `parts`. It depends on the digest, so that each owner has a share in all parts.
    pub(crate) fn part(self, parts: usize) -> usize {
        usize::from(self.0[4]) % parts
    }
}

fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// A tag of the bytes that were hashed so far.
fn tag(hash: &Sha256) -> u16 {
    let digest = hash.clone().finalize();
    u16::from_be_bytes([digest[0], digest[1]])
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason for which a [`DedupRule`] is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRule {
    rule: &'static str,
}

impl InvalidRule {
    pub(crate) fn new(rule: &'static str) -> Self {
        Self { rule }
    }
}

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule)
    }
}

impl std::error::Error for InvalidRule {}

/// The key `dedup` of a webhook.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Config {
    header: Option<String>,
    pointer: Option<String>,
    form: Option<String>,
    digest: Option<bool>,
    ttl: Option<u64>,
}

impl TryFrom<Config> for DedupRule {
    type Error = InvalidRule;

    fn try_from(config: Config) -> Result<Self, InvalidRule> {
        let rule = match (config.header, config.pointer, config.form, config.digest) {
            (Some(name), None, None, None) => Self::header(&name)?,
            (None, Some(pointer), None, None) => Self::pointer(&pointer)?,
            (None, None, Some(name), None) => Self::form(&name)?,
            (None, Some(pointer), Some(name), None) => Self::pointer_in_form(&name, &pointer)?,
            (None, None, None, Some(true)) => Self::digest(),
            (None, None, None, Some(false)) => return Err(InvalidRule::new("`digest` can only be true")),
            _ => {
                let rule = "expected exactly one of `header`, `pointer`, `form` and `digest`, or `form` with `pointer`";
                return Err(InvalidRule::new(rule));
            }
        };
        match config.ttl {
            Some(seconds) => rule.ttl(Duration::from_secs(seconds)),
            None => Ok(rule),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(json: &str) -> Result<DedupRule, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn request(headers: &[(&str, &str)], body: &str) -> Request<Collected> {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Collected::new(Bytes::from(body.to_owned()))).unwrap()
    }

    fn named(rule: &DedupRule, headers: &[(&str, &str)], body: &str) -> Result<EventDigest, String> {
        rule.event(Scope::Named("a"), &request(headers, body)).map_err(|rejection| {
            assert_eq!(rejection.kind(), RejectionKind::MissingEventId);
            rejection.detail().to_owned()
        })
    }

    #[test]
    fn valid_rules_are_read_from_a_configuration() {
        let header = DedupRule::header("x-github-delivery").unwrap();
        assert_eq!(read(r#"{"header": "X-GitHub-Delivery"}"#).unwrap(), header);
        assert_eq!(header.ttl_seconds(), 259_200);
        let short = DedupRule::pointer("/id").unwrap().ttl(Duration::from_secs(1)).unwrap();
        assert_eq!(read(r#"{"pointer": "/id", "ttl": 1}"#).unwrap(), short);
        assert_eq!(read(r#"{"form": "MessageSid"}"#).unwrap(), DedupRule::form("MessageSid").unwrap());
        let within = DedupRule::pointer_in_form("payload", "/trigger_id").unwrap();
        assert_eq!(read(r#"{"form": "payload", "pointer": "/trigger_id"}"#).unwrap(), within);
        let long = DedupRule::digest().ttl(MAX_TTL).unwrap();
        assert_eq!(read(r#"{"digest": true, "ttl": 2592000}"#).unwrap(), long);
    }

    #[test]
    fn invalid_rules_are_refused() {
        for json in [
            "{}",
            r#"{"ttl": 5}"#,
            r#"{"header": "x", "digest": true}"#,
            r#"{"header": "x", "pointer": "/id"}"#,
            r#"{"digest": false}"#,
            r#"{"header": ""}"#,
            r#"{"header": "a b"}"#,
            r#"{"pointer": ""}"#,
            r#"{"pointer": "id"}"#,
            r#"{"digest": true, "ttl": 0}"#,
            r#"{"digest": true, "ttl": 2592001}"#,
            r#"{"digest": true, "ttl": -1}"#,
            r#"{"digest": true, "tttl": 1}"#,
            r#"{"form": ""}"#,
            r#"{"form": "a", "header": "b"}"#,
            r#"{"form": "a", "pointer": "b"}"#,
            r#"{"form": ["a"]}"#,
            &format!(r#"{{"form": "{}"}}"#, "x".repeat(257)),
            &format!(r#"{{"header": "{}"}}"#, "x".repeat(257)),
            &format!(r#"{{"pointer": "/{}"}}"#, "x".repeat(1024)),
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_same_id_is_the_same_event_and_another_is_not() {
        let rule = DedupRule::header("x-id").unwrap();
        let event = named(&rule, &[("x-id", "1")], "{}").unwrap();
        assert_eq!(named(&rule, &[("X-Id", " 1 ")], "[]").unwrap(), event);
        assert_ne!(named(&rule, &[("x-id", "2")], "{}").unwrap(), event);

        let rule = DedupRule::pointer("/id").unwrap();
        let events = [r#"{"id": 1}"#, r#"{"id": "1"}"#, r#"{"id": 1.0}"#].map(|body| named(&rule, &[], body).unwrap());
        assert_eq!(named(&rule, &[], r#"{"more": 0, "id": 1}"#).unwrap(), events[0]);
        assert!(events[0] != events[1] && events[1] != events[2] && events[2] != events[0]);

        let rule = DedupRule::form("id").unwrap();
        let event = named(&rule, &[], "a=1&id=x+y").unwrap();
        assert_eq!(named(&rule, &[], "%69d=x%20y").unwrap(), event);
        assert_ne!(named(&rule, &[], "id=x%2By").unwrap(), event);

        let rule = DedupRule::pointer_in_form("payload", "/id").unwrap();
        let event = named(&rule, &[], "payload=%7B%22id%22%3A1%7D").unwrap();
        assert_eq!(named(&rule, &[], "a=&payload={\"id\":+1}").unwrap(), event);
        assert_ne!(named(&rule, &[], "payload={\"id\":\"1\"}").unwrap(), event);

        let rule = DedupRule::digest();
        assert_eq!(named(&rule, &[("x-id", "1")], "{}"), named(&rule, &[], "{}"));
        assert_ne!(named(&rule, &[], "{}"), named(&rule, &[], "{} "));
    }

    #[test]
    fn the_same_id_in_different_scopes_is_different_events() {
        let rule = DedupRule::digest();
        let request = request(&[], "{}");
        let keys = [("a", "b"), ("a", "c"), ("b", "b")].map(|(namespace, id)| WebhookKey::new(namespace, id).unwrap());
        let mut events: Vec<_> = keys.iter().map(|key| rule.event(Scope::Webhook(key), &request).unwrap().0).collect();
        events.extend(["a", "a/b", "ab"].map(|name| rule.event(Scope::Named(name), &request).unwrap().0));
        events.sort_unstable();
        events.dedup();
        assert_eq!(events.len(), 6);
    }

    #[test]
    fn an_event_counts_for_its_namespace_and_webhook() {
        let rule = DedupRule::digest();
        let key = |namespace, id| WebhookKey::new(namespace, id).unwrap();
        let owner = |scope, body| rule.event(scope, &request(&[], body)).unwrap().owner();
        let (one, other) = (key("a", "b"), key("a", "c"));
        assert_eq!(owner(Scope::Webhook(&one), "{}"), owner(Scope::Webhook(&one), "[]"));
        assert_eq!(owner(Scope::Webhook(&one), "{}").namespace, owner(Scope::Webhook(&other), "{}").namespace);
        assert_ne!(owner(Scope::Webhook(&one), "{}").webhook, owner(Scope::Webhook(&other), "{}").webhook);
        let elsewhere = key("b", "b");
        assert_ne!(owner(Scope::Webhook(&one), "{}").namespace, owner(Scope::Webhook(&elsewhere), "{}").namespace);
        assert_ne!(owner(Scope::Webhook(&one), "{}"), owner(Scope::Named("a"), "{}"));
        let event = EventDigest([7; 16]);
        assert_eq!(EventDigest::from_parts(event.owner(), event.digest()), event);
    }

    #[test]
    fn a_request_without_an_id_learns_the_reason() {
        let rule = DedupRule::header("X-Id").unwrap();
        let long = "a".repeat(257);
        for (headers, why) in [
            (&[][..], "is missing"),
            (&[("x-id", "")], "is empty"),
            (&[("x-id", " ")], "is empty"),
            (&[("x-id", &long)], "is longer than 256 bytes"),
            (&[("x-id", "1"), ("x-id", "1")], "appears more than once"),
        ] {
            assert_eq!(named(&rule, headers, "{}").unwrap_err(), format!("The event has no id: the header x-id {why}"));
        }
        assert!(named(&rule, &[("x-id", &long[1..])], "").is_ok());

        let rule = DedupRule::pointer("/data/id").unwrap();
        for (body, why) in [
            (r#"{"data": {}}"#, "/data/id is not found in the body"),
            (r#"{"data": {"id": null}}"#, "/data/id is not found in the body"),
            (r#"{"data": {"id": ""}}"#, "/data/id in the body is empty"),
            (&format!(r#"{{"data": {{"id": "{long}"}}}}"#), "/data/id in the body is longer than 256 bytes"),
        ] {
            assert_eq!(named(&rule, &[], body).unwrap_err(), format!("The event has no id: {why}"));
        }

        let rule = DedupRule::form("MessageSid").unwrap();
        for (body, why) in [
            ("Body=a", "is missing"),
            ("messagesid=a", "is missing"),
            ("MessageSid=", "is empty"),
            ("MessageSid=a&MessageSid=a", "appears more than once"),
            ("MessageSid=%", "is not well encoded"),
            (&format!("MessageSid={long}"), "is longer than 256 bytes"),
        ] {
            let expected = format!("The event has no id: the field `MessageSid` of the form {why}");
            assert_eq!(named(&rule, &[], body).unwrap_err(), expected);
        }
        let rule = DedupRule::pointer_in_form("payload", "/id").unwrap();
        for (body, why) in [
            ("a=1", "the field `payload` of the form is missing"),
            ("payload=%7B%7D", "/id is not found in the field `payload` of the form"),
            ("payload=%7B%22id%22%3A%22%22%7D", "/id in the field `payload` of the form is empty"),
        ] {
            assert_eq!(named(&rule, &[], body).unwrap_err(), format!("The event has no id: {why}"));
        }
    }
}
