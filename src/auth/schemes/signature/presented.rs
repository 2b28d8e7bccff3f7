//! The signatures that a request presents.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::fields::{header_name, pointer, scalar};
use super::form;
use super::key::{Algorithm, Bytes, Encoding};
use crate::auth::AuthError;
use crate::auth::schemes::only;
use crate::config::CompileError;
use crate::json::Pointer;
use crate::request::Head;

/// The place of the signatures.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// In these header fields. Each may appear once, and a signature in any of them counts.
    Headers(&'a [&'a str]),
    /// In the header fields with this prefix and a number from 1 to this one.
    Numbered(&'a str, usize),
    /// In the body, at this JSON pointer.
    Json(&'a str),
    /// In the body, in this field of a form.
    Form(&'a str),
}

/// The format of that place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    /// One, behind a prefix.
    Plain { prefix: &'a str },
    /// A list. Items without the prefix are of other versions and are skipped.
    List { separator: &'a str, prefix: &'a str },
    /// Pairs. The pairs with these keys are signatures.
    Pairs { separator: &'a str, equals: &'a str, keys: &'a [&'a str] },
}

/// Finds the signatures.
#[derive(Clone, Debug)]
pub(super) struct Finder {
    place: Place,
    shape: Shape,
    encoding: Encoding,
    algorithm: Algorithm,
}

#[derive(Clone, Debug)]
enum Place {
    Headers(Box<[HeaderName]>),
    Json(Pointer),
    Form(Box<str>),
}

#[derive(Clone, Debug)]
enum Shape {
    Plain { prefix: Box<str> },
    List { separator: Box<str>, prefix: Box<str> },
    Pairs { separator: Box<str>, equals: Box<str>, keys: Box<[Box<str>]> },
}

/// The signatures of a request, and the pairs beside them.
#[derive(Debug, Default)]
pub(super) struct Presented<'a> {
    pub(super) signatures: Vec<Bytes>,
    /// Of the field with the signatures, if it has pairs.
    pairs: Vec<(&'a [u8], &'a [u8])>,
}

impl Finder {
    pub(super) fn new(
        source: Source<'_>,
        form: Form<'_>,
        encoding: Encoding,
        algorithm: Algorithm,
        param: &dyn Fn(&str) -> Result<String, CompileError>,
    ) -> Result<Self, CompileError> {
        let place = match source {
            Source::Headers(names) => {
                Place::Headers(names.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?)
            }
            Source::Numbered(name, most) => Place::Headers(
                (1..=most).map(|number| header_name(&format!("{name}{number}"))).collect::<Result<_, _>>()?,
            ),
            Source::Json(path) => Place::Json(pointer(path)?),
            Source::Form(name) => Place::Form(name.into()),
        };
        let shape = match form {
            Form::Plain { prefix } => Shape::Plain { prefix: prefix.into() },
            Form::List { separator, prefix } => Shape::List { separator: separator.into(), prefix: prefix.into() },
            Form::Pairs { separator, equals, keys } => Shape::Pairs {
                separator: separator.into(),
                equals: equals.into(),
                keys: keys.iter().map(|key| filled_in(key, param)).collect::<Result<_, _>>()?,
            },
        };
        Ok(Self { place, shape, encoding, algorithm })
    }

    /// Whether this header field has the signatures.
    pub(super) fn reads(&self, name: &HeaderName) -> bool {
        matches!(&self.place, Place::Headers(names) if names.contains(name))
    }

    /// Whether the body must be there.
    pub(super) fn needs_body(&self) -> bool {
        !matches!(self.place, Place::Headers(_))
    }

    /// Whether a header field holds pairs beside the signatures.
    pub(super) fn has_pairs(&self) -> bool {
        matches!((&self.place, &self.shape), (Place::Headers(_), Shape::Pairs { .. }))
    }

    /// Reads the signatures of a request: at least one.
    pub(super) fn find<'a>(&self, head: Head<'a>, body: &'a [u8]) -> Result<Presented<'a>, AuthError> {
        let mut presented = Presented::default();
        for text in self.texts(head, body)? {
            match text {
                Cow::Borrowed(text) => self.read(text, &mut presented)?,
                Cow::Owned(text) => {
                    // Pairs in the body are used for nothing else.
                    let mut of_body = Presented::default();
                    self.read(&text, &mut of_body)?;
                    presented.signatures.append(&mut of_body.signatures);
                }
            }
        }
        if presented.signatures.is_empty() { Err(AuthError::Malformed) } else { Ok(presented) }
    }

    /// The token that the request presents, in a field of the head.
    pub(super) fn token<'a>(&self, head: Head<'a>) -> Result<&'a [u8], AuthError> {
        let (Place::Headers(names), Shape::Plain { prefix }) = (&self.place, &self.shape) else {
            return Err(AuthError::Invalid);
        };
        let values = fields(head.headers, names)?;
        let [value] = *values else { return Err(AuthError::Malformed) };
        value.strip_prefix(prefix.as_bytes()).filter(|token| !token.is_empty()).ok_or(AuthError::Malformed)
    }

    fn texts<'a>(&self, head: Head<'a>, body: &'a [u8]) -> Result<Vec<Cow<'a, [u8]>>, AuthError> {
        Ok(match &self.place {
            Place::Headers(names) => fields(head.headers, names)?.into_iter().map(Cow::Borrowed).collect(),
            Place::Json(pointer) => vec![Cow::Owned(scalar(pointer, body)?.into_bytes())],
            Place::Form(name) => vec![Cow::Owned(form::field(body, name.as_bytes())?)],
        })
    }

    fn read<'a>(&self, text: &'a [u8], presented: &mut Presented<'a>) -> Result<(), AuthError> {
        match &self.shape {
            Shape::Plain { prefix } => self.take(text, prefix, presented),
            Shape::List { separator, prefix } => {
                split(text, separator).try_for_each(|item| self.take(item, prefix, presented))
            }
            Shape::Pairs { separator, equals, keys } => split(text, separator).try_for_each(|item| {
                let Some((key, value)) = split_once(item, equals.as_bytes()) else { return Ok(()) };
                if keys.iter().any(|known| known.as_bytes() == key) {
                    return self.take(value, "", presented);
                }
                presented.pairs.push((key, value));
                Ok(())
            }),
        }
    }

    /// Adds a signature. A text of another length, alphabet or version is skipped: a list may hold others beside a valid one.
    fn take(&self, text: &[u8], prefix: &str, presented: &mut Presented<'_>) -> Result<(), AuthError> {
        let signature = text.strip_prefix(prefix.as_bytes()).and_then(|text| self.encoding.decode(text));
        if let Some(signature) = signature.filter(|bytes| self.algorithm.lengths().contains(&bytes.len())) {
            if presented.signatures.len() == self.algorithm.most() {
                return Err(AuthError::Malformed);
            }
            presented.signatures.push(signature);
        }
        Ok(())
    }
}

impl<'a> Presented<'a> {
    /// The value of the pair with this key, which must appear once.
    pub(super) fn pair(&self, key: &str) -> Result<&'a [u8], AuthError> {
        let mut found = self.pairs.iter().filter(|(other, _)| *other == key.as_bytes());
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(value),
            _ => Err(AuthError::Malformed),
        }
    }
}

/// A key of pairs. For `{param:x}` it is the value of the parameter.
fn filled_in(key: &str, param: &dyn Fn(&str) -> Result<String, CompileError>) -> Result<Box<str>, CompileError> {
    match key.strip_prefix("{param:").and_then(|name| name.strip_suffix('}')) {
        Some(name) => param(name).map(String::into_boxed_str),
        None => Ok(key.into()),
    }
}

/// The values of the fields that are present: at least one, none of them repeated.
fn fields<'a>(headers: &'a HeaderMap, names: &[HeaderName]) -> Result<Vec<&'a [u8]>, AuthError> {
    let values = names.iter().filter(|name| headers.contains_key(*name)).map(|name| only(headers, name));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() { Err(AuthError::Missing) } else { Ok(values) }
}

/// The parts of a text, without the blanks around each.
fn split<'a>(text: &'a [u8], separator: &str) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let (part, behind) = match split_once(rest?, separator.as_bytes()) {
            Some((part, behind)) => (part, Some(behind)),
            None => (rest?, None),
        };
        rest = behind;
        Some(part.trim_ascii())
    })
}

fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(separator.len()).position(|part| part == separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}
