//! Bearer tokens (RFC 6750).

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::only_value;
use crate::auth::{AuthError, Proof, Scheme};
use crate::base::secret::{InvalidSecret, SecretDigest};
use crate::request::Head;

/// `Authorization: Bearer <token>`.
///
/// The scheme's name is compared without regard to case (RFC 9110 §11.1), the token by its digest in constant time.
/// A second `Authorization` header is a refusal. A token in the query or in the body is not looked for.
#[derive(Clone, Debug)]
pub struct Bearer {
    token: SecretDigest,
}

impl Bearer {
    /// Lets in who knows `token`. Blanks around it are not part of it.
    ///
    /// # Errors
    ///
    /// When [`check_secret`](crate::base::secret::check_secret) says that the token would guard nothing.
    pub fn new(token: &str) -> Result<Self, InvalidSecret> {
        Ok(Self { token: SecretDigest::new(token.trim())? })
    }
}

impl Scheme for Bearer {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        if !self.token.matches(bearer_token(head)?) {
            return Err(AuthError::Invalid);
        }
        Ok(Proof::Complete)
    }

    fn challenge(&self, error: AuthError) -> HeaderValue {
        challenge(error)
    }

    fn label(&self) -> &'static str {
        "bearer"
    }
}

/// The token of the only `Authorization` of a request, without the blanks around it.
pub(crate) fn bearer_token(head: Head<'_>) -> Result<&[u8], AuthError> {
    let credential = only_value(head, &AUTHORIZATION)?;
    strip_bearer(credential).map(<[u8]>::trim_ascii).ok_or(AuthError::Missing)
}

/// The challenge of RFC 6750 §3.
pub(super) fn challenge(error: AuthError) -> HeaderValue {
    HeaderValue::from_static(match error {
        AuthError::Missing => r#"Bearer realm="webhook""#,
        _ => r#"Bearer realm="webhook", error="invalid_token""#,
    })
}

/// What follows `Bearer` and at least one blank.
pub(super) fn strip_bearer(credential: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = credential.split_at_checked(b"bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && rest.first().is_some_and(u8::is_ascii_whitespace)).then_some(rest)
}

/// A credential lets in only with the scheme's name, one blank or more, and the token.
#[cfg(fuzzing)]
pub(crate) fn fuzz(credential: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(credential) else { return };
    let mut req = http::Request::new(());
    req.headers_mut().insert(AUTHORIZATION, value);
    let Ok(bearer) = Bearer::new("t0ken") else { return };
    // Blanks are ASCII only: a no-break space is a part of the token.
    let is_right = credential
        .split_at_checked("bearer".len())
        .filter(|(name, rest)| name.eq_ignore_ascii_case(b"bearer") && matches!(rest.first(), Some(b' ' | b'\t')))
        .is_some_and(|(_, token)| token.trim_ascii() == b"t0ken");
    assert_eq!(bearer.check_head(Head::of(&req)).is_ok(), is_right);
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(values: &[&str]) -> Result<Proof, AuthError> {
        let mut req = Request::new(());
        for value in values {
            req.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
        }
        Bearer::new("tok").unwrap().check_head(Head::of(&req))
    }

    #[test]
    fn the_token_lets_in_whatever_the_schemes_case() {
        for value in ["Bearer tok", "bearer tok", "BEARER tok", "Bearer   tok", "Bearer tok "] {
            assert_eq!(check(&[value]), Ok(Proof::Complete), "{value:?}");
        }
    }

    #[test]
    fn nothing_else_does() {
        use AuthError::{Invalid, Missing};
        for (value, error) in [
            ("tok", Missing),
            ("Bearer", Missing),
            ("Bearertok", Missing),
            ("Basic tok", Missing),
            ("", Missing),
            ("Bearer ", Invalid),
            ("Bearer TOK", Invalid),
            ("Bearer tok2", Invalid),
            ("Bearer tok tok", Invalid),
            ("Bearer \"tok\"", Invalid),
        ] {
            assert_eq!(check(&[value]), Err(error), "{value:?}");
        }
        assert_eq!(check(&[]), Err(Missing));
        assert_eq!(check(&["Bearer tok", "Bearer tok"]), Err(AuthError::Malformed));
        assert_eq!(check(&[&format!("Bearer {}", "a".repeat(9000))]), Err(AuthError::Malformed));
    }

    #[test]
    fn a_blank_token_is_refused_when_configured() {
        assert!(Bearer::new("").is_err());
        assert!(Bearer::new("  ").is_err());
    }
}
