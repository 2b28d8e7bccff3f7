//! JSON as it was received, without its secrets: piece by piece, without a tree.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::render::cut;
use crate::sensitive::{REDACTED, is_secret};

/// A JSON text. Names and their order stay; the values of secret fields are replaced, whatever they are.
pub(super) struct Json<'a> {
    pub(super) text: &'a [u8],
    pub(super) redact: bool,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = serde_json::Deserializer::from_slice(self.text);
        let done = Piece::new(self.redact, &mut text).serialize(serializer)?;
        text.end().map_err(ser::Error::custom)?;
        Ok(done)
    }
}

/// A value that is printed while it is read.
struct Piece<D> {
    redact: bool,
    /// Until it is printed.
    of: RefCell<Option<D>>,
}

impl<D> Piece<D> {
    fn new(redact: bool, of: D) -> Self {
        Self { redact, of: RefCell::new(Some(of)) }
    }
}

impl<'de, D: Deserializer<'de>> Serialize for Piece<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of = self.of.take().ok_or_else(|| ser::Error::custom("printed twice"))?;
        of.deserialize_any(Printer { redact: self.redact, to: serializer }).map_err(ser::Error::custom)
    }
}

struct Printer<S> {
    redact: bool,
    to: S,
}

fn wrong<E: serde::de::Error>(error: impl fmt::Display) -> E {
    E::custom(error)
}

impl<'de, S: Serializer> Visitor<'de> for Printer<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<S::Ok, E> {
        self.to.serialize_unit().map_err(wrong)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<S::Ok, E> {
        self.to.serialize_bool(value).map_err(wrong)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<S::Ok, E> {
        self.to.serialize_i64(value).map_err(wrong)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<S::Ok, E> {
        self.to.serialize_u64(value).map_err(wrong)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<S::Ok, E> {
        self.to.serialize_f64(value).map_err(wrong)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<S::Ok, E> {
        self.to.serialize_str(&cut(value)).map_err(wrong)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<S::Ok, A::Error> {
        let mut to = self.to.serialize_seq(None).map_err(wrong)?;
        while items.next_element_seed(Item { redact: self.redact, to: &mut to })?.is_some() {}
        to.end().map_err(wrong)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<S::Ok, A::Error> {
        let mut to = self.to.serialize_map(None).map_err(wrong)?;
        while let Some(name) = fields.next_key_seed(Name)? {
            to.serialize_key(&name).map_err(wrong)?;
            if self.redact && is_secret(&name) {
                fields.next_value::<IgnoredAny>()?;
                to.serialize_value(REDACTED).map_err(wrong)?;
            } else {
                fields.next_value_seed(Field { redact: self.redact, to: &mut to })?;
            }
        }
        to.end().map_err(wrong)
    }
}

/// A name, borrowed if it can be.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

struct Item<'a, S> {
    redact: bool,
    to: &'a mut S,
}

impl<'de, S: SerializeSeq> DeserializeSeed<'de> for Item<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.to.serialize_element(&Piece::new(self.redact, deserializer)).map_err(wrong)
    }
}

struct Field<'a, S> {
    redact: bool,
    to: &'a mut S,
}

impl<'de, S: SerializeMap> DeserializeSeed<'de> for Field<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.to.serialize_value(&Piece::new(self.redact, deserializer)).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn printed(text: &str) -> String {
        serde_json::to_string(&Json { text: text.as_bytes(), redact: true }).unwrap()
    }

    #[test]
    fn the_whole_value_goes() {
        let text = r#"{"z": [{"token": {"value": "x"}, "b": 1}], "secret": ["x", "y"], "t\u006fken": 1}"#;
        let expected = json!([{"token": REDACTED, "b": 1}]).to_string();
        let order = r#"{"token":"***REDACTED***","b":1}"#;
        let text = printed(text);
        assert_eq!(text, format!(r#"{{"z":[{order}],"secret":"{REDACTED}","token":"{REDACTED}"}}"#));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["z"].to_string(), expected);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "[1,]", "1 2", r#"{"a": 1e999}"#, r#"["\ud83d"]"#] {
            assert!(serde_json::to_string(&Json { text: text.as_bytes(), redact: true }).is_err(), "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_has_no_secrets_is_printed_as_a_tree_of_it(value in value()) {
            let text = value.to_string();
            let printed = serde_json::to_string(&Json { text: text.as_bytes(), redact: false }).unwrap();
            // Of a float, reading may change the last digit.
            prop_assert_eq!(printed, serde_json::from_str::<Value>(&text).unwrap().to_string());
        }
    }
}
