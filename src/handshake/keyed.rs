//! Challenges that are answered with a signature, which proves that the receiver knows the secret.
//!
//! The signed text must not be an event: otherwise an attacker could have a forged event signed. So it may contain only a few
//! characters, of which neither a JSON object nor the signed content of an event can consist.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;

use super::answer::{Answer, Answered, Refusal};
use super::ask::{field, of_body, of_query, parameter, query, text};
use super::rule::Keys;
use crate::request::Head;

/// The longest text that is signed, in bytes.
const LONGEST: usize = 256;

/// The challenge-response check of X: a GET, every hour. It may be signed, over the whole query.
pub(super) fn x(head: Head<'_>, keys: &Keys) -> Answered {
    const SIGNATURE: HeaderName = HeaderName::from_static("x-twitter-webhooks-signature");
    let token = parameter(head, "crc_token")?;
    check(&token, b"+/=_.-", &of_query("crc_token"))?;
    let key = match head.headers.contains_key(SIGNATURE) {
        true => {
            let sent = field(head.headers, &SIGNATURE)?.strip_prefix("sha256=");
            let sent = sent.and_then(|text| STANDARD.decode(text).ok()).ok_or(Refusal::Forbidden)?;
            keys.find(|key| key.has_signed(&[query(head)], &sent))
        }
        false => keys.find(|_| true),
    };
    let code = STANDARD.encode(key.ok_or(Refusal::Forbidden)?.sign(&[token.as_bytes()]));
    Ok(Answer::json(&[("response_token", &format!("sha256={code}"))]))
}

/// The validation of Zoom: a signed POST, every 72 hours. The secret that has signed it signs the answer, too.
pub(super) fn zoom(head: Head<'_>, body: &[u8], keys: &Keys) -> Answered {
    const TIME: HeaderName = HeaderName::from_static("x-zm-request-timestamp");
    const SIGNATURE: HeaderName = HeaderName::from_static("x-zm-signature");
    const PLAIN: &str = "/payload/plainToken";
    let plain = text(body, PLAIN)?;
    check(&plain, b"_-", &of_body(PLAIN))?;
    let time = field(head.headers, &TIME)?;
    let sent = field(head.headers, &SIGNATURE)?.strip_prefix("v0=").and_then(unhex).ok_or(Refusal::Forbidden)?;
    let key = keys.find(|key| key.has_signed(&[b"v0:", time.as_bytes(), b":", body], &sent));
    let code = hex(&key.ok_or(Refusal::Forbidden)?.sign(&[plain.as_bytes()]));
    Ok(Answer::json(&[("plainToken", &plain), ("encryptedToken", &code)]))
}

fn check(text: &str, besides: &[u8], name: &str) -> Result<(), Refusal> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || besides.contains(&byte);
    match text.len() {
        0 => Err(Refusal::malformed(name, "is empty")),
        1..=LONGEST if text.bytes().all(is_plain) => Ok(()),
        1..=LONGEST => Err(Refusal::malformed(name, "holds other characters than letters and digits")),
        _ => Err(Refusal::malformed(name, "is longer than 256 bytes")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<_>>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect()
}
