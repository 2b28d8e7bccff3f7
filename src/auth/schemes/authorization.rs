//! The webhook's key `authorization`.

use http::HeaderValue;

use super::bearer::{MAX_CREDENTIAL, only_authorization, strip_bearer};
use crate::auth::{AuthError, Bearer, ConfigScheme, Proof, Scheme};
use crate::base::secret::SecretDigest;
use crate::config::{BuildContext, BuildError};
use crate::request::Head;

/// What a webhook's `"authorization"` asks for: `"Bearer <token>"`, or the literal credential of another scheme, as
/// `"Token abc"`, which is compared whole and with its case.
#[derive(Clone, Debug)]
pub struct Authorization {
    expected: Expected,
}

#[derive(Clone, Debug)]
enum Expected {
    Bearer(Bearer),
    Literal(SecretDigest),
}

/// Names of schemes: of the registry (RFC 9110 §16.4.1), and others that are in use.
const SCHEMES: [&str; 25] = [
    "Basic",
    "Bearer",
    "Concealed",
    "Digest",
    "DPoP",
    "GNAP",
    "HOBA",
    "Mutual",
    "Negotiate",
    "OAuth",
    "PrivateToken",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "vapid",
    "Api-Key",
    "ApiKey",
    "AWS4-HMAC-SHA256",
    "Hawk",
    "HMAC",
    "JWT",
    "Key",
    "NTLM",
    "Secret",
    "SSWS",
    "Token",
];

impl ConfigScheme for Authorization {
    const KEY: &'static str = "authorization";

    type Config = String;

    fn build(config: String, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        let text = config.trim();
        // A scheme's name alone is a credential that got lost, not a literal.
        if let Some(scheme) = SCHEMES.into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme)) {
            return Err(format!("expected a credential behind `{scheme}`, found none").into());
        }
        if text.len() > MAX_CREDENTIAL {
            let found = text.len();
            return Err(format!("expected a credential of at most {MAX_CREDENTIAL} bytes, found {found}").into());
        }
        // No sender could send it.
        if HeaderValue::from_bytes(text.as_bytes()).is_err() {
            return Err("expected a credential that a header field can hold, found one with a control character".into());
        }
        let expected = match strip_bearer(text.as_bytes()) {
            Some(_) => Expected::Bearer(Bearer::new(&text["bearer".len()..])?),
            None => Expected::Literal(SecretDigest::new(text)?),
        };
        Ok(Self { expected })
    }
}

impl Scheme for Authorization {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        match &self.expected {
            Expected::Bearer(bearer) => bearer.check_head(head),
            Expected::Literal(literal) => {
                if !literal.matches(only_authorization(head)?.trim_ascii()) {
                    return Err(AuthError::Invalid);
                }
                Ok(Proof::Complete)
            }
        }
    }

    fn challenge(&self, error: AuthError) -> HeaderValue {
        match &self.expected {
            Expected::Bearer(bearer) => bearer.challenge(error),
            // The literal's first word may be the scheme's name or half of the secret: it is not shown.
            Expected::Literal(_) => HeaderValue::from_static(r#"Webhook realm="webhook""#),
        }
    }

    fn label(&self) -> &'static str {
        Self::KEY
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::config::WebhookKey;

    fn build(text: &str) -> Result<Authorization, BuildError> {
        let key = WebhookKey::new("default", "a").unwrap();
        Authorization::build(text.to_owned(), &BuildContext::bare(&key))
    }

    fn check(configured: &str, sent: &str) -> Result<Proof, AuthError> {
        let req = Request::builder().header(AUTHORIZATION, sent).body(()).unwrap();
        build(configured).unwrap().check_head(Head::of(&req))
    }

    #[test]
    fn bearer_is_recognised_in_any_case() {
        for configured in ["Bearer tok", "bearer tok", " Bearer  tok "] {
            assert!(check(configured, "BEARER tok").is_ok(), "{configured:?}");
        }
        assert_eq!(check("Bearer tok", "Token tok"), Err(AuthError::Missing));
    }

    #[test]
    fn a_literal_is_compared_whole() {
        assert!(check("Token abc", "Token abc").is_ok());
        for sent in ["token abc", "Token  abc", "abc", "Bearer Token abc", "Token abcd"] {
            assert_eq!(check("Token abc", sent), Err(AuthError::Invalid), "{sent:?}");
        }
    }

    #[test]
    fn what_could_not_guard_does_not_build() {
        for configured in ["", "  ", "Bearer", "bearer ", "Bearer \t ", "Basic ", "token", "ApiKey", "$T", "Token $T"] {
            assert!(build(configured).is_err(), "{configured:?}");
        }
    }

    #[test]
    fn what_no_sender_could_send_does_not_build() {
        assert!(build(&"x".repeat(8192)).is_ok());
        for (configured, error) in [
            ("x".repeat(8193), "expected a credential of at most 8192 bytes, found 8193"),
            (format!("Bearer {}", "x".repeat(8192)), "expected a credential of at most 8192 bytes, found 8199"),
            (
                "Bearer a\0b".to_owned(),
                "expected a credential that a header field can hold, found one with a control character",
            ),
        ] {
            assert_eq!(build(&configured).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn the_challenge_shows_nothing_of_a_literal() {
        let literal = build("hunter2 swordfish").unwrap();
        assert_eq!(literal.challenge(AuthError::Missing), r#"Webhook realm="webhook""#);
        assert!(!format!("{literal:?}").contains("hunter2"));
    }
}
