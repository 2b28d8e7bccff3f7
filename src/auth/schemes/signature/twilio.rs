//! Twilio signs the URL and the form. For other bodies the URL contains their digest.

use aws_lc_rs::digest;
use http::HeaderName;
use subtle::ConstantTimeEq;

use super::form;
use super::key::{Algorithm, Bytes, Encoding, Key, Message};
use super::plan::bad_signature;
use crate::auth::schemes::only;
use crate::auth::{AuthError, Position, Secrets, WallClock};
use crate::config::PublicUrl;
use crate::request::Head;

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");

/// The query parameter with the digest of a body that is not a form.
const DIGEST: &str = "bodySHA256";

pub(super) fn check_head(head: Head<'_>) -> Result<(), AuthError> {
    signature(head)?;
    body_digest(head).map(drop)
}

pub(super) fn check_body(
    head: Head<'_>,
    url: &PublicUrl,
    body: &[u8],
    secrets: &Secrets<Key>,
    clock: &WallClock,
) -> Result<Position, AuthError> {
    let mut message = Message::default();
    message.add(url.of(head.uri).into_bytes());
    match body_digest(head)? {
        None => message.add(form::sorted(body)?),
        Some(expected) => {
            let found = digest::digest(&digest::SHA256, body);
            if !bool::from(found.as_ref().ct_eq(&expected)) {
                return Err(AuthError::BadSignature);
            }
        }
    }
    let signature = [signature(head)?];
    secrets.find(clock, |key| key.fits(&message, &signature)).map_err(bad_signature)
}

fn signature(head: Head<'_>) -> Result<Bytes, AuthError> {
    let signature = Encoding::Base64.decode(only(head.headers, &SIGNATURE)?);
    let is_one = |bytes: &Bytes| Algorithm::HmacSha1.lengths().contains(&bytes.len());
    signature.filter(is_one).ok_or(AuthError::Malformed)
}

/// The digest in the URL, if it has one.
fn body_digest(head: Head<'_>) -> Result<Option<Bytes>, AuthError> {
    let parameters = head.uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
    let mut digests = parameters.filter(|(name, _)| *name == DIGEST).map(|(_, digest)| digest);
    match (digests.next(), digests.next()) {
        (None, _) => Ok(None),
        (Some(digest), None) => {
            let digest = Encoding::Hex.decode(digest.as_bytes()).filter(|bytes| bytes.len() == 32);
            digest.map(Some).ok_or(AuthError::Malformed)
        }
        (Some(_), Some(_)) => Err(AuthError::Malformed),
    }
}
