//! The `Basic` credentials of a request (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::auth::AuthError;

/// A name and a password, in UTF-8.
pub(super) struct Credentials {
    text: Vec<u8>,
    colon: usize,
}

impl Credentials {
    /// Reads the value of an `Authorization` field. Bytes that are no UTF-8 are read as Latin-1, which older senders use.
    ///
    /// # Errors
    ///
    /// `Missing` when it is of another scheme; `Malformed` when what follows `Basic` is no base64, or holds no colon.
    pub(super) fn read(value: &[u8]) -> Result<Self, AuthError> {
        let (scheme, rest) = value.split_at_checked(b"basic".len()).ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case(b"basic") || !rest.first().is_some_and(u8::is_ascii_whitespace) {
            return Err(AuthError::Missing);
        }
        let decoded = STANDARD.decode(rest.trim_ascii()).map_err(|_| AuthError::Malformed)?;
        let text = match str::from_utf8(&decoded) {
            Ok(_) => decoded,
            Err(_) => decoded.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes(),
        };
        let colon = text.iter().position(|byte| *byte == b':').ok_or(AuthError::Malformed)?;
        Ok(Self { text, colon })
    }

    /// The text before the first colon.
    pub(super) fn name(&self) -> &[u8] {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The text after the first colon.
    pub(super) fn password(&self) -> &[u8] {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

/// The result is the decoded text, split at the first colon.
#[cfg(fuzzing)]
pub(crate) fn fuzz(value: &[u8]) {
    let Ok(read) = Credentials::read(value) else { return };
    assert!(!read.name().contains(&b':'));
    let text = [read.name(), b":", read.password()].concat();
    assert!(str::from_utf8(&text).is_ok());
    let encoded = value["basic".len()..].trim_ascii();
    let latin: Vec<u8> =
        String::from_utf8_lossy(&text).chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
    assert!(STANDARD.encode(&text).as_bytes() == encoded || STANDARD.encode(latin).as_bytes() == encoded);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), AuthError> {
        Credentials::read(value).map(|read| (read.name().to_vec(), read.password().to_vec()))
    }

    #[test]
    fn the_first_colon_parts_the_name_from_the_password() {
        for (value, name, password) in [
            // The examples of RFC 7617 §2 and §2.1.
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin", "open sesame"),
            ("Basic dGVzdDoxMjPCow==", "test", "123£"),
            // The same in Latin-1.
            ("Basic dGVzdDoxMjOj", "test", "123£"),
            ("bASIC   YTpiOmM=", "a", "b:c"),
            ("Basic Og==", "", ""),
            ("Basic YTo=", "a", ""),
            ("Basic OmI= ", "", "b"),
        ] {
            assert_eq!(read(value.as_bytes()), Ok((name.into(), password.into())), "{value}");
        }
    }

    #[test]
    fn nothing_else_is_read() {
        use AuthError::{Malformed, Missing};
        for value in ["", "Basic", "Basi YTpi", "BasicYTpi", "Bearer YTpi", "Digest a=b", " Basic YTpi"] {
            assert_eq!(read(value.as_bytes()), Err(Missing), "{value}");
        }
        for value in [
            "Basic ",
            "Basic YTpi=",
            "Basic YTo",
            "Basic Y",
            "Basic YWI=",
            "Basic YTpi YTpi",
            "Basic YTpi,YTpi",
            "Basic YTp*",
            "Basic YT_i",
            "Basic YTp=",
            "Basic \"YTpi\"",
            "Basic a:b",
        ] {
            assert_eq!(read(value.as_bytes()), Err(Malformed), "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(name in "[^:]{0,20}", password in ".{0,20}") {
            let value = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
            prop_assert_eq!(read(value.as_bytes()), Ok((name.into_bytes(), password.into_bytes())));
        }

        #[test]
        fn nothing_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..40), basic in any::<bool>()) {
            let value = if basic { [b"Basic ", &*value].concat() } else { value };
            let _ = read(&value);
        }
    }
}
