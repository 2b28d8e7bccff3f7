//! Signs requests according to Standard Webhooks.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::config::BuildError;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The header fields of a signature.
pub(super) const FIELDS: [HeaderName; 3] = [ID, TIMESTAMP, SIGNATURE];

/// Encodes with padding; decodes with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key for [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md),
/// scheme `v1`: HMAC-SHA256.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Parses base64, optionally preceded by `whsec_`.
    pub(super) fn parse(secret: &str) -> Result<Self, BuildError> {
        let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = BASE64.decode(encoded).map_err(|_| "`signing_secret` is not base64")?;
        if !(24..=64).contains(&key.len()) {
            return Err("`signing_secret` must have 24 to 64 bytes".into());
        }
        Ok(Self(Hmac::new_from_slice(&key)?))
    }

    /// Sets the three fields for `body`, sent at `now`.
    pub(super) fn sign(&self, headers: &mut HeaderMap, id: HeaderValue, now: SystemTime, body: &[u8]) {
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.signature(id.as_bytes(), timestamp, body);
        // Digits and base64 are always valid in a header.
        if let Ok(signature) = HeaderValue::try_from(signature) {
            headers.insert(ID, id);
            headers.insert(TIMESTAMP, timestamp.into());
            headers.insert(SIGNATURE, signature);
        }
    }

    fn signature(&self, id: &[u8], timestamp: u64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(id);
        mac.update(format!(".{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The test vector that Standard Webhooks and Svix publish.
    #[test]
    fn the_signature_of_the_published_vector_is_right() {
        for secret in [SECRET, &SECRET["whsec_".len()..]] {
            let key = SigningKey::parse(secret).unwrap();
            let mut headers = HeaderMap::new();
            let id = HeaderValue::from_static("msg_p5jXN8AQM9LWM0D4loKWxJek");
            let now = UNIX_EPOCH + Duration::from_secs(1_614_265_330);
            key.sign(&mut headers, id, now, br#"{"test": 2432232314}"#);
            assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
            assert_eq!(headers["webhook-timestamp"], "1614265330");
            assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        }
    }

    #[test]
    fn an_invalid_secret_is_refused_and_not_quoted() {
        let encoded = |bytes: usize| BASE64.encode(vec![b's'; bytes]);
        for bytes in [24, 25, 32, 64] {
            assert!(SigningKey::parse(&encoded(bytes)).is_ok(), "{bytes}");
            assert!(SigningKey::parse(encoded(bytes).trim_end_matches('=')).is_ok(), "{bytes}");
        }
        for secret in [
            "",
            "whsec_",
            "whsec_whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_",
            " MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "not base64!",
            &encoded(23),
            &encoded(65),
        ] {
            let error = SigningKey::parse(secret).unwrap_err().to_string();
            assert!(secret.is_empty() || !error.contains(secret), "{error}");
        }
        assert_eq!(format!("{:?}", SigningKey::parse(SECRET).unwrap()), "SigningKey(..)");
    }
}
