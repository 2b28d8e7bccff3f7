//! The webhook's key `header_auth`.

use http::HeaderValue;
use http::header::HeaderName;
use serde::Deserialize;

use super::api_keys::{ApiKeys, Written};
use super::{MAX_CREDENTIAL, UNNAMED_CHALLENGE, only_value};
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme, SecretsConfig};
use crate::config::{BuildContext, BuildError, CompileError};
use crate::request::Head;

/// A key in a header field of its own.
///
/// Keys are compared by their digests in constant time, and their case counts. A request with two such fields is refused.
///
/// ```
/// use tower_webhook::layers::RequireAuthLayer;
/// use tower_webhook::auth::HeaderAuth;
///
/// let guard = RequireAuthLayer::new(HeaderAuth::new("x-api-key", "a key of 128 bits")?);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HeaderAuth {
    name: HeaderName,
    keys: ApiKeys,
}

impl HeaderAuth {
    /// Lets requests in that have one of `keys` in the field `name`. Blanks around a key are not part of it.
    ///
    /// # Errors
    ///
    /// When `name` is no name of a header field, and when a key would guard nothing or no field could hold it.
    pub fn new(name: &str, keys: impl Into<SecretsConfig>) -> Result<Self, BuildError> {
        Ok(Self { name: header_name(name)?, keys: ApiKeys::new(keys, check_key)? })
    }
}

/// The configuration of `header_auth`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderAuthConfig {
    #[serde(default = "default_name")]
    header_name: String,
    api_key: Option<SecretsConfig>,
    api_keys: Option<SecretsConfig>,
    #[serde(default = "default_case")]
    case_sensitive: bool,
}

fn default_name() -> String {
    "X-API-Key".to_owned()
}

fn default_case() -> bool {
    true
}

impl ConfigScheme for HeaderAuth {
    const KEY: &'static str = "header_auth";

    type Config = HeaderAuthConfig;

    fn build(config: HeaderAuthConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let HeaderAuthConfig { header_name: name, api_key, api_keys, case_sensitive } = config;
        let name = header_name(&name).map_err(|error| error.inside("header_name"))?;
        Ok(Self { name, keys: ApiKeys::build(Written { api_key, api_keys, case_sensitive }, cx, check_key)? })
    }
}

/// The name of a header field that a configuration says.
pub(super) fn header_name(name: &str) -> Result<HeaderName, CompileError> {
    name.trim().parse().map_err(|_| CompileError::new("expected the name of a header field, found another text"))
}

/// No sender could send another key.
fn check_key(key: &str) -> Result<(), BuildError> {
    if key.len() > MAX_CREDENTIAL {
        let found = key.len();
        return Err(format!("expected a key of at most {MAX_CREDENTIAL} bytes, found {found}").into());
    }
    match HeaderValue::from_bytes(key.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err("expected a key that a header field can hold, found one with a control character".into()),
    }
}

impl Scheme for HeaderAuth {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let sent = only_value(head, &self.name)?;
        self.keys.find(sent.trim_ascii()).map(Proof::from)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        UNNAMED_CHALLENGE
    }

    fn reads_credential(&self, name: &HeaderName) -> bool {
        *name == self.name
    }

    fn label(&self) -> &'static str {
        Self::KEY
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::auth::schemes::tests::{build, error};

    fn check(guard: &HeaderAuth, fields: &[(&str, &[u8])]) -> Result<(), AuthError> {
        let mut request = Request::new(());
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        guard.check_head(Head::of(&request)).map(drop)
    }

    #[test]
    fn the_key_lets_in_whatever_the_case_of_the_name() {
        let guard = HeaderAuth::new("X-Key", " Kéy 1 ").unwrap();
        for value in ["Kéy 1", " Kéy 1", "Kéy 1\t"] {
            assert_eq!(check(&guard, &[("x-kEY", value.as_bytes())]), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn nothing_else_does() {
        use AuthError::{Invalid, Malformed, Missing};
        let guard = HeaderAuth::new("x-key", "abcdef").unwrap();
        assert_eq!(check(&guard, &[]), Err(Missing));
        assert_eq!(check(&guard, &[("x-key2", b"abcdef"), ("authorization", b"abcdef")]), Err(Missing));
        assert_eq!(check(&guard, &[("x-key", b"abcdef"), ("x-key", b"abcdef")]), Err(Malformed));
        assert_eq!(check(&guard, &[("x-key", &[b'a'; 8193])]), Err(Malformed));
        let others = [&b""[..], b" ", b"abcde", b"abcdefg", b"ABCDEF", b"abcdef,abcdef", b"abcdef\xff", b"\"abcdef\""];
        for value in others {
            assert_eq!(check(&guard, &[("x-key", value)]), Err(Invalid), "{value:?}");
        }
        for at in 0..6 {
            for bit in 0..8 {
                let mut flipped = *b"abcdef";
                flipped[at] ^= 1 << bit;
                if HeaderValue::from_bytes(&flipped).is_ok() {
                    assert_eq!(check(&guard, &[("x-key", &flipped)]), Err(Invalid), "{flipped:?}");
                }
            }
        }
    }

    #[test]
    fn a_configuration_of_the_old_service_is_understood() {
        let guard: HeaderAuth = build(r#"{"api_key": "Abc"}"#).unwrap();
        assert_eq!(check(&guard, &[("x-api-key", b"Abc")]), Ok(()));
        assert_eq!(check(&guard, &[("x-api-key", b"abc")]), Err(AuthError::Invalid), "its case counts");
        let guard: HeaderAuth =
            build(r#"{"header_name": "X-Acme", "api_key": "Abc", "case_sensitive": false}"#).unwrap();
        for value in [b"Abc", b"abc", b"ABC"] {
            assert_eq!(check(&guard, &[("x-acme", value)]), Ok(()));
        }
        assert_eq!(check(&guard, &[("x-acme", b"abd")]), Err(AuthError::Invalid));
    }

    #[test]
    fn several_keys_may_be_valid_and_one_may_have_expired() {
        let old = r#"{"value": "old", "not_after": "2020-01-01T00:00:00Z"}"#;
        for name in ["api_key", "api_keys"] {
            let guard: HeaderAuth = build(&format!(r#"{{"{name}": ["one", "two", {old}]}}"#)).unwrap();
            for (value, outcome) in [
                ("one", Ok(())),
                ("two", Ok(())),
                ("old", Err(AuthError::ExpiredSecret)),
                ("onetwo", Err(AuthError::Invalid)),
            ] {
                assert_eq!(check(&guard, &[("x-api-key", value.as_bytes())]), outcome, "{value}");
            }
        }
    }

    #[test]
    fn what_could_not_guard_does_not_build() {
        for (json, text) in [
            ("{}", "the key `api_key` is missing"),
            (r#"{"api_key": "a", "api_keys": ["b"]}"#, "expected `api_key` or `api_keys`, found both"),
            (r#"{"api_key": ""}"#, "api_key: the secret is empty"),
            (r#"{"api_key": []}"#, "api_key: expected at least one secret, found none"),
            (r#"{"api_keys": ["a", " "]}"#, "api_keys.1: the secret is empty"),
            (r#"{"api_key": "${KEY}"}"#, "api_key: the secret is a placeholder"),
            (r#"{"api_key": "a\u0000"}"#, "api_key: expected a key that a header field can hold"),
            (r#"{"api_key": "a", "header_name": "x y"}"#, "header_name: expected the name of a header field"),
            (r#"{"api_key": "a", "header_name": ""}"#, "header_name: expected the name of a header field"),
            (r#"{"api_key": "a", "heeder_name": "x"}"#, "unknown key `heeder_name`, did you mean `header_name`?"),
            (r#"{"api_key": 7}"#, "api_key: expected a string, or an array of strings and objects, found a number"),
            ("[]", "expected an object, found an array"),
        ] {
            let error = error::<HeaderAuth>(json);
            assert!(error.starts_with(text), "{json}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let guard: HeaderAuth = build(r#"{"api_keys": ["hunter2"]}"#).unwrap();
        assert!(!format!("{guard:?}").contains("hunter2"));
    }
}
