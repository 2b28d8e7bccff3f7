//! A secret, kept as a digest.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 digest of a secret.
///
/// Comparing digests takes the same time whatever the candidate is, and neither the length nor the secret itself is
/// left in memory or shown by `Debug`. It is meant for tokens of high entropy, not for passwords.
#[derive(Clone)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest of `secret`.
    ///
    /// # Errors
    ///
    /// When the secret is empty or blank: it would guard nothing.
    pub fn new(secret: &str) -> Result<Self, EmptySecret> {
        if secret.trim().is_empty() {
            return Err(EmptySecret);
        }
        Ok(Self(Sha256::digest(secret.as_bytes()).into()))
    }

    /// Whether `candidate` is the secret. Takes constant time for candidates of one length.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        Sha256::digest(candidate).ct_eq(&self.0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(..)")
    }
}

/// A secret that is empty or blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptySecret;

impl fmt::Display for EmptySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the secret is empty")
    }
}

impl std::error::Error for EmptySecret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_matches() {
        let secret = SecretDigest::new("abc").unwrap();
        assert!(secret.matches(b"abc"));
        for other in ["", "ab", "abcd", "ABC", " abc", "abc\n"] {
            assert!(!secret.matches(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn an_empty_secret_is_none() {
        for empty in ["", " ", "\t\n"] {
            assert_eq!(SecretDigest::new(empty).unwrap_err(), EmptySecret);
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SecretDigest::new("abc").unwrap()), "SecretDigest(..)");
    }
}
