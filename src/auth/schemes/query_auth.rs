//! The webhook's key `query_auth`.

use http::HeaderValue;
use serde::Deserialize;

use super::UNNAMED_CHALLENGE;
use super::api_keys::{ApiKeys, Written};
use super::query::only_parameter;
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme, SecretsConfig};
use crate::config::{BuildContext, BuildError, CompileError};
use crate::request::Head;

/// A key in the query of the address. Use it only for senders that support nothing else: addresses end up in more logs than
/// headers do.
///
/// Keys are compared by their digests in constant time, and their case counts. A request with two such parameters is refused.
/// This crate neither logs nor stores a query.
///
/// ```
/// use tower_webhook::layers::RequireAuthLayer;
/// use tower_webhook::auth::QueryAuth;
///
/// let guard = RequireAuthLayer::new(QueryAuth::new("api_key", "a key of 128 bits")?);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QueryAuth {
    name: Box<str>,
    keys: ApiKeys,
}

/// A longer name of a parameter is refused, in bytes.
const MAX_NAME: usize = 100;

/// A longer key is refused, in bytes.
const MAX_KEY: usize = 1000;

/// The length of the longest key if each byte is escaped.
const MAX_ESCAPED: usize = MAX_KEY * 3;

impl QueryAuth {
    /// Lets requests in that have one of `keys` in the parameter `name`. Blanks around a configured key are not part of it.
    ///
    /// # Errors
    ///
    /// When `name` is not made of 1 to 100 letters, digits, `_`, `.` and `-`, and when a key would guard nothing or has more
    /// than 1,000 bytes.
    pub fn new(name: &str, keys: impl Into<SecretsConfig>) -> Result<Self, BuildError> {
        Ok(Self { name: parameter_name(name)?, keys: ApiKeys::new(keys, check_key)? })
    }
}

/// The configuration of `query_auth`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryAuthConfig {
    #[serde(default = "default_name")]
    parameter_name: String,
    api_key: Option<SecretsConfig>,
    api_keys: Option<SecretsConfig>,
    #[serde(default = "default_case")]
    case_sensitive: bool,
}

fn default_name() -> String {
    "api_key".to_owned()
}

fn default_case() -> bool {
    true
}

impl ConfigScheme for QueryAuth {
    const KEY: &'static str = "query_auth";

    type Config = QueryAuthConfig;

    fn build(config: QueryAuthConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let QueryAuthConfig { parameter_name: name, api_key, api_keys, case_sensitive } = config;
        let name = parameter_name(&name).map_err(|error| error.inside("parameter_name"))?;
        Ok(Self { name, keys: ApiKeys::build(Written { api_key, api_keys, case_sensitive }, cx, check_key)? })
    }
}

fn parameter_name(name: &str) -> Result<Box<str>, CompileError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    match (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(name.into()),
        false => Err(CompileError::new(format!(
            "expected 1 to {MAX_NAME} letters, digits, `_`, `.` and `-`, found another text"
        ))),
    }
}

fn check_key(key: &str) -> Result<(), BuildError> {
    match key.len() {
        0..=MAX_KEY => Ok(()),
        found => Err(format!("expected a key of at most {MAX_KEY} bytes, found {found}").into()),
    }
}

impl Scheme for QueryAuth {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let query = head.uri.query().ok_or(AuthError::Missing)?;
        let sent = only_parameter(query, &self.name, MAX_ESCAPED)?;
        self.keys.find(&sent).map(Proof::from)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        UNNAMED_CHALLENGE
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

    fn check(guard: &QueryAuth, uri: &str) -> Result<(), AuthError> {
        guard.check_head(Head::of(&Request::post(uri).body(()).unwrap())).map(drop)
    }

    #[test]
    fn the_key_lets_in_however_it_is_escaped() {
        let guard = QueryAuth::new("key", "a b/c").unwrap();
        for query in ["key=a+b/c", "key=a%20b%2fc", "x=1&key=%61%20b%2Fc&y", "k%65y=a+b/c"] {
            assert_eq!(check(&guard, &format!("/a?{query}")), Ok(()), "{query}");
        }
    }

    #[test]
    fn nothing_else_does() {
        use AuthError::{Invalid, Malformed, Missing};
        let guard = QueryAuth::new("key", "abcdef").unwrap();
        for uri in ["/", "/?", "/?Key=abcdef", "/?key2=abcdef", "/key=abcdef", "/?a=key=abcdef"] {
            assert_eq!(check(&guard, uri), Err(Missing), "{uri}");
        }
        for uri in ["/?key=abcdef&key=abcdef", "/?key=abcdef&k%65y=", "/?key=abcdef%", "/?key=%zz"] {
            assert_eq!(check(&guard, uri), Err(Malformed), "{uri}");
        }
        assert_eq!(check(&guard, &format!("/?key={}", "a".repeat(3001))), Err(Malformed));
        for sent in ["", "abcde", "abcdefg", "ABCDEF", "abcdef%00", "abcdef+", "+abcdef", "abcdef%0a", "abcdef%ff"] {
            assert_eq!(check(&guard, &format!("/?key={sent}")), Err(Invalid), "{sent}");
        }
        for at in 0..6 {
            for bit in 0..8 {
                let mut flipped = *b"abcdef";
                flipped[at] ^= 1 << bit;
                let escaped: String = flipped.iter().map(|byte| format!("%{byte:02X}")).collect();
                assert_eq!(check(&guard, &format!("/?key={escaped}")), Err(Invalid), "{escaped}");
            }
        }
    }

    #[test]
    fn a_configuration_of_the_old_service_is_understood() {
        let guard: QueryAuth = build(r#"{"api_key": "Abc"}"#).unwrap();
        assert_eq!(check(&guard, "/?api_key=Abc"), Ok(()));
        assert_eq!(check(&guard, "/?api_key=abc"), Err(AuthError::Invalid), "its case counts");
        let guard: QueryAuth =
            build(r#"{"parameter_name": "a.b-c_1", "api_key": "Abc", "case_sensitive": false}"#).unwrap();
        assert_eq!(check(&guard, "/?a.b-c_1=aBC"), Ok(()));
        // It took control characters out before it compared.
        assert_eq!(check(&guard, "/?a.b-c_1=ab%00c"), Err(AuthError::Invalid));
    }

    #[test]
    fn what_could_not_guard_does_not_build() {
        let long = "a".repeat(1001);
        for (json, text) in [
            ("{}", "the key `api_key` is missing"),
            (r#"{"api_key": ""}"#, "api_key: the secret is empty"),
            (r#"{"api_key": "a", "parameter_name": ""}"#, "parameter_name: expected 1 to 100 letters"),
            (r#"{"api_key": "a", "parameter_name": "a b"}"#, "parameter_name: expected 1 to 100 letters"),
            (r#"{"api_key": "a", "name": "a"}"#, "unknown key `name`"),
            (&*format!(r#"{{"api_key": "{long}"}}"#), "api_key: expected a key of at most 1000 bytes, found 1001"),
        ] {
            let error = error::<QueryAuth>(json);
            assert!(error.starts_with(text), "{json}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", QueryAuth::new("a", "hunter2").unwrap()).contains("hunter2"));
    }
}
