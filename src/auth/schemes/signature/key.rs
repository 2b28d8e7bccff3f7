//! Algorithms and keys.

use std::borrow::Cow;
use std::fmt;

use arrayvec::ArrayVec;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::base::secret::SecretDigest;
use crate::config::BuildError;

/// The algorithm of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-1: old senders alone.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// Ed25519 (RFC 8032); the secret is the sender's public key.
    Ed25519,
    /// ECDSA on the curve P-256 with SHA-256, in DER; the secret is the sender's public key.
    EcdsaP256,
    /// No signature: the sender sends the secret itself. For presets only; a custom one is the key `header_auth`.
    #[serde(skip)]
    Token,
}

impl Algorithm {
    /// The length of a signature, in bytes.
    pub(super) fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::HmacSha1 => 20..=20,
            Self::HmacSha256 => 32..=32,
            Self::HmacSha384 => 48..=48,
            Self::HmacSha512 | Self::Ed25519 => 64..=64,
            Self::EcdsaP256 => 8..=LONGEST,
            Self::Token => 1..=usize::MAX,
        }
    }

    /// The most signatures of a request that are tried; fewer for the algorithms that cost more.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Ed25519 | Self::EcdsaP256 => 8,
            _ => 128,
        }
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        Some(match self {
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            Self::Ed25519 | Self::EcdsaP256 | Self::Token => return None,
        })
    }
}

/// The longest signature, in bytes: ECDSA on P-256 in DER.
pub(super) const LONGEST: usize = 72;

/// A signature as bytes.
pub(super) type Bytes = ArrayVec<u8, LONGEST>;

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Written {
    /// Its text is the key.
    Text,
    Base64,
    Hex,
    /// Its digest is the key.
    Sha1,
}

/// How a secret is turned into a key. The prefix `strip` is removed first if the secret has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyForm<'a> {
    pub(super) strip: &'a str,
    pub(super) written: Written,
}

/// The key that verifies signatures.
#[derive(Clone)]
pub(super) enum Key {
    Mac(Box<hmac::Key>),
    Public(Box<ParsedPublicKey>),
    Token(SecretDigest),
}

impl Key {
    /// The key of `secret`, and the number of its secret bytes.
    pub(super) fn new(secret: &str, algorithm: Algorithm, form: KeyForm<'_>) -> Result<(Self, usize), BuildError> {
        if algorithm == Algorithm::Token {
            return Ok((Self::Token(SecretDigest::new(secret)?), secret.len()));
        }
        let bytes = form.bytes(secret)?;
        if let Some(algorithm) = algorithm.hmac() {
            let length = if form.written == Written::Sha1 { secret.len() } else { bytes.len() };
            return Ok((Self::Mac(Box::new(hmac::Key::new(algorithm, &bytes))), length));
        }
        let key = match algorithm {
            Algorithm::Ed25519 if is_weak(&bytes) => {
                return Err("expected a public key, found one that fits anything".into());
            }
            Algorithm::Ed25519 => ParsedPublicKey::new(&ED25519, &bytes),
            _ => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &bytes),
        };
        // A public key cannot be guessed: it is no secret.
        key.map(|key| (Self::Public(Box::new(key)), usize::MAX))
            .map_err(|_| "expected a public key of this algorithm".into())
    }

    /// Whether one of the signatures is valid for `message`. All of them are tried.
    pub(super) fn fits(&self, message: &Message<'_>, signatures: &[Bytes]) -> bool {
        match self {
            Self::Mac(key) => {
                let mut mac = hmac::Context::with_key(key);
                message.parts.iter().for_each(|part| mac.update(part));
                let mac = mac.sign();
                signatures.iter().fold(false, |fits, signature| fits | bool::from(mac.as_ref().ct_eq(signature)))
            }
            Self::Public(key) => {
                let message = message.whole();
                signatures.iter().fold(false, |fits, signature| fits | key.verify_sig(&message, signature).is_ok())
            }
            Self::Token(_) => false,
        }
    }

    /// Whether it is this token.
    pub(super) fn is_token(&self, sent: &[u8]) -> bool {
        matches!(self, Self::Token(token) if token.matches(sent))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl KeyForm<'_> {
    fn bytes(self, secret: &str) -> Result<Vec<u8>, BuildError> {
        let text = secret.strip_prefix(self.strip).unwrap_or(secret);
        let bytes = match self.written {
            Written::Text => text.as_bytes().to_vec(),
            Written::Base64 => base64(text.trim()).ok_or("expected a secret in base64, found another character")?,
            Written::Hex => hex(text.trim().as_bytes()).ok_or("expected a secret in pairs of hexadecimal digits")?,
            Written::Sha1 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref().to_vec(),
        };
        match text.trim().is_empty() || bytes.is_empty() {
            true => Err("the secret is empty".into()),
            false => Ok(bytes),
        }
    }
}

/// Secrets are pasted with and without their padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&STANDARD, LENIENT).decode(text).ok()
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whether a point of Ed25519 is of small order: then signatures of anything can be made without the private key. Their
/// y-coordinates are 0, 1, p - 1 and two others, with either sign; p and p + 1 are written for 0 and 1 by some.
fn is_weak(point: &[u8]) -> bool {
    const ORDER_EIGHT: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let Ok(mut y) = <[u8; 32]>::try_from(point) else { return false };
    y[31] &= 0x7f;
    let is_near_p = y[1..31].iter().all(|byte| *byte == 0xff) && y[31] == 0x7f && matches!(y[0], 0xec..=0xee);
    let is_small = y[1..].iter().all(|byte| *byte == 0) && y[0] <= 1;
    is_near_p || is_small || ORDER_EIGHT.contains(&y)
}

/// The signed content of a request, in parts.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    parts: Vec<Cow<'a, [u8]>>,
}

impl<'a> Message<'a> {
    pub(super) fn add(&mut self, part: impl Into<Cow<'a, [u8]>>) {
        self.parts.push(part.into());
    }

    pub(super) fn whole(&self) -> Cow<'_, [u8]> {
        match &*self.parts {
            [part] => Cow::Borrowed(part),
            parts => parts.concat().into(),
        }
    }
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Hex,
    Base64,
    /// As `Hex`, in small letters only.
    #[serde(skip)]
    SmallHex,
}

impl Encoding {
    /// The bytes of a signature; `None` if it is written otherwise, or too long. There is one text for each.
    pub(super) fn decode(self, text: &[u8]) -> Option<Bytes> {
        match self {
            Self::SmallHex if text.iter().any(u8::is_ascii_uppercase) => None,
            Self::Hex | Self::SmallHex => hex(text).and_then(|bytes| Bytes::try_from(&*bytes).ok()),
            Self::Base64 => {
                let mut bytes = [0; LONGEST + 3];
                let length = base64::prelude::BASE64_STANDARD.decode_slice(text, &mut bytes).ok()?;
                Bytes::try_from(bytes.get(..length)?).ok()
            }
        }
    }
}
