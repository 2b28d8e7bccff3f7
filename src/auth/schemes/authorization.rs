//! The webhook's key `authorization`.

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::bearer::{challenge, strip_bearer};
use super::{MAX_CREDENTIAL, UNNAMED_CHALLENGE, only_value};
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme, Secrets, SecretsConfig, WallClock};
use crate::base::secret::SecretDigest;
use crate::config::{BuildContext, BuildError};
use crate::request::Head;

/// What a webhook's `"authorization"` asks for: `"Bearer <token>"`, or the literal credential of another scheme, as
/// `"Token abc"`, which is compared whole and with its case. An array holds several, any of which lets in.
///
/// In `"Bearer sha256:<hex>"` the SHA-256 digest of the token replaces the token, so that a reader of the configuration does
/// not learn it. That protects random tokens, but not passwords.
#[derive(Clone, Debug)]
pub struct Authorization {
    expected: Secrets<Expected>,
    clock: WallClock,
}

#[derive(Clone, Debug)]
enum Expected {
    Bearer(SecretDigest),
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

    type Config = SecretsConfig;

    fn build(config: SecretsConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let expected = Secrets::build_measured(config, cx, |text| Expected::read(text.trim()))?;
        Ok(Self { expected, clock: cx.clock().clone() })
    }
}

impl Expected {
    /// Also returns how many bytes the secret has.
    fn read(text: &str) -> Result<(Self, usize), BuildError> {
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
        let Some(token) = strip_bearer(text.as_bytes()).and_then(|rest| str::from_utf8(rest).ok()).map(str::trim)
        else {
            return Ok((Self::Literal(SecretDigest::new(text)?), text.len()));
        };
        match token.strip_prefix("sha256:") {
            Some(hex) => {
                let digest = SecretDigest::from_hex(hex);
                let digest = digest.ok_or("expected 64 hex digits behind `sha256:`, found another text")?;
                Ok((Self::Bearer(digest), hex.len()))
            }
            None => Ok((Self::Bearer(SecretDigest::new(token)?), token.len())),
        }
    }

    fn is_bearer(&self) -> bool {
        matches!(self, Self::Bearer(_))
    }
}

impl Scheme for Authorization {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let credential = only_value(head, &AUTHORIZATION)?;
        let token = strip_bearer(credential).map(<[u8]>::trim_ascii);
        if token.is_none() && self.expected.keys().all(Expected::is_bearer) {
            return Err(AuthError::Missing);
        }
        let fits = |expected: &Expected| match expected {
            Expected::Bearer(digest) => token.is_some_and(|token| digest.matches(token)),
            Expected::Literal(digest) => digest.matches(credential.trim_ascii()),
        };
        self.expected.find(&self.clock, fits).map(Proof::from)
    }

    fn challenge(&self, error: AuthError) -> HeaderValue {
        match self.expected.keys().any(Expected::is_bearer) {
            true => challenge(error),
            // The literal's first word may be the scheme's name or half of the secret: it is not shown.
            false => UNNAMED_CHALLENGE,
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

    fn build(config: impl Into<SecretsConfig>) -> Result<Authorization, BuildError> {
        let key = WebhookKey::new("default", "a").unwrap();
        Authorization::build(config.into(), &BuildContext::bare(&key))
    }

    fn check(configured: &str, sent: &str) -> Result<Proof, AuthError> {
        let req = Request::builder().header(AUTHORIZATION, sent).body(()).unwrap();
        build(configured).unwrap().check_head(Head::of(&req))
    }

    fn position(configured: &[&str], sent: &str) -> Result<usize, AuthError> {
        let req = Request::builder().header(AUTHORIZATION, sent).body(()).unwrap();
        match build(configured.to_vec()).unwrap().check_head(Head::of(&req))? {
            Proof::Secret(position) => Ok(position.index()),
            other => panic!("{other:?}"),
        }
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
    fn each_of_several_credentials_lets_in() {
        let configured = ["Bearer one", "Token two", "Bearer three"];
        for (sent, outcome) in [
            ("bearer one", Ok(0)),
            ("Token two", Ok(1)),
            ("Bearer three", Ok(2)),
            ("Bearer two", Err(AuthError::Invalid)),
            ("Token one", Err(AuthError::Invalid)),
            ("three", Err(AuthError::Invalid)),
            ("Bearer Token two", Err(AuthError::Invalid)),
        ] {
            assert_eq!(position(&configured, sent), outcome, "{sent}");
        }
        assert_eq!(position(&["Bearer one", "Bearer two"], "Token one"), Err(AuthError::Missing));
    }

    #[test]
    fn a_digest_stands_for_the_token() {
        // Made with `printf tok | sha256sum`.
        let digest = "1a7674eb4ee78df7e1ac439a93c3fa8e3c945784d4dec9fd8e3011738b2f1d62";
        for configured in [format!("Bearer sha256:{digest}"), format!("bearer  sha256:{}", digest.to_uppercase())] {
            assert!(check(&configured, "Bearer tok").is_ok(), "{configured}");
            for sent in [format!("Bearer sha256:{digest}"), format!("Bearer {digest}"), "Bearer Tok".to_owned()] {
                assert_eq!(check(&configured, &sent), Err(AuthError::Invalid), "{sent}");
            }
        }
        for wrong in [&digest[1..], &format!("{digest}0"), &digest.replace('3', "g"), ""] {
            let error = build(&*format!("Bearer sha256:{wrong}")).unwrap_err().to_string();
            assert_eq!(error, "expected 64 hex digits behind `sha256:`, found another text");
        }
    }

    #[test]
    fn what_could_not_guard_does_not_build() {
        for configured in ["", "  ", "Bearer", "bearer ", "Bearer \t ", "Basic ", "token", "ApiKey", "$T", "Token $T"] {
            assert!(build(configured).is_err(), "{configured:?}");
            assert!(build(["Bearer tok", configured]).is_err(), "{configured:?}");
        }
        assert!(build([""; 0]).is_err());
    }

    #[test]
    fn what_no_sender_could_send_does_not_build() {
        assert!(build("x".repeat(8192)).is_ok());
        for (configured, error) in [
            ("x".repeat(8193), "expected a credential of at most 8192 bytes, found 8193"),
            (format!("Bearer {}", "x".repeat(8192)), "expected a credential of at most 8192 bytes, found 8199"),
            (
                "Bearer a\0b".to_owned(),
                "expected a credential that a header field can hold, found one with a control character",
            ),
        ] {
            assert_eq!(build(configured).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn the_challenge_shows_nothing_of_a_literal() {
        let literal = build("hunter2 swordfish").unwrap();
        assert_eq!(literal.challenge(AuthError::Missing), r#"Webhook realm="webhook""#);
        assert!(!format!("{literal:?}").contains("hunter2"));
    }
}
