//! The key by which a broker partitions and orders events: the option `key`.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::header::HeaderName;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::base::secret_names::is_credential;
use crate::config::{BuildError, DataType};
use crate::event::{DeliverError, DeliverErrorKind, Delivery};
use crate::form;
use crate::json::{InvalidPointer, Pointer, Scalar};

/// The longest key, in bytes.
const MAX_KEY: usize = 1024;

/// The longest name of a header field or of a form's field, in bytes.
const MAX_NAME: usize = 256;

/// The key of an event: `{"header": "X-Customer"}`, `{"pointer": "/customer"}` for JSON, `{"form": "customer"}` for forms,
/// or a literal, which is the key of every event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EventKey {
    Literal(Box<str>),
    Header(HeaderName),
    Pointer(Pointer),
    Form(Box<str>),
}

impl EventKey {
    /// Checks that bodies of this type can have the key.
    ///
    /// # Errors
    ///
    /// When they cannot: then no event would have a key.
    pub(crate) fn check(&self, data_type: DataType) -> Result<(), BuildError> {
        let (key, needed) = match self {
            Self::Pointer(_) => ("pointer", DataType::Json),
            Self::Form(_) => ("form", DataType::Form),
            Self::Literal(_) | Self::Header(_) => return Ok(()),
        };
        match data_type == needed {
            true => Ok(()),
            false => Err(format!("`key`: a `{key}` needs the `data_type` {needed}, found {data_type}").into()),
        }
    }

    /// Whether the key is the header field `name`.
    pub(crate) fn uses(&self, name: &HeaderName) -> bool {
        matches!(self, Self::Header(header) if header == name)
    }

    /// The key of one event. `None` if the event has none: its header or field is missing, or there is another value than
    /// a string or a number.
    ///
    /// # Errors
    ///
    /// [`Permanent`](DeliverErrorKind::Permanent), when the key is longer than 1,024 bytes. Its value is not quoted.
    pub(crate) fn of<'a>(&'a self, delivery: &'a Delivery) -> Result<Option<Cow<'a, [u8]>>, DeliverError> {
        let body = delivery.body();
        let found = match self {
            Self::Literal(text) => Some(Cow::Borrowed(text.as_bytes())),
            Self::Header(name) => one(delivery.headers(), name).map(Cow::Borrowed),
            Self::Pointer(pointer) => pointer.find(body).map(|found| match found {
                Scalar::String(text) | Scalar::Number(text) => Cow::Owned(text.into_bytes()),
            }),
            Self::Form(name) => form::find(body, name).ok().map(bytes),
        };
        match found {
            Some(key) if key.len() > MAX_KEY => {
                let reason = format!("the event's key, found by {self}, is longer than {MAX_KEY} bytes");
                Err(DeliverError::new(DeliverErrorKind::Permanent, reason))
            }
            found => Ok(found.filter(|key| !key.is_empty())),
        }
    }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The value of a field that is present exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes().trim_ascii()),
        _ => None,
    }
}

/// The place of the key, as it is configured. A literal is not shown.
impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("a literal"),
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Pointer(pointer) => write!(f, "the pointer `{}`", pointer.as_str()),
            Self::Form(name) => write!(f, "the field `{}` of the form", name.escape_debug()),
        }
    }
}

impl<'de> Deserialize<'de> for EventKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = EventKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or an object with `header`, `pointer` or `form`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<EventKey, E> {
        match text.len() {
            0 => Err(E::custom("a literal must not be empty")),
            1..=MAX_KEY => Ok(EventKey::Literal(text.into())),
            _ => Err(E::custom("a literal must have at most 1024 bytes")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EventKey, A::Error> {
        let config = Config::deserialize(MapAccessDeserializer::new(map))?;
        match (config.header, config.pointer, config.form) {
            (Some(name), None, None) => header(&name).map_err(de::Error::custom),
            (None, Some(pointer), None) => Pointer::parse(&pointer)
                .map(EventKey::Pointer)
                .map_err(|InvalidPointer(rule)| de::Error::custom(format_args!("`pointer`: {rule}"))),
            (None, None, Some(name)) if (1..=MAX_NAME).contains(&name.len()) => Ok(EventKey::Form(name.into())),
            (None, None, Some(_)) => Err(de::Error::custom("`form` must have 1 to 256 bytes")),
            _ => Err(de::Error::custom("expected exactly one of `header`, `pointer` and `form`")),
        }
    }
}

fn header(name: &str) -> Result<EventKey, &'static str> {
    if name.len() > MAX_NAME {
        return Err("`header` must have at most 256 bytes");
    }
    let name = name.parse().map_err(|_| "`header` is not a valid name of a header field")?;
    match is_credential(&name) {
        true => Err("`header` names a field with credentials, which must not become a key"),
        false => Ok(EventKey::Header(name)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    header: Option<String>,
    pointer: Option<String>,
    form: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{WebhookInfo, WebhookKey};

    fn read(json: &str) -> Result<EventKey, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn of(json: &str, headers: &[(&'static str, &str)], body: &str) -> Result<Option<String>, String> {
        let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
        let headers = headers.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let delivery = Delivery::new(info, headers.collect(), body.to_owned());
        let key = read(json).unwrap();
        let found = key.of(&delivery).map_err(|error| {
            assert_eq!(error.kind(), DeliverErrorKind::Permanent);
            error.to_string()
        })?;
        Ok(found.map(|key| String::from_utf8(key.into_owned()).unwrap()))
    }

    #[test]
    fn a_key_is_found() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(of(r#""all""#, &[], ""), some("all"));
        assert_eq!(of(r#"{"header": "X-Customer"}"#, &[("x-customer", " 7 ")], ""), some("7"));
        assert_eq!(of(r#"{"pointer": "/a/0"}"#, &[], r#"{"a": ["x\u0041"]}"#), some("xA"));
        assert_eq!(of(r#"{"pointer": "/a"}"#, &[], r#"{"a": 1.50}"#), some("1.50"));
        assert_eq!(of(r#"{"form": "a b"}"#, &[], "c=1&a+b=%41"), some("A"));
    }

    #[test]
    fn an_event_may_have_no_key() {
        for (json, headers, body) in [
            (r#"{"header": "x"}"#, &[][..], ""),
            (r#"{"header": "x"}"#, &[("x", "")], ""),
            (r#"{"header": "x"}"#, &[("x", "1"), ("x", "2")], ""),
            (r#"{"pointer": "/a"}"#, &[], r#"{"a": {}}"#),
            (r#"{"pointer": "/a"}"#, &[], "no json"),
            (r#"{"form": "a"}"#, &[], "b=1"),
            (r#"{"form": "a"}"#, &[], "a=1&a=2"),
        ] {
            assert_eq!(of(json, headers, body), Ok(None), "{json}");
        }
        let error = of(r#"{"pointer": "/a"}"#, &[], &format!(r#"{{"a": "{}"}}"#, "s".repeat(1025))).unwrap_err();
        assert_eq!(error, "the event's key, found by the pointer `/a`, is longer than 1024 bytes");
    }

    #[test]
    fn a_key_that_cannot_work_is_refused() {
        for (json, expected) in [
            ("1", "expected a string, or an object with `header`, `pointer` or `form`"),
            (r#""""#, "a literal must not be empty"),
            ("{}", "expected exactly one of `header`, `pointer` and `form`"),
            (r#"{"header": "x", "form": "y"}"#, "expected exactly one of"),
            (r#"{"header": "a b"}"#, "`header` is not a valid name"),
            (r#"{"header": "Cookie"}"#, "names a field with credentials"),
            (r#"{"pointer": "a"}"#, "`pointer`: a pointer must begin with `/`"),
            (r#"{"form": ""}"#, "`form` must have 1 to 256 bytes"),
            (r#"{"heder": "x"}"#, "unknown field"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
        for (json, fits) in [(r#"{"pointer": "/a"}"#, DataType::Json), (r#"{"form": "a"}"#, DataType::Form)] {
            let key = read(json).unwrap();
            assert!(key.check(fits).is_ok());
            let error = key.check(DataType::Blob).unwrap_err().to_string();
            assert!(error.ends_with(&format!("needs the `data_type` {fits}, found blob")), "{error}");
        }
        assert!(read(r#"{"header": "x"}"#).unwrap().check(DataType::Blob).is_ok());
    }
}
