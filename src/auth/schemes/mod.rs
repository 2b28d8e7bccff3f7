//! The schemes that this crate brings, one file each.

mod api_keys;
mod authorization;
#[cfg(feature = "basic-auth")]
mod basic_auth;
mod bearer;
mod header_auth;
#[cfg(feature = "signature")]
mod hmac;
mod ip_allow;
mod query;
mod query_auth;
#[cfg(feature = "signature")]
mod signature;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

pub use self::authorization::Authorization;
#[cfg(all(fuzzing, feature = "basic-auth"))]
pub(crate) use self::basic_auth::fuzz as fuzz_basic;
#[cfg(feature = "basic-auth")]
pub use self::basic_auth::{BasicAuth, BasicAuthConfig};
pub use self::bearer::Bearer;
#[cfg(feature = "admin")]
pub(crate) use self::bearer::bearer_token;
#[cfg(fuzzing)]
pub(crate) use self::bearer::fuzz;
pub use self::header_auth::{HeaderAuth, HeaderAuthConfig};
#[cfg(all(fuzzing, feature = "signature"))]
pub(crate) use self::hmac::fuzz as fuzz_hmac;
#[cfg(feature = "signature")]
pub use self::hmac::{HmacAlgorithm, HmacAuth, HmacConfig};
pub use self::ip_allow::IpAllow;
#[cfg(fuzzing)]
pub(crate) use self::query::fuzz as fuzz_query;
pub use self::query_auth::{QueryAuth, QueryAuthConfig};
#[cfg(all(fuzzing, feature = "signature"))]
pub(crate) use self::signature::fuzz as fuzz_signature;
#[cfg(feature = "signature")]
pub use self::signature::{Algorithm, Provider, Signature, SignatureBuilder, SignatureConfig};
use super::AuthError;
use crate::config::{CompileError, missing_key};
use crate::request::Head;

/// Longer credentials are refused unread: no sender's is that long, and hashing it would be work for nothing.
const MAX_CREDENTIAL: usize = 8192;

/// The challenge of schemes that have no name in HTTP.
pub(super) const UNNAMED_CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Webhook realm="webhook""#);

/// The value of a field that must appear once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], AuthError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        (None, _) => Err(AuthError::Missing),
        (Some(_), Some(_)) => Err(AuthError::Malformed),
    }
}

/// The credential in a field that must appear once.
fn only_value<'a>(head: Head<'a>, name: &HeaderName) -> Result<&'a [u8], AuthError> {
    let value = only(head.headers, name)?;
    if value.len() > MAX_CREDENTIAL { Err(AuthError::Malformed) } else { Ok(value) }
}

/// The one of two keys of a configuration that is there: the second is another name of the first.
fn one_of<T>(
    first: (&'static str, Option<T>),
    second: (&'static str, Option<T>),
) -> Result<(&'static str, T), CompileError> {
    match (first, second) {
        ((name, Some(value)), (_, None)) | ((_, None), (name, Some(value))) => Ok((name, value)),
        ((name, None), (_, None)) => Err(missing_key(name)),
        ((first, Some(_)), (second, Some(_))) => {
            Err(CompileError::new(format!("expected `{first}` or `{second}`, found both")))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::ConfigScheme;
    use crate::config::{BuildContext, Node, WebhookKey};

    /// Builds a scheme as a webhook does.
    pub(super) fn build<S: ConfigScheme>(json: &str) -> Result<S, String> {
        let key = WebhookKey::new("default", "a").unwrap();
        let config = Node::parse(json.as_bytes()).and_then(Node::read).map_err(|error| error.to_string())?;
        S::build(config, &BuildContext::bare(&key)).map_err(|error| error.to_string())
    }

    pub(super) fn error<S: ConfigScheme>(json: &str) -> String {
        build::<S>(json).unwrap_err()
    }
}
