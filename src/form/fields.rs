//! The fields of a form, and the check that they are acceptable.

use std::borrow::Cow;
use std::fmt;

/// The most fields that a form may have.
pub(crate) const MAX_FIELDS: usize = 1000;

/// The reason for which a body is not accepted as a form. `field` is the number of the field, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Escape { field: usize },
    NotUtf8 { field: usize },
    TooManyFields,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escape { field } => write!(
                f,
                "Malformed form: expected two hexadecimal digits after each `%`, found others in field {field}; send a \
                 percent sign as `%25`"
            ),
            Self::NotUtf8 { field } => {
                write!(
                    f,
                    "Malformed form: expected UTF-8, found other bytes in field {field}; encode the text as UTF-8"
                )
            }
            Self::TooManyFields => {
                write!(f, "Malformed form: expected at most {MAX_FIELDS} fields, found more; send fewer in one request")
            }
        }
    }
}

/// Checks that a body is an acceptable form.
pub(crate) fn check(form: &[u8]) -> Result<(), Malformed> {
    for (field, number) in fields(form).zip(1..) {
        if number > MAX_FIELDS {
            return Err(Malformed::TooManyFields);
        }
        for part in [field.name, field.value] {
            decode(part).map_err(|fault| fault.of_field(number))?;
        }
    }
    Ok(())
}

/// The value of the only field of this name.
///
/// # Errors
///
/// When there is none, more than one, or one that cannot be decoded.
pub(crate) fn find<'a>(form: &'a [u8], name: &str) -> Result<Cow<'a, str>, NotFound> {
    let mut named = fields(form).filter(|field| field.name().is_ok_and(|found| found == name));
    match (named.next(), named.next()) {
        (Some(field), None) => field.value().map_err(|_| NotFound::Malformed),
        (None, _) => Err(NotFound::Missing),
        // Some parsers take the first of two values, some the last.
        _ => Err(NotFound::Repeated),
    }
}

/// The reason for which a form has no value for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    Missing,
    Repeated,
    Malformed,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Repeated => "appears more than once",
            Self::Malformed => "is not well encoded",
        })
    }
}

/// The fields of a form, or of the query of a URL, in order and not yet decoded.
pub(crate) fn fields(form: &[u8]) -> impl Iterator<Item = Field<'_>> {
    form.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()).map(Field::of)
}

/// A field as it is written.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Field<'a> {
    pub(super) fn of(piece: &'a [u8]) -> Self {
        let end = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
        Self { name: &piece[..end], value: piece.get(end + 1..).unwrap_or_default() }
    }

    /// The decoded name.
    pub(crate) fn name(&self) -> Result<Cow<'a, str>, Fault> {
        decode(self.name)
    }

    /// The decoded value.
    pub(crate) fn value(&self) -> Result<Cow<'a, str>, Fault> {
        decode(self.value)
    }
}

/// The reason for which a name or a value cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Escape,
    NotUtf8,
}

impl Fault {
    fn of_field(self, field: usize) -> Malformed {
        match self {
            Self::Escape => Malformed::Escape { field },
            Self::NotUtf8 => Malformed::NotUtf8 { field },
        }
    }
}

/// Decodes a name or a value of a form, or of the query of a URL.
pub(crate) fn decode(part: &[u8]) -> Result<Cow<'_, str>, Fault> {
    match decode_bytes(part)? {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Fault::NotUtf8),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Fault::NotUtf8),
    }
}

/// As [`decode`], for a name or a value that need not be UTF-8.
pub(crate) fn decode_bytes(part: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    if !part.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(part));
    }
    let mut decoded = Vec::with_capacity(part.len());
    let mut rest = part.iter();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => digit(rest.next())? << 4 | digit(rest.next())?,
            other => *other,
        });
    }
    Ok(Cow::Owned(decoded))
}

fn digit(byte: Option<&u8>) -> Result<u8, Fault> {
    let digit = byte.and_then(|byte| char::from(*byte).to_digit(16));
    digit.and_then(|digit| u8::try_from(digit).ok()).ok_or(Fault::Escape)
}

/// Writes `text` so that [`decode`] finds it again.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            b' ' => out.push(b'+'),
            b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(byte),
            other => out.extend([b'%', DIGITS[usize::from(other >> 4)], DIGITS[usize::from(other & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(form: &[u8]) -> Vec<(String, String)> {
        let pair = |field: Field<'_>| (field.name().unwrap().into_owned(), field.value().unwrap().into_owned());
        fields(form).map(pair).collect()
    }

    #[test]
    fn forms_of_senders_are_taken() {
        for form in [
            &b""[..],
            b"a",
            b"=",
            b"a=1&a=2&&",
            b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D",
            b"Body=Hall%C3%B6chen+%F0%9F%98%80&From=%2B14155550100",
            "name=é".as_bytes(),
            b"\xc3%a9=%c3\xa9",
        ] {
            assert_eq!(check(form), Ok(()), "{:?}", String::from_utf8_lossy(form));
        }
    }

    #[test]
    fn any_other_is_refused_with_the_number_of_the_field() {
        for (form, expected) in [
            (&b"%"[..], Malformed::Escape { field: 1 }),
            (b"a=1&b=%4", Malformed::Escape { field: 2 }),
            (b"a=%4g", Malformed::Escape { field: 1 }),
            (b"a=%+1", Malformed::Escape { field: 1 }),
            (b"a=% 1", Malformed::Escape { field: 1 }),
            (b"a=1&&&b=2&%zz=1", Malformed::Escape { field: 3 }),
            (b"a=%ff", Malformed::NotUtf8 { field: 1 }),
            (b"a=%C3&%A9=b", Malformed::NotUtf8 { field: 1 }),
            (b"a=1&\xe9=1", Malformed::NotUtf8 { field: 2 }),
            (b"a=%ED%A0%80", Malformed::NotUtf8 { field: 1 }),
        ] {
            assert_eq!(check(form), Err(expected), "{:?}", String::from_utf8_lossy(form));
        }
        let form = |count: usize| vec!["a=1"; count].join("&").into_bytes();
        assert_eq!(check(&form(1000)), Ok(()));
        assert_eq!(check(&form(1001)), Err(Malformed::TooManyFields));
        assert_eq!(check(&b"&".repeat(5000)), Ok(()), "empty pieces are no fields");
    }

    #[test]
    fn the_only_field_of_a_name_is_found() {
        for (form, found) in [
            (&b"id=1"[..], Ok("1")),
            (b"a=2&%69d=a%20b+c", Ok("a b c")),
            (b"id=a=b&ID=2&idx=3", Ok("a=b")),
            (b"id", Ok("")),
            (b"id=\xff", Err(NotFound::Malformed)),
            (b"", Err(NotFound::Missing)),
            (b"=id", Err(NotFound::Missing)),
            (b"id=1&id=1", Err(NotFound::Repeated)),
            (b"id=1&i%64=%", Err(NotFound::Repeated)),
        ] {
            let text = String::from_utf8_lossy(form);
            assert_eq!(find(form, "id").as_deref(), found.as_ref().map(|text| *text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_another_reader_reads(form in r"[a=&+%0-9A-Fg é\u{0}]{0,24}") {
            let read: Vec<_> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
            if check(form.as_bytes()).is_ok() {
                prop_assert_eq!(pairs(form.as_bytes()), read);
            } else {
                // The other parser has changed a refused form: it kept a `%`, or replaced bytes.
                let is_changed = |text: &String| text.contains('%') || text.contains(char::REPLACEMENT_CHARACTER);
                prop_assert!(read.iter().any(|(name, value)| is_changed(name) || is_changed(value)));
            }
        }

        #[test]
        fn what_another_writer_writes_is_taken(sent in prop::collection::vec((".{0,8}", ".{0,8}"), 0..6)) {
            let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&sent).finish();
            prop_assert_eq!(check(form.as_bytes()), Ok(()));
            prop_assert_eq!(pairs(form.as_bytes()), sent);
        }

        #[test]
        fn it_writes_as_another_writer_does(text in ".{0,16}") {
            let mut own = Vec::new();
            encode(text.as_bytes(), &mut own);
            let other: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            prop_assert_eq!(String::from_utf8(own).unwrap(), other);
        }

        #[test]
        fn no_bytes_make_it_panic(form in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = find(&form, "a").map(drop);
        }
    }
}
