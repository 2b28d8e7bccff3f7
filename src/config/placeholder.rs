//! `{$VAR}` and `{$VAR:default}`.

use std::collections::BTreeSet;

use super::error::CompileError;
use super::node::{LONGEST, Node};
use super::secrets::Place;

/// Looks up a variable; an error if the value may not use it.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Result<Option<String>, CompileError>;

/// Names of variables.
pub(crate) type Variables = BTreeSet<Box<str>>;

/// The variables that the placeholders of `node` name, those with a default included.
pub(crate) fn variables_of(node: &Node) -> Variables {
    fn walk(node: &Node, found: &mut Variables) {
        match node {
            Node::String(text) => found.extend(variables_in(text)),
            Node::Array(items) => items.iter().for_each(|item| walk(item, found)),
            Node::Object(fields) => fields.iter().for_each(|(_, value)| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Variables::new();
    walk(node, &mut found);
    found
}

/// The variables of a value that cannot be read, as far as its text shows them.
pub(crate) fn variables_of_text(json: &[u8]) -> Variables {
    variables_in(&String::from_utf8_lossy(json)).collect()
}

/// The names behind each `{$` of a text.
fn variables_in(text: &str) -> impl Iterator<Item = Box<str>> {
    let names = text.split("{$").skip(1).map(|rest| {
        let end = rest.bytes().position(|byte| !is_of_name(byte)).unwrap_or(rest.len());
        &rest[..end]
    });
    names.filter(|name| !name.is_empty()).map(Box::from)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A value has no more placeholders: each costs a search through the variables.
const MOST: usize = 1000;

/// How many placeholders a value may still have, and how many bytes they may still come to.
pub(crate) struct Room {
    placeholders: usize,
    bytes: usize,
}

impl Room {
    /// The room of a whole value.
    pub(crate) const fn new() -> Self {
        Self { placeholders: MOST, bytes: LONGEST }
    }

    /// Takes room for a placeholder, before it is looked up.
    fn take(&mut self) -> Result<(), CompileError> {
        let left = self.placeholders.checked_sub(1);
        let too_many = || CompileError::new(format!("expected at most {MOST} placeholders in a value, found more"));
        left.map(|left| self.placeholders = left).ok_or_else(too_many)
    }

    /// Takes room for what a placeholder comes to.
    fn take_bytes(&mut self, bytes: usize) -> Result<(), CompileError> {
        let too_long = || {
            let most = LONGEST >> 10;
            CompileError::new(format!("expected placeholders that come to at most {most} KiB in all, found more"))
        };
        self.bytes.checked_sub(bytes).map(|left| self.bytes = left).ok_or_else(too_long)
    }
}

/// Fills in the placeholders of every string in `node`; keys stay as they are. Where `place` is that of a secret, a
/// placeholder that comes to nothing, or to blanks, is an error. What is filled in takes from `room`.
pub(crate) fn expand(node: Node, lookup: Lookup<'_>, place: &Place<'_>, room: &mut Room) -> Result<Node, CompileError> {
    Ok(match node {
        Node::String(text) => expand_text(text, lookup, place, room)?,
        Node::Array(items) => {
            let items = items.into_iter().enumerate();
            let items = items
                .map(|(at, item)| expand(item, lookup, place, room).map_err(|error| error.inside(&at.to_string())));
            Node::Array(items.collect::<Result<_, _>>()?)
        }
        Node::Object(fields) => {
            let fields =
                fields.into_iter().map(|(key, value)| match expand(value, lookup, &place.inside(&key), room) {
                    Ok(value) => Ok((key, value)),
                    Err(error) => Err(error.inside(&key)),
                });
            Node::Object(fields.collect::<Result<_, _>>()?)
        }
        other => other,
    })
}

fn expand_text(text: String, lookup: Lookup<'_>, place: &Place<'_>, room: &mut Room) -> Result<Node, CompileError> {
    if !text.contains("{$") {
        return Ok(Node::String(text));
    }
    let mut value = |placeholder: Placeholder<'_>| {
        room.take()?;
        let value = placeholder.value(lookup)?;
        // Of a credential a blank would leave what everybody knows: `Token `.
        if value.trim().is_empty() && place.is_guarded() {
            return Err(CompileError::new(format!("the variable `{}` is empty", placeholder.name)));
        }
        room.take_bytes(value.len())?;
        Ok(value)
    };
    if let Some(placeholder) = whole(&text) {
        return value(placeholder?).map(Node::Expanded);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("{$") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or_else(malformed)?;
        out.push_str(&value(Placeholder::parse(&inner[..end])?)?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(Node::Filled(out))
}

/// The placeholder that is all of `text`; its default may then hold anything, braces included.
fn whole(text: &str) -> Option<Result<Placeholder<'_>, CompileError>> {
    let inner = text.strip_prefix("{$")?.strip_suffix('}')?;
    (!inner.contains("{$")).then(|| Placeholder::parse(inner)).filter(|parsed| parsed.is_ok() || !inner.contains('}'))
}

struct Placeholder<'a> {
    name: &'a str,
    default: Option<&'a str>,
}

impl<'a> Placeholder<'a> {
    fn parse(inner: &'a str) -> Result<Self, CompileError> {
        let (name, default) = match inner.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        // A reference to Vault, as other services read it, would else be a default that anybody can read.
        if name == "vault" && default.is_some() {
            return Err(CompileError::new("`{$vault:…}` references are not supported"));
        }
        if name.is_empty() || !name.bytes().all(is_of_name) {
            return Err(malformed());
        }
        Ok(Self { name, default })
    }

    fn value(&self, lookup: Lookup<'_>) -> Result<String, CompileError> {
        lookup(self.name)?
            .or_else(|| self.default.map(str::to_owned))
            .ok_or_else(|| CompileError::new(format!("the variable `{}` is not set and has no default", self.name)))
    }
}

fn malformed() -> CompileError {
    CompileError::new("`{$` does not start a valid placeholder: expected `{$NAME}` or `{$NAME:default}`")
}

/// What is filled in is what was looked up; text without a placeholder stays.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let lookup = |name: &str| Ok((name.len() % 2 == 0).then(|| name.to_ascii_uppercase()));
    let expanded = expand_text(text.to_owned(), &lookup, &Place::of("text", false), &mut Room::new());
    if !text.contains("{$") {
        assert!(matches!(expanded, Ok(Node::String(same)) if same == text));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Result<Option<String>, CompileError> {
        Ok(match name {
            "TOKEN" => Some("p$ss;w{rd|".into()),
            "EMPTY" => Some(String::new()),
            "BLANK" => Some(" \t".into()),
            "NESTED" => Some("{$TOKEN}".into()),
            _ => None,
        })
    }

    fn text(input: &str) -> Result<Node, String> {
        expand_text(input.to_owned(), &lookup, &Place::of("text", false), &mut Room::new())
            .map_err(|error| error.to_string())
    }

    fn expanded(text: &str) -> Result<Node, String> {
        Ok(Node::Expanded(text.into()))
    }

    fn string(text: &str) -> Result<Node, String> {
        Ok(Node::String(text.into()))
    }

    fn filled(text: &str) -> Result<Node, String> {
        Ok(Node::Filled(text.into()))
    }

    #[test]
    fn values_are_taken_as_they_are() {
        assert!(text("{$TOKEN}") == expanded("p$ss;w{rd|"));
        assert!(text("{$EMPTY}") == expanded(""));
        assert!(text("{$NESTED}") == expanded("{$TOKEN}"));
        assert!(text("Bearer {$TOKEN}!") == filled("Bearer p$ss;w{rd|!"));
        assert!(text("{$TOKEN}{$TOKEN}") == filled("p$ss;w{rd|p$ss;w{rd|"));
    }

    #[test]
    fn defaults_stand_in_for_unset_variables() {
        assert!(text("{$NO:a:b}") == expanded("a:b"));
        assert!(text("{$NO:}") == expanded(""));
        assert!(text("{$NO:{\"a\":{}}}") == expanded("{\"a\":{}}"));
        assert!(text("x{$NO:1}y{$NO:2}") == filled("x1y2"));
        assert!(text("{$EMPTY:x}") == expanded(""));
    }

    #[test]
    fn what_is_unset_or_malformed_is_an_error() {
        assert!(text("{$NO}").is_err_and(|e| e.contains("`NO` is not set")));
        assert!(text("Bearer {$NO}").is_err());
        assert!(text("{$vault:kv/x#y}").is_err());
        assert!(text("a {$vault:kv/x#y:z}").is_err());
        for input in ["{$", "{$}", "{$TOKEN", "{$ TOKEN}", "{$TO-KEN}", "x{$}y", "{$:x}", "{$TOKEN} {$"] {
            assert!(text(input).is_err_and(|e| e.contains("`{$` does not start a valid placeholder")), "{input}");
        }
    }

    #[test]
    fn every_variable_that_a_value_names_is_found() {
        let json =
            br#"{"a": ["{$ONE}", {"b": "x{$TWO:y}{$THREE}", "{$KEY}": 1}], "c": "{$FOUR:{$FIVE}}", "d": "{$-}{$"}"#;
        let node = Node::parse(json).unwrap();
        assert_eq!(variables_of(&node), ["ONE", "TWO", "THREE", "FOUR", "FIVE"].map(Box::from).into());
        let escaped = Node::parse(b"{\"a\": \"\\u007b$ONE}\"}").unwrap();
        assert_eq!(variables_of(&escaped), ["ONE".into()].into());
    }

    proptest! {
        #[test]
        fn what_is_looked_up_is_found_beforehand(input in r"[{}$:A-C a]{0,20}") {
            let asked = std::cell::RefCell::new(Variables::new());
            let lookup = |name: &str| {
                asked.borrow_mut().insert(name.into());
                Ok(None)
            };
            let _ = expand_text(input.clone(), &lookup, &Place::of("text", false), &mut Room::new());
            prop_assert!(asked.borrow().is_subset(&variables_in(&input).collect()));
        }
    }

    #[test]
    fn errors_tell_where_and_keys_are_not_touched() {
        let node = Node::parse(br#"{"a": [{"{$TOKEN}": "{$NO}"}]}"#).unwrap();
        let error = expand(node, &lookup, &Place::of("text", false), &mut Room::new()).err().unwrap().to_string();
        assert_eq!(error, "a.0.{$TOKEN}: the variable `NO` is not set and has no default");
    }

    #[test]
    fn a_blank_placeholder_in_a_secret_is_an_error() {
        let text = Place::of("text", false);
        let (secret, metadata) = (text.inside("api_key"), Place::of("metadata", false));
        let expand = |input: &str, place: &Place<'_>| {
            expand_text(input.to_owned(), &lookup, place, &mut Room::new()).map_err(|error| error.to_string())
        };
        for input in ["{$EMPTY}", "{$NO:}", "{$NO: }", "Token {$EMPTY}", "Token {$BLANK}", "{$TOKEN}{$NO:}"] {
            for place in [Place::of("anything", true), Place::of("password", false), secret.inside("value")] {
                assert!(expand(input, &place).is_err_and(|error| error.ends_with("is empty")), "{input}");
            }
            for place in [text.inside("value"), metadata.inside("password")] {
                assert!(expand(input, &place).is_ok(), "{input}");
            }
        }
        assert!(expand("Token {$TOKEN}", &secret).is_ok());
    }

    proptest! {
        #[test]
        fn text_without_a_placeholder_stays(input in "[^$]{0,40}") {
            prop_assert!(text(&input) == string(&input));
        }

        #[test]
        fn nothing_panics(input in r"[{}$:A-C a]{0,20}") {
            let _ = text(&input);
        }
    }
}
