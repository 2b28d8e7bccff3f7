//! One parameter of a query.

use std::borrow::Cow;

use crate::auth::AuthError;
use crate::form::{decode_bytes, fields};

/// The value of the only parameter with this name, decoded from `application/x-www-form-urlencoded` as in the WHATWG URL
/// standard. Unlike there, a malformed escape is an error.
///
/// # Errors
///
/// `Missing` when there is no such parameter. `Malformed` when there are several, when the encoded value is longer than
/// `longest`, and when it has a malformed escape.
pub(super) fn only_parameter<'a>(query: &'a str, name: &str, longest: usize) -> Result<Cow<'a, [u8]>, AuthError> {
    // Encoded names count too: else a second parameter could hide. An escape has three bytes for one.
    let is_named = |key: &[u8]| {
        (name.len()..=name.len() * 3).contains(&key.len())
            && decode_bytes(key).is_ok_and(|key| *key == *name.as_bytes())
    };
    let mut named = fields(query.as_bytes()).filter(|field| is_named(field.name));
    match (named.next(), named.next()) {
        (None, _) => Err(AuthError::Missing),
        (Some(field), None) if field.value.len() <= longest => {
            decode_bytes(field.value).map_err(|_| AuthError::Malformed)
        }
        _ => Err(AuthError::Malformed),
    }
}

/// A value is found only if exactly one parameter has the name.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let found = only_parameter(query, "key", 1000);
    let names = query.split('&').filter_map(|pair| pair.split('=').next());
    let count = names.filter(|name| decode_bytes(name.as_bytes()).is_ok_and(|name| *name == *b"key")).count();
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
