//! The JSON of times, events and dead letters.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::body::Part;
use crate::base::secret_names::sounds_secret;
use crate::config::WebhookKey;
use crate::history::{Outcome, Progress, Row};
use crate::request::{REDACTED, is_credential};
use crate::webhook::Webhook;

/// A time in UTC, to the millisecond.
pub(super) fn time(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| format!("{time:.3}"))
}

pub(super) fn maybe_time(at: Option<SystemTime>) -> Option<String> {
    at.and_then(time)
}

pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The fields `key`, `namespace` and `webhook`, added to an object.
pub(super) fn named(mut object: Value, webhook: &WebhookKey) -> Value {
    object["key"] = json!(key(webhook));
    object["namespace"] = json!(webhook.namespace());
    object["webhook"] = json!(webhook.id());
    object
}

pub(super) fn key(webhook: &WebhookKey) -> String {
    format!("{}/{}", webhook.namespace(), webhook.id())
}

/// An event in a list.
pub(super) fn row(row: &Row) -> Value {
    let object = json!({
        "id": row.id.to_string(),
        "at": time(row.at),
        "module": &*row.module,
        "method": row.method.as_str(),
        "size": row.size,
        "peer": row.peer.map(|peer| peer.to_string()),
        "outcome": row.outcome.label(),
        "kind": row.kind,
        "reason": row.reason,
        "status": row.status,
        "duration_seconds": seconds(row.duration),
        "attempts": row.attempts,
        "accepted": row.is_accepted,
        "next_attempt": maybe_time(row.next),
    });
    named(object, &row.webhook)
}

/// How far the delivery of an event is: the fields of its [`row`] that an attempt changes.
pub(super) fn progress(progress: &Progress) -> Value {
    let object = json!({
        "id": progress.id.to_string(),
        "outcome": progress.outcome.label(),
        "kind": progress.kind,
        "reason": progress.reason,
        "attempts": progress.attempts,
        "next_attempt": maybe_time(progress.next),
    });
    named(object, &progress.webhook)
}

/// Counts by outcome.
pub(super) fn outcomes(counts: &[u64; Outcome::ALL.len()]) -> Value {
    Outcome::ALL
        .iter()
        .zip(counts)
        .map(|(outcome, count)| (outcome.label().to_owned(), json!(count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Header fields as pairs. The values of credentials and signatures are masked: by their names, and by the guards of the
/// webhook as it is served now.
pub(super) fn head(headers: &HeaderMap, webhook: Option<&Webhook>) -> Value {
    let is_read = |name| webhook.is_some_and(|webhook| webhook.guards().read_credential(name));
    let fields = headers.iter().map(|(name, value)| {
        let value = match is_credential(name) || sounds_secret(name.as_str()) || is_read(name) {
            true => REDACTED.into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        json!([name.as_str(), value])
    });
    fields.collect()
}

/// The kept beginning of a body, which had `size` bytes, as an object with `text` or `base64`.
pub(super) fn body(content_type: Option<&str>, size: u64, is_cut: bool, kept: Bytes) -> Vec<Part> {
    let facts = json!({"type": content_type, "size": size, "kept": kept.len(), "is_cut": is_cut});
    let mut facts = facts.to_string();
    // The closing bracket.
    facts.pop();
    let part = match readable(&kept, is_cut) {
        Some(length) => (r#","text":""#, Part::Text(kept.slice(..length))),
        None => (r#","base64":""#, Part::Base64(kept)),
    };
    vec![Part::Plain(format!("{facts}{}", part.0).into()), part.1, Part::Plain(Bytes::from_static(b"\"}"))]
}

/// The length of the text, if the bytes are one. A cut may have split its last character.
pub(super) fn readable(bytes: &[u8], is_cut: bool) -> Option<usize> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.len()),
        Err(error) if is_cut && error.error_len().is_none() => Some(error.valid_up_to()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(time(SystemTime::UNIX_EPOCH).unwrap(), "1970-01-01T00:00:00.000Z");
        let later = SystemTime::UNIX_EPOCH + Duration::new(1_795_410_874, 120_999_999);
        assert_eq!(time(later).unwrap(), "2026-11-23T05:14:34.120Z");
    }

    #[test]
    fn a_cut_text_is_still_a_text() {
        assert_eq!(readable("aé".as_bytes(), false), Some(3));
        assert_eq!(readable(&"aé".as_bytes()[..2], true), Some(1));
        assert_eq!(readable(&"aé".as_bytes()[..2], false), None);
        assert_eq!(readable(b"a\xffb", true), None);
    }
}
