//! Reads JSON into a [`Node`], within the limits of a value.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::value::Node;
use crate::config::error::{CompileError, duplicate_key};
use crate::json::NotJson;

/// The longest value, in bytes. The values of its placeholders have the same limit.
pub(crate) const LONGEST: usize = 512 << 10;

/// The most keys and items that a value may hold, at all levels.
pub(crate) const MOST_HELD: usize = 20_000;

/// The most levels of arrays and objects.
const DEEPEST: usize = 64;

/// Up to this many fields, a linear search finds a duplicate key; a larger object keeps a set of its names.
const FEW: usize = 16;
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
}

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
