//! Placeholders: `{$VAR}`, `{$VAR:default}` and `{$file:name}`.

use super::error::CompileError;
use super::node::{LONGEST, Node};
use super::secrets::Place;
use super::variables::{LONGEST_NAME, OF_CONNECTIONS, Variables, candidates, is_name};

/// Looks up the value of a placeholder. The error says that the placeholder is not allowed.
pub(crate) type Lookup<'a> = &'a dyn Fn(Named<'_>) -> Result<Option<String>, CompileError>;

/// The name in a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Variable(&'a str),
    /// A file of secrets.
    File(&'a str),
}

/// The variable `file`, which is reserved for the placeholders of files.
const FILE: &str = "file";

/// The variables and files named in the placeholders of a connection's `node`, including those with a default.
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

/// The same for a connection that is not valid JSON, as far as its text shows the names.
pub(crate) fn variables_of_text(json: &[u8]) -> Variables {
    variables_in(&String::from_utf8_lossy(json)).collect()
}

/// The texts after each `{$`.
fn variables_in(text: &str) -> impl Iterator<Item = Box<str>> {
    let names = text.split("{$").skip(1).map(|rest| {
        let end = rest.bytes().position(|byte| !is_of_name(byte)).unwrap_or(rest.len());
        rest.split_at(end)
    });
    names.filter(|(name, _)| !name.is_empty()).flat_map(|(name, rest)| {
        let file = rest.strip_prefix(':').filter(|_| name == FILE).map(file_in);
        let files = file.into_iter().flat_map(|file| candidates(OF_CONNECTIONS, file));
        file.is_none().then(|| name.into()).into_iter().chain(files)
    })
}

/// The longest valid name of a file at the beginning of `text`.
fn file_in(text: &str) -> &str {
    let mut end = 0;
    while end < text.len().min(LONGEST_NAME)
        && text.is_char_boundary(end + 1)
        && is_name(&format!("_{}", &text[end..=end]))
    {
        end += 1;
    }
    &text[..end]
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The most placeholders in a value: each costs a search through the variables.
const MOST: usize = 1000;

/// The number of placeholders, and the bytes of their values, that a value may still have.
pub(crate) struct Room {
    placeholders: usize,
    bytes: usize,
}

impl Room {
    /// The limits for a whole value.
    pub(crate) const fn new() -> Self {
        Self { placeholders: MOST, bytes: LONGEST }
    }

    /// Counts a placeholder, before it is looked up.
    fn take(&mut self) -> Result<(), CompileError> {
        let left = self.placeholders.checked_sub(1);
        let too_many = || CompileError::new(format!("expected at most {MOST} placeholders in a value, found more"));
        left.map(|left| self.placeholders = left).ok_or_else(too_many)
    }

    /// Counts the bytes of a placeholder's value.
    fn take_bytes(&mut self, bytes: usize) -> Result<(), CompileError> {
        let too_long = || {
            let most = LONGEST >> 10;
            CompileError::new(format!("expected placeholders that come to at most {most} KiB in all, found more"))
        };
        self.bytes.checked_sub(bytes).map(|left| self.bytes = left).ok_or_else(too_long)
    }
}

/// Fills in the placeholders of every string in `node`; keys stay as they are. If `place` is the place of a secret, a
/// placeholder whose value is empty or blank is an error. The values count towards `room`.
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
        // Without the variable, the credential would be a text that everybody knows, such as `Token `. A blank file is
        // refused elsewhere.
        if let (Named::Variable(name), true) = (placeholder.named, value.trim().is_empty() && place.is_guarded()) {
            return Err(CompileError::new(format!("the variable `{name}` is empty")));
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

/// The placeholder, if it is all of `text`; its default may then contain anything, braces included.
fn whole(text: &str) -> Option<Result<Placeholder<'_>, CompileError>> {
    let inner = text.strip_prefix("{$")?.strip_suffix('}')?;
    (!inner.contains("{$")).then(|| Placeholder::parse(inner)).filter(|parsed| parsed.is_ok() || !inner.contains('}'))
}

struct Placeholder<'a> {
    named: Named<'a>,
    default: Option<&'a str>,
}

impl<'a> Placeholder<'a> {
    fn parse(inner: &'a str) -> Result<Self, CompileError> {
        let (name, default) = match inner.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        // Other services read this as a reference to Vault. Here it would be a default, which anybody can read.
        if name == "vault" && default.is_some() {
            return Err(CompileError::new("`{$vault:…}` references are not supported"));
        }
        if name == FILE {
            return match default.filter(|name| is_name(name)) {
                Some(name) => Ok(Self { named: Named::File(name), default: None }),
                None => Err(no_file()),
            };
        }
        if name.is_empty() || !name.bytes().all(is_of_name) {
            return Err(malformed());
        }
        Ok(Self { named: Named::Variable(name), default })
    }

    fn value(&self, lookup: Lookup<'_>) -> Result<String, CompileError> {
        let missing = || match self.named {
            Named::Variable(name) => format!("the variable `{name}` is not set and has no default"),
            Named::File(name) => format!("there is no file `{name}`"),
        };
        let found = lookup(self.named)?.or_else(|| self.default.map(str::to_owned));
        found.ok_or_else(|| CompileError::new(missing()))
    }
}

fn malformed() -> CompileError {
    CompileError::new("`{$` does not start a valid placeholder: expected `{$NAME}` or `{$NAME:default}`")
}

fn no_file() -> CompileError {
    let text = "`{$file` must be followed by `:`, the name of a file and `}`: expected `{$file:name}`, where the name has 1 \
                to 128 of the characters A-Z a-z 0-9 . _ - and is neither `.` nor `..`; there is no default";
    CompileError::new(text)
}

/// Each placeholder is replaced by the value that was looked up; other text stays.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let lookup = |named: Named<'_>| match named {
        Named::Variable(name) | Named::File(name) => Ok((name.len() % 2 == 0).then(|| name.to_ascii_uppercase())),
    };
    let expanded = expand_text(text.to_owned(), &lookup, &Place::of("text", false), &mut Room::new());
    if !text.contains("{$") {
        assert!(matches!(expanded, Ok(Node::String(same)) if same == text));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(named: Named<'_>) -> Result<Option<String>, CompileError> {
        let name = match named {
            Named::File(name) => return Ok((name == "db-password").then(|| "p:a}ss".into())),
            Named::Variable(name) => name,
        };
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
    fn a_file_is_filled_in_and_has_no_default() {
        assert!(text("{$file:db-password}") == expanded("p:a}ss"));
        assert!(text("a {$file:db-password}!") == filled("a p:a}ss!"));
        assert!(text("{$file:other}").is_err_and(|error| error == "there is no file `other`"));
        for input in [
            "{$file}",
            "{$file:}",
            "{$file:a/b}",
            "{$file:..}",
            "{$file:.}",
            "{$file:a:b}",
            "x {$file: a}",
            "{$file:ä}",
        ] {
            assert!(text(input).is_err_and(|error| error.starts_with("`{$file` must be followed by")), "{input}");
        }
        assert!(text("{$FILE}").is_err_and(|error| error.contains("`FILE` is not set")));
    }

    #[test]
    fn every_file_that_a_connection_names_is_found() {
        let found = |json: &str| variables_of_text(json.as_bytes()).into_iter().map(String::from).collect::<Vec<_>>();
        let both = ["file:global/db-pass.1", "file:shared/db-pass.1"];
        assert_eq!(found(r#"{"password": "x{$file:db-pass.1}"}"#), both);
        assert_eq!(found(r#"{"password": "{$file:db-pass.1"#), both, "also of what cannot be read");
        assert_eq!(found("{$file}{$FILE:x}{$files:x}"), ["FILE", "file", "files"]);
        assert_eq!(found(&format!("{{$file:{}", "a".repeat(200)))[0], format!("file:global/{}", "a".repeat(128)));
        assert_eq!(found("{$file:ä}"), ["file:global/", "file:shared/"]);
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
        fn what_is_looked_up_is_found_beforehand(input in r"([{}$:A-C a]|\{\$file:){0,20}") {
            let asked = std::cell::RefCell::new(Variables::new());
            let lookup = |named: Named<'_>| {
                match named {
                    Named::Variable(name) => asked.borrow_mut().extend([Box::from(name)]),
                    Named::File(name) => asked.borrow_mut().extend(candidates(OF_CONNECTIONS, name)),
                }
                // Continues, so that the following placeholders are looked up too.
                Ok(Some(String::new()))
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
