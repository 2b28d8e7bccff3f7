//! A configuration value as it was written, and how types are read from it.
//!
//! A [`Node`] keeps two things that `serde_json::Value` loses: a key that occurs twice is refused, and a string that
//! came whole from an environment variable may be read as a number or a boolean.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Number, Value};

use super::error::{CompileError, duplicate_key, quote, unknown_key};
use super::name::Name;
use crate::json::NotJson;

#[derive(Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    /// The value of a placeholder that was the whole string.
    Expanded(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
    /// A string with placeholders in it, after their values were filled in.
    Filled(String),
}

impl Node {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, CompileError> {
        if json.len() > LONGEST {
            let (most, found) = (LONGEST >> 10, json.len().div_ceil(1 << 10));
            return Err(CompileError::new(format!("expected at most {most} KiB, found {found} KiB")));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let node = Reading { held: &Cell::new(0), depth: 0 }.deserialize(&mut deserializer);
        node.and_then(|node| deserializer.end().map(|()| node)).map_err(|error| {
            CompileError::new(match NotJson::detect(json).filter(|_| error.is_syntax() || error.is_eof()) {
                Some(instead) => format!("expected a JSON object, found {}", instead.found()),
                // These messages are our own.
                None if error.is_data() => error.to_string(),
                // serde_json's messages for syntax errors give the position and never quote the text.
                None => format!("expected JSON: {error}"),
            })
        })
    }

    /// The number of keys and items in this value, at all levels.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Array(items) => items.iter().map(|item| 1 + item.held()).sum(),
            Self::Object(fields) => fields.iter().map(|(_, value)| 1 + value.held()).sum(),
            _ => 0,
        }
    }

    /// The total length of the keys and strings in this value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Array(items) => items.iter().map(Self::bytes).sum(),
            Self::Object(fields) => fields.iter().map(|(key, value)| key.len() + value.bytes()).sum(),
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => text.len(),
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
        }
    }

    /// Reads a `T`. Fields that `T` does not know are refused, with or without `deny_unknown_fields`.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, CompileError> {
        T::deserialize(self)
    }

    /// Reads the value of the key `key`.
    pub(crate) fn read_at<T: DeserializeOwned>(self, key: &str) -> Result<T, CompileError> {
        self.read().map_err(|error| error.inside(key))
    }

    /// The value of a key, if this is an object with that key.
    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(value) => Value::Number(value),
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => Value::String(text),
            Self::Array(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(fields) => fields.into_iter().map(|(key, value)| (key, value.into_value())).collect(),
        }
    }

    /// The error for a value whose type is not `expected`.
    pub(crate) fn is_not(&self, expected: &str) -> CompileError {
        de::Error::invalid_type(self.unexpected(), &expected)
    }

    fn unexpected(&self) -> de::Unexpected<'_> {
        match self {
            Self::Null => de::Unexpected::Unit,
            Self::Bool(value) => de::Unexpected::Bool(*value),
            Self::Number(_) => de::Unexpected::Unsigned(0),
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => de::Unexpected::Str(text),
            Self::Array(_) => de::Unexpected::Seq,
            Self::Object(_) => de::Unexpected::Map,
        }
    }
}

/// The longest value, in bytes. The values of its placeholders have the same limit.
pub(crate) const LONGEST: usize = 512 << 10;

/// The most keys and items that a value may hold, at all levels.
pub(crate) const MOST_HELD: usize = 20_000;

/// The most levels of arrays and objects.
const DEEPEST: usize = 64;

/// Up to this many fields, a linear search finds a duplicate key; a larger object keeps a set of its names.
const FEW: usize = 16;

/// The limits that are shared by all parts of a value while it is read.
#[derive(Clone, Copy)]
struct Reading<'a> {
    held: &'a Cell<usize>,
    depth: usize,
}

impl Reading<'_> {
    /// One level deeper.
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        match self.depth < DEEPEST {
            true => Ok(Self { depth: self.depth + 1, ..self }),
            false => {
                Err(E::custom(format_args!("expected at most {DEEPEST} levels of arrays and objects, found more")))
            }
        }
    }

    fn count<E: de::Error>(self) -> Result<(), E> {
        self.held.set(self.held.get() + 1);
        match self.held.get() <= MOST_HELD {
            true => Ok(()),
            false => Err(E::custom(format_args!("expected at most {MOST_HELD} keys and items, found more"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        let inside = self.inside()?;
        while let Some(item) = seq.next_element_seed(inside)? {
            self.count()?;
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        let mut known = HashSet::with_hasher(foldhash::quality::RandomState::default());
        let inside = self.inside()?;
        while let Some(key) = map.next_key::<String>()? {
            self.count()?;
            let value = map.next_value_seed(inside)?;
            if fields.len() == FEW {
                known.extend(fields.iter().map(|(key, _)| key.clone()));
            }
            let is_new = match fields.len() {
                ..FEW => fields.iter().all(|(known, _)| *known != key),
                _ => known.insert(key.clone()),
            };
            if !is_new {
                return Err(duplicate_key(&key));
            }
            fields.push((key, value));
        }
        Ok(Node::Object(fields))
    }
}

/// Whether JSON can represent the number.
fn is_json<T: fmt::Display>(value: &T) -> bool {
    !matches!(&*value.to_string(), "NaN" | "inf" | "-inf")
}

impl IntoDeserializer<'_, CompileError> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! deserialize_scalar {
    ($($method:ident => $visit:ident: $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CompileError> {
            match self {
                // A variable may hold `NaN`, which JSON cannot represent.
                Self::Expanded(text) => match text.trim().parse::<$type>().ok().filter(|value| is_json(value)) {
                    Some(value) => visitor.$visit(value),
                    None => Err(de::Error::invalid_type(de::Unexpected::Other("other text in the variable"), &visitor)),
                },
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = CompileError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CompileError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            // serde_json's own error would quote the number.
            Self::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, Some(value)) => visitor.visit_f64(value),
                _ => Err(CompileError::new("number out of range")),
            },
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => visitor.visit_string(text),
            Self::Array(items) => {
                let mut seq = SeqDeserializer::new(items.into_iter());
                let value = visitor.visit_seq(&mut seq)?;
                seq.end()?;
                Ok(value)
            }
            Self::Object(fields) => visitor.visit_map(Fields { rest: fields.into_iter(), value: None }),
        }
    }

    deserialize_scalar! {
        deserialize_bool => visit_bool: bool,
        deserialize_i8 => visit_i8: i8,
        deserialize_i16 => visit_i16: i16,
        deserialize_i32 => visit_i32: i32,
        deserialize_i64 => visit_i64: i64,
        deserialize_u8 => visit_u8: u8,
        deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32,
        deserialize_u64 => visit_u64: u64,
        deserialize_f32 => visit_f32: f32,
        deserialize_f64 => visit_f64: f64,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CompileError> {
        match self {
            Self::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CompileError> {
        match self {
            Self::Expanded(_) | Self::Filled(_) if name == Name::TYPE => visitor.visit_some(self),
            other => visitor.visit_newtype_struct(other),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CompileError> {
        let Self::Object(fields) = &self else {
            return Err(de::Error::invalid_type(self.unexpected(), &visitor));
        };
        for (key, _) in fields {
            if !known.contains(&key.as_str()) {
                return Err(CompileError::new(unknown_key(key, known.iter().copied())));
            }
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CompileError> {
        match self {
            Self::String(text) | Self::Expanded(text) | Self::Filled(text) => {
                visitor.visit_enum(text.into_deserializer())
            }
            Self::Object(fields) => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(MapDeserializer::new(fields.into_iter())))
            }
            other => Err(other.is_not(&format!("one of {}", quote(known)))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The names of the fields of the struct `T`; empty if `T` is not a struct.
pub(crate) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let names = Cell::new(&[][..]);
    let _ = T::deserialize(Probe { names: &names });
    names.get()
}

/// A deserializer without a value, which records the fields that a struct asks for.
struct Probe<'a> {
    names: &'a Cell<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = CompileError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CompileError> {
        Err(CompileError::new("no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CompileError> {
        self.names.set(known);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of an object. An error in the value of a field names the field's key.
struct Fields {
    rest: std::vec::IntoIter<(String, Node)>,
    value: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = CompileError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CompileError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let read = seed.deserialize(key.as_str().into_deserializer())?;
        self.value = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CompileError> {
        let (key, value) =
            self.value.take().ok_or_else(|| CompileError::new("a value was asked for before its key"))?;
        seed.deserialize(value).map_err(|error| error.inside(&key))
    }
}

/// Every value is either read as serde_json reads it, or refused.
#[cfg(fuzzing)]
pub(crate) fn fuzz(json: &[u8]) {
    match (Node::parse(json), serde_json::from_slice::<Value>(json)) {
        (Ok(node), value) => assert_eq!(Some(node.into_value()), value.ok()),
        (Err(error), _) => assert!(error.to_string().len() < 1000),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::Node;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Options {
        #[serde(default)]
        flag: bool,
        count: Option<u32>,
        name: Option<String>,
        #[serde(default)]
        list: Vec<i64>,
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Slow { by: f64 },
    }

    fn read(json: &str) -> Result<Options, String> {
        Node::parse(json.as_bytes()).and_then(Node::read).map_err(|error| error.to_string())
    }

    #[test]
    fn types_are_read() {
        let options =
            read(r#"{"flag": true, "count": 3, "name": "x", "list": [-1, 2], "mode": {"slow": {"by": 1.5}}}"#);
        let expected = Options {
            flag: true,
            count: Some(3),
            name: Some("x".into()),
            list: vec![-1, 2],
            mode: Some(Mode::Slow { by: 1.5 }),
        };
        assert_eq!(options.unwrap(), expected);
        assert_eq!(read(r#"{"mode": "fast", "name": null}"#).unwrap().mode, Some(Mode::Fast));
    }

    #[test]
    fn a_string_from_the_environment_is_a_number_where_one_is_due() {
        let expanded = |key: &str, text: &str| {
            Node::Object(vec![(key.into(), Node::Expanded(text.into()))]).read::<Options>().map_err(|e| e.to_string())
        };
        assert_eq!(expanded("count", "12").unwrap().count, Some(12));
        assert!(expanded("flag", "true").unwrap().flag);
        assert_eq!(expanded("name", "12").unwrap().name.as_deref(), Some("12"));
        assert_eq!(
            expanded("count", "hunter2").unwrap_err(),
            "count: expected a whole number, found other text in the variable"
        );
        assert_eq!(
            read(r#"{"count": "12"}"#).unwrap_err(),
            "count: expected a whole number, found a string; write it without quotes"
        );
    }

    #[test]
    fn unknown_and_double_keys_are_refused() {
        assert_eq!(read(r#"{"flg": true}"#).unwrap_err(), "unknown key `flg`, did you mean `flag`?");
        assert_eq!(read(r#"{"zzzzzzzzz": true}"#).unwrap_err(), "unknown key `zzzzzzzzz`");
        assert!(read(r#"{"flag": true, "flag": false}"#).unwrap_err().starts_with("duplicate key `flag` at line 1"));
        for (many, twice) in [(15, 0), (16, 0), (17, 0), (17, 16), (100, 3), (100, 99)] {
            let fields = |count| (0..count).map(|n| format!(r#""f{n}": 0, "#)).collect::<String>();
            assert!(Node::parse(format!("{{{}\"g\": 0}}", fields(many)).as_bytes()).is_ok());
            let error = Node::parse(format!("{{{}\"f{twice}\": 0}}", fields(many)).as_bytes()).err().unwrap();
            assert!(error.to_string().starts_with(&format!("duplicate key `f{twice}` at line 1 column ")), "{error}");
        }
    }

    #[test]
    fn errors_say_what_was_found_and_what_is_expected() {
        for (json, error) in [
            (r#"{"flag": "true"}"#, "flag: expected a boolean, found a string; write it without quotes"),
            (r#"{"flag": 1}"#, "flag: expected a boolean, found a number"),
            (r#"{"count": 1.5}"#, "count: expected a whole number, found a number with a fraction or an exponent"),
            (r#"{"count": -1}"#, "count: expected a whole number from 0 to 4294967295, found another number"),
            (r#"{"count": 4294967296}"#, "count: expected a whole number from 0 to 4294967295, found another number"),
            (r#"{"count": []}"#, "count: expected a whole number, found an array"),
            (r#"{"name": 1}"#, "name: expected a string, found a number; write it in quotes"),
            (r#"{"name": {}}"#, "name: expected a string, found an object"),
            (r#"{"list": {}}"#, "list: expected an array, found an object"),
            (r#"{"list": null}"#, "list: expected an array, found null"),
            (r#"{"mode": "fsat"}"#, "mode: expected one of `fast`, `slow`, found another string"),
            (r#"{"mode": 1}"#, "mode: expected one of `fast`, `slow`, found a number"),
            (
                r#"{"mode": {"slow": {"by": "1"}}}"#,
                "mode.by: expected a number, found a string; write it without quotes",
            ),
            (r#"{"mode": {"slow": {}}}"#, "mode: the key `by` is missing"),
            ("[]", "expected an object, found an array"),
            ("null", "expected an object, found null"),
            ("", "expected a JSON object, found nothing"),
            ("\u{feff}{}", "expected a JSON object, found a byte order mark (UTF-8) before it"),
            ("a: 1", "expected JSON: expected value at line 1 column 1"),
            ("{\"count\": 1e400}", "expected JSON: number out of range at line 1 column 15"),
            ("{'count': 1}", "expected a JSON object, found single quotes around a string or name"),
        ] {
            assert_eq!(read(json).unwrap_err(), error, "{json}");
        }
        for text in ["NaN", "inf", "-inf", "1e400", "", " "] {
            let slow = Node::Object(vec![("by".into(), Node::Expanded(text.into()))]);
            let node = Node::Object(vec![("mode".into(), Node::Object(vec![("slow".into(), slow)]))]);
            let error = node.read::<Options>().unwrap_err().to_string();
            assert_eq!(error, "mode.by: expected a number, found other text in the variable", "{text:?}");
        }
    }

    #[test]
    fn errors_never_quote_a_value() {
        for json in [
            r#"{"flag": "hunter2"}"#,
            r#"{"count": "hunter2"}"#,
            r#"{"count": -42424242}"#,
            r#"{"name": 42424242}"#,
            r#"{"mode": "hunter2"}"#,
            r#"{"list": ["hunter2"]}"#,
            r#"{"list": "hunter2"}"#,
            r#""hunter2""#,
            r#"{"name": "hunter2"#,
        ] {
            let error = read(json).unwrap_err();
            assert!(!error.contains("hunter2") && !error.contains("42424242"), "{json} -> {error}");
        }
    }
}
