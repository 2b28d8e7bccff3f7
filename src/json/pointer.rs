//! JSON pointers (RFC 6901), followed without building a tree.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::depth::MAX_DEPTH;

/// The longest pointer, in bytes. The response to each event without an id quotes the pointer.
const MAX_POINTER: usize = 1024;

/// A path to a value in a body: `/data/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    text: Box<str>,
    /// The names between the slashes, with `~1` and `~0` replaced.
    steps: Box<[Box<str>]>,
}

/// The value that a pointer finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    String(String),
    /// The number as it is written: `1` and `1.0` are different.
    Number(String),
}

/// The reason for which a text is not a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidPointer(pub(crate) &'static str);

impl Pointer {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPointer> {
        if text.len() > MAX_POINTER {
            return Err(InvalidPointer("a pointer must have at most 1024 bytes"));
        }
        let rest = text.strip_prefix('/').ok_or(InvalidPointer("a pointer must begin with `/`"))?;
        let steps = rest.split('/').map(unescape).collect::<Option<Box<[_]>>>();
        let steps = steps.ok_or(InvalidPointer("in a pointer `~` must be written `~0`, and `/` in a name `~1`"))?;
        if steps.len() > MAX_DEPTH {
            return Err(InvalidPointer("the pointer is deeper than any body may be"));
        }
        Ok(Self { text: text.into(), steps })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The string or number at this path. `None` if there is another value or none, if an object on the path has the name
    /// twice, or if the body is not JSON.
    pub(crate) fn find(&self, json: &[u8]) -> Option<Scalar> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let raw = Follow(&self.steps).deserialize(&mut deserializer).ok()??.get();
        deserializer.end().ok()?;
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str(raw).ok().map(Scalar::String),
            b'-' | b'0'..=b'9' => Some(Scalar::Number(raw.to_owned())),
            _ => None,
        }
    }
}

fn unescape(step: &str) -> Option<Box<str>> {
    let mut plain = String::with_capacity(step.len());
    let mut chars = step.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            char => char,
        });
    }
    Some(plain.into())
}

/// Follows these steps, beginning at a value.
struct Follow<'a>(&'a [Box<str>]);

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0.split_first() {
            None => serde::Deserialize::deserialize(deserializer).map(Some),
            Some((step, rest)) => deserializer.deserialize_any(Step { step, rest }),
        }
    }
}

/// Finds `step` in an object or array.
struct Step<'a> {
    step: &'a str,
    rest: &'a [Box<str>],
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut seen, mut found) = (false, None);
        while let Some(is_it) = map.next_key_seed(Name(self.step))? {
            if !is_it {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            // Some parsers take the first of two values, some the last: neither is certain to be the event's id.
            if std::mem::replace(&mut seen, true) {
                return Err(A::Error::custom("duplicate name"));
            }
            found = map.next_value_seed(Follow(self.rest))?;
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        if let Some(index) = index(self.step) {
            for _ in 0..index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            found = seq.next_element_seed(Follow(self.rest))?.flatten();
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// RFC 6901 §4: digits without a leading zero.
fn index(step: &str) -> Option<usize> {
    let is_index = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    if is_index { step.parse().ok() } else { None }
}

/// Whether a key equals this name.
struct Name<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn find(pointer: &str, json: &str) -> Option<Scalar> {
        Pointer::parse(pointer).unwrap().find(json.as_bytes())
    }

    fn string(text: &str) -> Option<Scalar> {
        Some(Scalar::String(text.into()))
    }

    fn number(text: &str) -> Option<Scalar> {
        Some(Scalar::Number(text.into()))
    }

    #[test]
    fn strings_and_numbers_are_found() {
        assert_eq!(find("/id", r#"{"id": "evt_1"}"#), string("evt_1"));
        assert_eq!(find("/id", r#" {"a": [{"id": 1}], "id" : -7.50e2 , "b": null} "#), number("-7.50e2"));
        assert_eq!(find("/data/0/id", r#"{"data": [{"id": "a\u0041\n"}, {"id": "b"}]}"#), string("aA\n"));
        assert_eq!(find("/data/10", r#"{"data": [0,1,2,3,4,5,6,7,8,9,10]}"#), number("10"));
        assert_eq!(find("/a~1b/~0c", r#"{"a/b": {"~c": 1}}"#), number("1"));
        assert_eq!(find("/~01", r#"{"~1": 1}"#), number("1"), "`~0` is replaced last");
        assert_eq!(find("/", r#"{"": 1}"#), number("1"));
        assert_eq!(find("/0", r#"{"0": "object"}"#), string("object"));
        assert_eq!(find("/id", "{\"i\\u0064\": 18446744073709551616}"), number("18446744073709551616"));
    }

    #[test]
    fn any_other_value_is_not_found() {
        for json in [
            "",
            "{}",
            "[]",
            "\"id\"",
            "1",
            r#"{"id": null}"#,
            r#"{"id": true}"#,
            r#"{"id": {}}"#,
            r#"{"id": ["x"]}"#,
            r#"{"ID": "x"}"#,
            r#"{"a": {"id": "x"}}"#,
            r#"{"id": "x", "id": "y"}"#,
            r#"{"id": "x"} {}"#,
            r#"{"id": "x""#,
            r#"{"id": "\ud800"}"#,
        ] {
            assert_eq!(find("/id", json), None, "{json}");
        }
        for pointer in ["/a/2", "/a/-", "/a/00", "/a/01", "/a/+1", "/a/99999999999999999999", "/a/", "/a/0/0"] {
            assert_eq!(find(pointer, r#"{"a": ["x", "y"]}"#), None, "{pointer}");
        }
    }

    #[test]
    fn an_invalid_pointer_is_refused() {
        for text in ["", "id", "#/id", "/~", "/~2", "/a~", &"/a".repeat(51)] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
        assert!(Pointer::parse(&"/a".repeat(50)).is_ok());
    }

    proptest! {
        #[test]
        fn a_pointer_finds_the_same_value_as_in_a_tree(
            names in prop::collection::vec("[a-c~/0-2]{0,2}", 1..4),
            other in "[a-c]{1,2}",
            leaf in prop_oneof![any::<i64>().prop_map(Value::from), ".{0,6}".prop_map(Value::from)],
        ) {
            let pointer: String =
                names.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect();
            let body = names.iter().rev().fold(leaf, |inner, name| json!({name: inner, format!("{other}!"): [1, {}]}));
            let expected = body.pointer(&pointer).map(|value| match value {
                Value::String(text) => Scalar::String(text.clone()),
                value => Scalar::Number(value.to_string()),
            });
            prop_assert!(expected.is_some());
            prop_assert_eq!(find(&pointer, &body.to_string()), expected);
        }

        #[test]
        fn following_a_pointer_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), pointer in "(/[a0~]{0,2}){1,3}") {
            if let Ok(pointer) = Pointer::parse(&pointer) {
                let _ = pointer.find(&bytes);
            }
        }
    }
}
