//! Contentful: the request names the fields that are signed.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use super::key::{Encoding, Key, Message};
use super::plan::bad_signature;
use super::timestamp::{Format, check};
use crate::auth::schemes::only;
use crate::auth::{AuthError, Position, Secrets, WallClock};
use crate::request::Head;

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("x-contentful-signature");
const SIGNED_HEADERS: HeaderName = HeaderName::from_static("x-contentful-signed-headers");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-contentful-timestamp");

/// No request names more fields.
const MOST: usize = 64;

/// Less than 30 seconds: at 30, the provider's library refuses.
const TOLERANCE: Duration = Duration::from_millis(29_999);

/// Whether the head has what is needed, and is of now.
pub(super) fn check_head(head: Head<'_>, clock: &WallClock) -> Result<(), AuthError> {
    signature(head)?;
    signed_fields(head)?;
    // How a query is written before it is signed is not known well enough.
    if head.uri.query().is_some() {
        return Err(AuthError::Malformed);
    }
    let signed = Format::UnixMs.read(only(head.headers, &TIMESTAMP)?).ok_or(AuthError::Malformed)?;
    check(signed, clock.now(), Format::UnixMs, TOLERANCE, TOLERANCE)
}

pub(super) fn check_body(
    head: Head<'_>,
    path: &str,
    body: &[u8],
    secrets: &Secrets<Key>,
    clock: &WallClock,
) -> Result<Position, AuthError> {
    let mut message = Message::default();
    message.add(format!("{}\n{path}\n", head.method).into_bytes());
    for (at, (name, value)) in signed_fields(head)?.into_iter().enumerate() {
        message.add(format!("{}{name}:", if at == 0 { "" } else { ";" }).into_bytes());
        message.add(value);
    }
    message.add(&b"\n"[..]);
    message.add(body);
    let signature = [signature(head)?];
    secrets.find(clock, |key| key.fits(&message, &signature)).map_err(bad_signature)
}

fn signature(head: Head<'_>) -> Result<super::key::Bytes, AuthError> {
    let signature = Encoding::SmallHex.decode(only(head.headers, &SIGNATURE)?);
    signature.filter(|bytes| bytes.len() == 32).ok_or(AuthError::Malformed)
}

/// The fields that the request names as signed, in their order. The list and the time must be among them.
fn signed_fields(head: Head<'_>) -> Result<BTreeMap<String, &[u8]>, AuthError> {
    let list = only(head.headers, &SIGNED_HEADERS)?;
    let mut fields = BTreeMap::new();
    for name in list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let field = HeaderName::from_bytes(name).map_err(|_| AuthError::Malformed)?;
        let is_new = fields.insert(field.as_str().to_owned(), only(head.headers, &field)?.trim_ascii()).is_none();
        if !is_new || fields.len() > MOST {
            return Err(AuthError::Malformed);
        }
    }
    let has = |name: &HeaderName| fields.contains_key(name.as_str());
    if has(&SIGNED_HEADERS) && has(&TIMESTAMP) { Ok(fields) } else { Err(AuthError::Malformed) }
}
