//! One parameter of a query.

use std::borrow::Cow;

use crate::auth::AuthError;

/// The value of the only parameter with this name, decoded from `application/x-www-form-urlencoded` as in the WHATWG URL
/// standard. Unlike there, a malformed escape is an error.
///
/// # Errors
///
/// `Missing` when there is no such parameter. `Malformed` when there are several, when the encoded value is longer than
/// `longest`, and when it has a malformed escape.
pub(super) fn only_parameter<'a>(query: &'a str, name: &str, longest: usize) -> Result<Cow<'a, [u8]>, AuthError> {
    let mut found = None;
    for pair in query.as_bytes().split(|byte| *byte == b'&') {
        let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        if !is(key, name) {
            continue;
        }
        if found.replace(value).is_some() {
            return Err(AuthError::Malformed);
        }
    }
    let value = found.ok_or(AuthError::Missing)?;
    match value.len() <= longest {
        true => decode(value).ok_or(AuthError::Malformed),
        false => Err(AuthError::Malformed),
    }
}

/// Whether `key` decodes to `name`. Encoded names count too: else a second parameter could hide.
fn is(key: &[u8], name: &str) -> bool {
    // An escape has three bytes for one.
    (name.len()..=name.len() * 3).contains(&key.len()) && decode(key).is_some_and(|key| *key == *name.as_bytes())
}

/// `None` if an escape is malformed.
fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        decoded.push(match first {
            b'+' => b' ',
            b'%' => {
                let [high, low, behind @ ..] = rest else { return None };
                rest = behind;
                digit(*high)? << 4 | digit(*low)?
            }
            other => *other,
        });
    }
    Some(Cow::Owned(decoded))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A value is found only if exactly one parameter has the name.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let found = only_parameter(query, "key", 1000);
    let count = query.split('&').filter(|pair| is(pair.split('=').next().unwrap_or("").as_bytes(), "key")).count();
    match found {
        Ok(value) => assert!(count == 1 && value.len() <= 1000),
        Err(AuthError::Missing) => assert_eq!(count, 0),
        Err(_) => assert!(count > 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(query: &str) -> Result<Vec<u8>, AuthError> {
        only_parameter(query, "key", 12).map(Cow::into_owned)
    }

    #[test]
    fn the_value_is_decoded() {
        for (query, value) in [
            ("key=abc", "abc"),
            ("a=1&key=abc&b=2", "abc"),
            ("key=a%20b+c", "a b c"),
            ("key=%6a%6A", "jj"),
            ("k%65y=abc", "abc"),
            ("key==&=", "="),
            ("key", ""),
            ("key=&", ""),
            ("%=%&key=abc", "abc"),
        ] {
            assert_eq!(find(query).as_deref(), Ok(value.as_bytes()), "{query}");
        }
    }

    #[test]
    fn nothing_but_one_well_formed_parameter_is_taken() {
        use AuthError::{Malformed, Missing};
        for query in ["", "&", "=", "=key", "Key=abc", "ke=abc", "keyy=abc", "a=key=abc", "key%00=abc", "key;a=abc"] {
            assert_eq!(find(query), Err(Missing), "{query}");
        }
        for query in [
            "key=abc&key=abc",
            "key&key",
            "key=1&k%65y=2",
            "key=%",
            "key=%a",
            "key=%ag",
            "key=%+a",
            "key=0123456789abc",
        ] {
            assert_eq!(find(query), Err(Malformed), "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_found_again(value in prop::collection::vec(any::<u8>(), 0..20), raw in any::<bool>()) {
            let escaped: String = value
                .iter()
                .map(|byte| match byte {
                    b' ' if raw => "+".to_owned(),
                    byte if byte.is_ascii_alphanumeric() && raw => char::from(*byte).to_string(),
                    byte => format!("%{byte:02x}"),
                })
                .collect();
            let query = format!("a=b&key={escaped}&c");
            prop_assert_eq!(&*only_parameter(&query, "key", 60).unwrap(), &*value);
        }
    }
}
