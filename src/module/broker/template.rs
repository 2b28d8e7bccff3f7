//! Templates: the name of a topic, subject, stream or queue, with parts of the event filled in.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::header::HeaderName;

use super::place::Place;
use crate::base::secret_names::is_credential;
use crate::config::{BuildError, WebhookKey, did_you_mean, shown};
use crate::event::{DeliverError, DeliverErrorKind, Delivery};

/// The longest value of a header field that is filled in, in bytes.
const MAX_VALUE: usize = 128;

/// A text that contains `{namespace}`, `{webhook}` and `{header:X}`. `{{` and `}}` are written for braces.
///
/// A header field's value is the sender's, so it is checked before it is filled in: it cannot change the place that the
/// rest of the text determines.
#[derive(Debug)]
pub(crate) struct Template {
    /// The name of the option.
    option: &'static str,
    place: Place,
    parts: Box<[Part]>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(Box<str>),
    Header(HeaderName),
}

impl Template {
    /// Compiles the `text` of the option, for a webhook.
    ///
    /// # Errors
    ///
    /// When it has an unknown name in braces, names a header field with credentials, or does not fit into its place
    /// whatever is filled in. The text itself is not quoted, but a name in braces is.
    pub(crate) fn compile(
        option: &'static str,
        text: &str,
        place: Place,
        webhook: &WebhookKey,
    ) -> Result<Self, BuildError> {
        let parts = parse(text, webhook).map_err(|error| format!("`{option}`: {error}"))?;
        // Whatever is filled in has the same properties as this letter.
        let sample: String = parts.iter().map(|part| if let Part::Text(text) = part { text } else { "x" }).collect();
        check(place, &sample).map_err(|rule| format!("`{option}` is not {}: {rule}", place.name))?;
        Ok(Self { option, place, parts })
    }

    /// The text for one event.
    ///
    /// # Errors
    ///
    /// [`Permanent`](DeliverErrorKind::Permanent), when a header field is missing or does not fit. It names the field
    /// and not its value.
    pub(crate) fn fill(&self, delivery: &Delivery) -> Result<Cow<'_, str>, DeliverError> {
        if let [Part::Text(text)] = &*self.parts {
            return Ok(Cow::Borrowed(text));
        }
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Header(name) => {
                    let value = self.value(delivery.headers(), name);
                    filled.push_str(value.map_err(|wrong| self.error(format_args!("the header `{name}` {wrong}")))?);
                }
            }
        }
        match check(self.place, &filled) {
            Ok(()) => Ok(Cow::Owned(filled)),
            Err(rule) => Err(self.error(format_args!("with its headers it is not {}: {rule}", self.place.name))),
        }
    }

    /// Whether the header field `name` is filled in.
    pub(crate) fn uses(&self, name: &HeaderName) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Header(header) if header == name))
    }

    /// The text, if it is the same for every event.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &*self.parts {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    fn value<'a>(&self, headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, String> {
        let mut values = headers.get_all(name).iter();
        let value = match (values.next(), values.next()) {
            (Some(value), None) => value,
            (None, _) => return Err("is missing".to_owned()),
            _ => return Err("appears more than once".to_owned()),
        };
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| "is not UTF-8")?.trim();
        match value.len() {
            0 => Err("is empty".to_owned()),
            1..=MAX_VALUE if value.chars().all(self.place.may_have) => Ok(value),
            1..=MAX_VALUE => Err(format!("has another character than {}", self.place.characters)),
            _ => Err(format!("is longer than {MAX_VALUE} bytes")),
        }
    }

    fn error(&self, wrong: fmt::Arguments<'_>) -> DeliverError {
        DeliverError::new(DeliverErrorKind::Permanent, format!("`{}` cannot be filled in: {wrong}", self.option))
    }
}

/// The text with the names of the fields that are filled in: `orders.{header:x-region}`.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Header(name) => write!(f, "{{header:{name}}}"),
        })
    }
}

fn check(place: Place, text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("it is empty".to_owned()),
        length if length > place.longest => Err(format!("it has more than {} bytes", place.longest)),
        _ => (place.check)(text).map_err(str::to_owned),
    }
}

/// The parts of a text. Two texts are never next to each other.
fn parse(text: &str, webhook: &WebhookKey) -> Result<Box<[Part]>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((brace, behind)) = doubled(rest) {
            plain.push(brace);
            rest = behind;
            continue;
        }
        let Some((name, behind)) = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
            return Err("a brace has no counterpart; write `{{` and `}}` for braces of the text".to_owned());
        };
        match name {
            "namespace" => plain.push_str(webhook.namespace()),
            "webhook" => plain.push_str(webhook.id()),
            _ => {
                let header = header(name)?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(Part::Header(header));
            }
        }
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain.into()));
    }
    Ok(parts.into())
}

/// A brace that is written twice, and the text behind it.
fn doubled(text: &str) -> Option<(char, &str)> {
    let behind = |brace: &str| text.strip_prefix(brace).map(|behind| (brace.chars().next(), behind));
    let (brace, behind) = behind("{{").or_else(|| behind("}}"))?;
    Some((brace?, behind))
}

/// The field that `header:X` names.
fn header(name: &str) -> Result<HeaderName, String> {
    let Some(field) = name.strip_prefix("header:") else {
        let hint = did_you_mean(name, ["namespace", "webhook", "header:"].into_iter());
        return Err(format!(
            "unknown name `{{{}}}`{hint}; the known ones are `{{namespace}}`, `{{webhook}}` and `{{header:NAME}}`",
            shown(name)
        ));
    };
    let field = field.trim();
    let header: HeaderName =
        field.parse().map_err(|_| format!("`{}` is not a valid name of a header field", shown(field)))?;
    match is_credential(&header) {
        true => Err(format!("the header `{header}` holds a credential, which must not become a name")),
        false => Ok(header),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{DataType, WebhookInfo};

    /// Words between dots.
    const DOTTED: Place = Place {
        name: "a dotted name",
        longest: 200,
        check: |text| match text.split('.').any(str::is_empty) {
            true => Err("a part between dots is empty"),
            false => Ok(()),
        },
        may_have: |char| char.is_ascii_alphanumeric(),
        characters: "letters and digits",
    };

    fn webhook() -> WebhookKey {
        WebhookKey::new("shop", "orders").unwrap()
    }

    fn compile(text: &str) -> Result<Template, String> {
        Template::compile("subject", text, DOTTED, &webhook()).map_err(|error| error.to_string())
    }

    fn delivery(headers: &[(&str, &[u8])]) -> Delivery {
        let header = |&(name, value): &(&str, &[u8])| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value).unwrap())
        };
        let headers = headers.iter().map(header).collect();
        Delivery::new(WebhookInfo::new(webhook(), DataType::Json), headers, "{}")
    }

    fn fill(text: &str, headers: &[(&str, &[u8])]) -> Result<String, String> {
        let template = compile(text).unwrap();
        let filled = template.fill(&delivery(headers)).map(Cow::into_owned);
        filled.map_err(|error| {
            assert_eq!(error.kind(), DeliverErrorKind::Permanent);
            error.to_string()
        })
    }

    #[test]
    fn names_are_filled_in() {
        assert_eq!(fill("events", &[]).unwrap(), "events");
        assert_eq!(fill("{namespace}.x.{webhook}", &[]).unwrap(), "shop.x.orders");
        assert_eq!(fill("{header:X-Topic}", &[("x-topic", b" push ")]).unwrap(), "push");
        assert_eq!(fill("a.{header:x-a}{header:x-b}", &[("x-a", b"1"), ("x-b", b"2")]).unwrap(), "a.12");
        assert_eq!(fill("{{{webhook}}}.}}{{", &[]).unwrap(), "{orders}.}{");
        assert_eq!(compile("{namespace}.{webhook}").unwrap().constant(), Some("shop.orders"));
        assert_eq!(compile("{header:x-a}").unwrap().constant(), None);
    }

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        for (text, expected) in [
            ("{webhok}", "`subject`: unknown name `{webhok}`, did you mean `webhook`?; the known ones are"),
            ("{headers:x-a}", "did you mean `header:`"),
            ("{}", "`subject`: unknown name `{}`; the known ones are `{namespace}`, `{webhook}` and `{header:NAME}`"),
            ("{", "`subject`: a brace has no counterpart; write `{{` and `}}`"),
            ("a}", "a brace has no counterpart"),
            ("{header:}", "`` is not a valid name of a header field"),
            ("{header:a b}", "`a b` is not a valid name of a header field"),
            ("{header:Authorization}", "the header `authorization` holds a credential"),
            ("", "`subject` is not a dotted name: it is empty"),
            ("a..{webhook}", "`subject` is not a dotted name: a part between dots is empty"),
            (&"a".repeat(201), "it has more than 200 bytes"),
        ] {
            let error = compile(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_that_names_the_header_only() {
        for (headers, expected) in [
            (&[][..], "`subject` cannot be filled in: the header `x-a` is missing"),
            (&[("x-a", &b"s3cret"[..]), ("x-a", b"s3cret")], "the header `x-a` appears more than once"),
            (&[("x-a", b" ")], "the header `x-a` is empty"),
            (&[("x-a", b"s3cret.x")], "the header `x-a` has another character than letters and digits"),
            (&[("x-a", b"s3cret x")], "another character"),
            (&[("x-a", b"s3cret\xff")], "the header `x-a` is not UTF-8"),
            (&[("x-a", &[b'a'; 129])], "the header `x-a` is longer than 128 bytes"),
        ] {
            let error = fill("events.{header:x-a}", headers).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
        let long = format!("{}.{{header:x-a}}", "a".repeat(190));
        let error = fill(&long, &[("x-a", b"1234567890")]).unwrap_err();
        assert!(error.ends_with("with its headers it is not a dotted name: it has more than 200 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn a_value_never_escapes_its_place(value in prop::collection::vec(0x20_u8..0x7f, 0..140)) {
            if let Ok(filled) = fill("a.{header:x-a}.b", &[("x-a", &value)]) {
                let parts: Vec<_> = filled.split('.').collect();
                prop_assert!(matches!(parts[..], ["a", part, "b"] if part.as_bytes() == value.trim_ascii()));
            }
        }

        #[test]
        fn no_text_makes_the_compiler_panic(text in ".{0,40}|[{}a:h]{0,20}") {
            let _ = compile(&text);
        }
    }
}
