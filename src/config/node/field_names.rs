//! The names of a struct's fields.

use std::cell::Cell;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::config::error::CompileError;

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
