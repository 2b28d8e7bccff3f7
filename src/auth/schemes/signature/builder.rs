//! Builds a verifier in a program.

use std::time::Duration;

use super::Signature;
use super::config::{Environment, SignatureConfig, TimestampConfig};
use super::key::{Algorithm, Encoding, Written};
use super::timestamp::Format;
use crate::auth::{SecretsConfig, WallClock};
use crate::config::{CompileError, PublicUrl};

/// Builds a [`Signature`] for a known provider or for a custom dialect. It accepts the same settings as a webhook's key
/// `signature`.
///
/// ```
/// use std::time::Duration;
/// use tower_webhook::auth::{Algorithm, Signature};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let acme = Signature::builder()
///     .algorithm(Algorithm::HmacSha256)
///     .hex()
///     .header("X-Acme-Signature")
///     .prefix("sha256=")
///     .content("{header:X-Acme-Time}.{body}")
///     .unix_time_in_header("X-Acme-Time")
///     .tolerance(Duration::from_secs(300))
///     .secrets(["the new secret of acme", "the old secret of acme"])
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SignatureBuilder {
    config: SignatureConfig,
    url: Option<String>,
    clock: WallClock,
}

impl Signature {
    /// Describes a provider that needs more than secrets, or a custom dialect.
    pub fn builder() -> SignatureBuilder {
        SignatureBuilder::default()
    }
}

impl SignatureBuilder {
    /// The name of a provider.
    #[must_use]
    pub fn preset(mut self, name: &str) -> Self {
        self.config.preset = Some(name.to_owned());
        self
    }

    /// The secret, or several.
    #[must_use]
    pub fn secrets(mut self, secrets: impl Into<SecretsConfig>) -> Self {
        self.config.secrets = Some(secrets.into());
        self
    }

    /// A parameter of a provider.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.config.params.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The URL of the route as the provider knows it, without a query; required by providers that sign it.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    /// The algorithm of the signatures.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.config.algorithm = Some(algorithm);
        self
    }

    /// Signatures are hexadecimal.
    #[must_use]
    pub fn hex(mut self) -> Self {
        self.config.encoding = Some(Encoding::Hex);
        self
    }

    /// Signatures are base64.
    #[must_use]
    pub fn base64(mut self) -> Self {
        self.config.encoding = Some(Encoding::Base64);
        self
    }

    /// The header field with the signature.
    #[must_use]
    pub fn header(mut self, name: &str) -> Self {
        self.config.header = Some(name.into());
        self
    }

    /// The text before a signature.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.config.prefix = Some(prefix.to_owned());
        self
    }

    /// The field holds a list of signatures with this separator.
    #[must_use]
    pub fn separator(mut self, separator: &str) -> Self {
        self.config.separator = Some(separator.to_owned());
        self
    }

    /// The field holds pairs, such as `t=1700000000,v1=…`; the pairs with this key are signatures.
    #[must_use]
    pub fn kv(mut self, key: &str) -> Self {
        self.config.kv = Some(key.into());
        self
    }

    /// The template of the signed content: `{body}`, `{header:X-Time}.{body}`.
    #[must_use]
    pub fn content(mut self, template: &str) -> Self {
        self.config.content = Some(template.to_owned());
        self
    }

    /// The secrets are base64; `prefix` is removed first if a secret has it.
    #[must_use]
    pub fn key_in_base64(mut self, prefix: &str) -> Self {
        let key = self.config.key.get_or_insert_default();
        (key.encoding, key.strip) = (Some(Written::Base64), Some(prefix.to_owned()));
        self
    }

    /// The secrets are hexadecimal.
    #[must_use]
    pub fn key_in_hex(mut self) -> Self {
        self.config.key.get_or_insert_default().encoding = Some(Written::Hex);
        self
    }

    /// This header field holds the time of the signature, in seconds since 1970.
    #[must_use]
    pub fn unix_time_in_header(mut self, name: &str) -> Self {
        let times = self.times();
        (times.header, times.format) = (Some(name.to_owned()), Some(Format::Unix));
        self
    }

    /// The pair with this key holds the time of the signature, in seconds since 1970.
    #[must_use]
    pub fn unix_time_in_kv(mut self, key: &str) -> Self {
        let times = self.times();
        (times.kv, times.format) = (Some(key.to_owned()), Some(Format::Unix));
        self
    }

    /// The greatest difference between the time of the signature and now, in whole seconds, past and future. The default is
    /// 300 seconds.
    #[must_use]
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        let seconds = u32::try_from(tolerance.as_secs()).unwrap_or(u32::MAX);
        let times = self.times();
        (times.tolerance, times.future_tolerance) = (Some(seconds), Some(seconds));
        self
    }

    /// Replaces the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the verifier.
    ///
    /// # Errors
    ///
    /// As for [`Signature::preset`], and when settings are missing or contradict each other.
    pub fn build(self) -> Result<Signature, CompileError> {
        let url = self.url.as_deref().map(PublicUrl::whole).transpose();
        let url = url.map_err(|error| CompileError::new(error.to_string()).inside("public_url"))?;
        let preset = self.config.known_preset();
        let (verifier, secrets) = self.config.build(Environment { url: url.as_ref(), cx: None })?;
        Ok(Signature { preset, verifier, secrets, clock: self.clock })
    }

    fn times(&mut self) -> &mut TimestampConfig {
        self.config.timestamp.get_or_insert_default()
    }
}
