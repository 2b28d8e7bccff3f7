//! A secret that a provider signs with.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::BuildError;

/// A secret, hashed in already.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl Key {
    pub(super) fn new(secret: &str) -> Result<Self, BuildError> {
        Ok(Self(Hmac::new_from_slice(secret.as_bytes())?))
    }

    pub(super) fn sign(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.mac(parts).finalize().into_bytes().to_vec()
    }

    /// In constant time.
    pub(super) fn has_signed(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.mac(parts).verify_slice(signature).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}
