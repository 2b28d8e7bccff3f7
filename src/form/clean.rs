//! A form without its secrets, and otherwise byte for byte as it was.

#[cfg(any(fuzzing, test))]
use std::borrow::Cow;

use super::fields::{Fault, Field, encode};
#[cfg(any(fuzzing, test))]
use super::fields::{check, fields};
use crate::json;

/// Why nothing can be said of a form: a name or a value cannot be decoded, or holds JSON that is too deep.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl From<Fault> for Unreadable {
    fn from(_: Fault) -> Self {
        Self
    }
}

/// Replaces the values of the fields whose name `is_secret` by `mask`, or leaves those fields out if there is none. A
/// value that is a JSON object or array (as the field `payload` of GitHub and Slack) is cleaned in the same way. `None` if
/// nothing is to be changed.
pub(crate) fn clean(
    form: &[u8],
    mask: Option<&str>,
    is_secret: &dyn Fn(&str) -> bool,
) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut out = Vec::with_capacity(form.len());
    let (mut has_changed, mut is_first) = (false, true);
    for piece in form.split(|byte| *byte == b'&') {
        let field = Field::of(piece);
        let change = match piece {
            [] => Change::Keep,
            _ => change(field, mask, is_secret)?,
        };
        has_changed |= !matches!(change, Change::Keep);
        if matches!(change, Change::LeaveOut) {
            continue;
        }
        if !is_first {
            out.push(b'&');
        }
        is_first = false;
        match change {
            Change::Value(value) => {
                out.extend_from_slice(field.name);
                out.push(b'=');
                encode(&value, &mut out);
            }
            _ => out.extend_from_slice(piece),
        }
    }
    Ok(has_changed.then_some(out))
}

/// The change to one field.
enum Change {
    Keep,
    LeaveOut,
    /// It gets another value.
    Value(Vec<u8>),
}

fn change(field: Field<'_>, mask: Option<&str>, is_secret: &dyn Fn(&str) -> bool) -> Result<Change, Unreadable> {
    match mask {
        None if is_secret(&field.name()?) => return Ok(Change::LeaveOut),
        Some(mask) if is_secret(&field.name()?) => return Ok(Change::Value(mask.into())),
        _ => {}
    }
    let value = field.value()?;
    if !json_within(&value)? {
        return Ok(Change::Keep);
    }
    let cleaned = json::clean(value.as_bytes(), mask, is_secret).map_err(|_| Unreadable)?;
    Ok(cleaned.map_or(Change::Keep, Change::Value))
}

/// Whether a value is a JSON object or array. A text that only begins like one is a text.
pub(crate) fn json_within(value: &str) -> Result<bool, Unreadable> {
    if !value.trim_start().starts_with(['{', '[']) {
        return Ok(false);
    }
    match json::check(value.as_bytes()) {
        Ok(()) => Ok(true),
        Err(json::Malformed::TooDeep) => Err(Unreadable),
        Err(_) => Ok(false),
    }
}

/// An independent parser reads an accepted form in the same way, and cleaning leaves no secret in it.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(form: &[u8]) {
    let read: Vec<_> = form_urlencoded::parse(form).collect();
    if check(form).is_ok() {
        let own = fields(form).map(|field| Ok::<_, Fault>((field.name()?, field.value()?)));
        assert_eq!(own.collect::<Result<Vec<_>, _>>().ok().as_ref(), Some(&read));
    }
    for mask in [None, Some("*")] {
        let Ok(cleaned) = clean(form, mask, &|name| name.contains('s')) else { continue };
        let cleaned = cleaned.unwrap_or_else(|| form.to_vec());
        let is_clean = |(name, value): (Cow<'_, str>, Cow<'_, str>)| !name.contains('s') || Some(&*value) == mask;
        assert!(form_urlencoded::parse(&cleaned).all(is_clean));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cleaned(form: &str, mask: Option<&str>) -> Option<String> {
        let cleaned = clean(form.as_bytes(), mask, &|name| name.starts_with('s')).unwrap();
        cleaned.map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn fields_go_wherever_they_stand_and_all_else_stays() {
        for (form, removed, masked) in [
            ("s=1", "", "s=*"),
            ("s", "", "s=*"),
            ("s=1&a=2", "a=2", "s=*&a=2"),
            ("a=%61+b&&s=1", "a=%61+b&", "a=%61+b&&s=*"),
            ("%73x=1&a=s&%73=2&b", "a=s&b", "%73x=*&a=s&%73=*&b"),
        ] {
            assert_eq!(cleaned(form, None).as_deref(), Some(removed), "{form}");
            assert_eq!(cleaned(form, Some("*")).as_deref(), Some(masked), "{form}");
        }
        for form in ["", "&", "a=s&b=1&", "S=1", "a=[s", "a={s}", "a={\"a\":1}"] {
            assert_eq!(cleaned(form, None), None, "{form}");
        }
        assert_eq!(cleaned("s=1&a=2", Some("a b%")).unwrap(), "s=a+b%25&a=2", "a mask is encoded");
    }

    #[test]
    fn json_in_a_value_is_cleaned_too() {
        let form = "a=1&payload=+%7B%22s%22%3A1%2C%22a%22%3A%22%2B%22%7D&b=%41";
        assert_eq!(cleaned(form, None).unwrap(), "a=1&payload=+%7B%22a%22%3A%22%2B%22%7D&b=%41");
        assert_eq!(
            cleaned(form, Some("*")).unwrap(),
            "a=1&payload=+%7B%22s%22%3A%22*%22%2C%22a%22%3A%22%2B%22%7D&b=%41"
        );
        assert_eq!(cleaned("payload=%5B%7B%22s%22%3A1%7D%5D", None).unwrap(), "payload=%5B%7B%7D%5D");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let deep = format!("a={}{}", "[".repeat(200), "]".repeat(200));
        for form in ["a=%", "%zz=1", "a=1&s=%ff&%", &deep] {
            assert!(clean(form.as_bytes(), None, &|name| name == "x").is_err(), "{form}");
        }
    }

    proptest! {
        #[test]
        fn another_reader_finds_all_but_the_secrets(sent in prop::collection::vec(("[sa&= é]{0,2}", ".{0,4}"), 0..6)) {
            let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&sent).finish();
            for mask in [None, Some("*")] {
                let result = cleaned(&form, mask).unwrap_or_else(|| form.clone());
                let expected = sent.iter().filter_map(|(name, value)| match (name.starts_with('s'), mask) {
                    (false, _) => Some((name.clone(), value.clone())),
                    (true, mask) => mask.map(|mask| (name.clone(), mask.to_owned())),
                });
                let read: Vec<_> = form_urlencoded::parse(result.as_bytes()).into_owned().collect();
                prop_assert_eq!(read, expected.collect::<Vec<_>>());
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_a_secret(form in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzz(&form);
        }
    }
}
