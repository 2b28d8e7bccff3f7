//! Bodies of the type `application/x-www-form-urlencoded`, for the parts that are signed.

use std::borrow::Cow;

use crate::auth::AuthError;
use crate::form::{MAX_FIELDS, fields};

/// The value of a field that appears once.
pub(super) fn field(body: &[u8], name: &[u8]) -> Result<Vec<u8>, AuthError> {
    let mut found = pairs(body).filter(|(other, _)| **other == *name);
    let (_, value) = found.next().ok_or(AuthError::Missing)?;
    if found.next().is_some() { Err(AuthError::Malformed) } else { Ok(value.into_owned()) }
}

/// The names and values, concatenated in sorted order. Identical pairs count once.
pub(super) fn sorted(body: &[u8]) -> Result<Vec<u8>, AuthError> {
    let mut pairs: Vec<_> = pairs(body).take(MAX_FIELDS + 1).collect();
    if pairs.len() > MAX_FIELDS {
        return Err(AuthError::Malformed);
    }
    pairs.sort();
    pairs.dedup();
    Ok(pairs.iter().flat_map(|(name, value)| [&**name, &**value]).flatten().copied().collect())
}

fn pairs(body: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    fields(body).map(|field| (decode(field.name), decode(field.value)))
}

/// `+` is a blank, and `%` and two digits a byte. Other than in [`crate::form`], a `%` that begins none is itself: the
/// libraries of senders read it so, and the signature decides.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        let escaped = match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => {
                digit(high).zip(digit(low)).map(|(high, low)| (high << 4 | low, behind))
            }
            _ => None,
        };
        let (byte, behind) = escaped.unwrap_or((if *byte == b'+' { b' ' } else { *byte }, behind));
        plain.push(byte);
        rest = behind;
    }
    plain.into()
}
