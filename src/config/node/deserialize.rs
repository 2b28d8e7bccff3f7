//! Reads types from a [`Node`].

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::value::Node;
use crate::config::error::{CompileError, quote, unknown_key};
use crate::config::name::Name;

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

/// Whether JSON can represent the number.
fn is_json<T: fmt::Display>(value: &T) -> bool {
    !matches!(&*value.to_string(), "NaN" | "inf" | "-inf")
}
