//! The encoding of an event.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::config::WebhookKey;
use crate::event::{Delivery, EventId};
use crate::queue::StoredEvent;

/// Encodes everything except the body, which follows.
pub(super) fn encode_head(delivery: &Delivery, head: &mut Vec<u8>) {
    let webhook = delivery.webhook().key();
    head.extend_from_slice(delivery.id().as_bytes());
    head.extend_from_slice(&micros(delivery.received_at()).to_le_bytes());
    for name in [webhook.namespace(), webhook.id()] {
        // At most 64 bytes.
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
    }
    let headers = delivery.headers();
    // HTTP servers limit the head of a request far below `u32::MAX` bytes.
    head.extend_from_slice(&(headers.len() as u32).to_le_bytes());
    for (name, value) in headers {
        head.extend_from_slice(&(name.as_str().len() as u32).to_le_bytes());
        head.extend_from_slice(&(value.len() as u32).to_le_bytes());
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(value.as_bytes());
    }
}

/// How many bytes [`encode_head`] writes.
pub(super) fn head_length(delivery: &Delivery) -> usize {
    let webhook = delivery.webhook().key();
    let fields: usize = delivery.headers().iter().map(|(name, value)| 8 + name.as_str().len() + value.len()).sum();
    16 + 8 + 2 + webhook.namespace().len() + webhook.id().len() + 4 + fields
}

/// `None` if the payload is no event. The checksum finds damage, so only a defect could write such a payload.
pub(super) fn decode(payload: Bytes) -> Option<StoredEvent> {
    let mut rest = Reader(&payload);
    let id = EventId::from_bytes(rest.array()?);
    let received_at = time(i64::from_le_bytes(rest.array()?));
    rest.webhook()?;
    let mut headers = HeaderMap::new();
    for _ in 0..rest.number()? {
        let (name, value) = (rest.number()?, rest.number()?);
        let name = HeaderName::from_bytes(rest.take(name as usize)?).ok()?;
        let value = HeaderValue::from_bytes(rest.take(value as usize)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    let body = payload.slice_ref(rest.0);
    Some(StoredEvent { id, received_at, headers, body })
}

/// Decodes the id and the webhook only.
pub(super) fn decode_name(payload: &[u8]) -> Option<(EventId, WebhookKey)> {
    let mut rest = Reader(payload);
    let id = EventId::from_bytes(rest.array()?);
    rest.array::<8>()?;
    Some((id, rest.webhook()?))
}

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

pub(super) fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs())
}

/// Reads values from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn webhook(&mut self) -> Option<WebhookKey> {
        let mut name = || {
            let [length] = self.array()?;
            std::str::from_utf8(self.take(usize::from(length))?).ok()
        };
        let (namespace, id) = (name()?, name()?);
        WebhookKey::new(namespace, id).ok()
    }
}

impl EventId {
    fn as_bytes(&self) -> &[u8; 16] {
        self.uuid().as_bytes()
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from_uuid(Uuid::from_bytes(bytes))
    }
}
