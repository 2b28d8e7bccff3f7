//! The payload and the headers of an event as the old service gave them to consumers: `{"payload": …, "headers": {…}}`.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::properties::{Properties, text};
use crate::config::DataType;
use crate::event::Delivery;
use crate::module::forward::Forward;

/// The bytes beside the body for which an envelope has room at once.
const ROOM: usize = 512;

/// The names and values of an event's headers.
pub(crate) type Headers<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// The headers of an event: the received ones that are sent on, and the event's own `x-event-id`, `x-namespace`,
/// `x-webhook` and `x-received-at`. Names are in lower case; several values of a name are joined by commas.
pub(crate) fn headers<'a>(properties: &'a Properties<'_>) -> Headers<'a> {
    let mut headers = Headers::with_capacity(8 + properties.forwarded.len());
    properties.each_in_lower_case(|name, value| match headers.last_mut() {
        Some((last, values)) if *last == name => *values = format!("{values}, {}", text(value)).into(),
        _ => headers.push((name, text(value))),
    });
    headers
}

/// The envelope without headers, as JSON.
pub(crate) fn bare(delivery: &Delivery) -> Vec<u8> {
    let mut json = Vec::with_capacity(delivery.body().len() + ROOM);
    json.extend_from_slice(br#"{"payload":"#);
    payload(&mut json, delivery.webhook().data_type(), delivery.body());
    json.extend_from_slice(encoding(delivery).as_bytes());
    json.push(b'}');
    json
}

/// The envelope as JSON. It has the body of a `json` webhook byte for byte, the body of a `form` as a string, and the body
/// of a `blob` as a string in Base64 beside `"encoding": "base64"`.
pub(crate) fn json(delivery: &Delivery, forward: &Forward) -> Vec<u8> {
    let mut json = Vec::with_capacity(delivery.body().len() + ROOM);
    json.extend_from_slice(br#"{"payload":"#);
    payload(&mut json, delivery.webhook().data_type(), delivery.body());
    json.extend_from_slice(encoding(delivery).as_bytes());
    json.extend_from_slice(br#","headers":"#);
    object(&mut json, &headers(&Properties::of(delivery, forward)));
    json.push(b'}');
    json
}

/// How the payload stands for the body.
fn encoding(delivery: &Delivery) -> &'static str {
    match delivery.webhook().data_type() {
        DataType::Blob => r#","encoding":"base64""#,
        DataType::Json | DataType::Form => "",
    }
}

/// Writes the body as a value of JSON.
pub(crate) fn payload(json: &mut Vec<u8>, data_type: DataType, body: &Bytes) {
    match data_type {
        DataType::Json if body.trim_ascii().is_empty() => json.extend_from_slice(b"null"),
        DataType::Json => json.extend_from_slice(body),
        // A form is ASCII in practice, and UTF-8 after its check.
        DataType::Form => string(json, &String::from_utf8_lossy(body)),
        DataType::Blob => string(json, &BASE64_STANDARD.encode(body)),
    }
}

/// Writes the headers as an object of JSON.
pub(crate) fn object(json: &mut Vec<u8>, headers: &[(&str, Cow<'_, str>)]) {
    for (at, (name, value)) in headers.iter().enumerate() {
        json.push(if at == 0 { b'{' } else { b',' });
        string(json, name);
        json.push(b':');
        string(json, value);
    }
    json.extend_from_slice(if headers.is_empty() { b"{}" } else { b"}" });
}

/// Writes a text as a string of JSON.
pub(crate) fn string(json: &mut Vec<u8>, text: &str) {
    // A text can be written, and a vector takes all of it.
    let _ = serde_json::to_writer(json, text);
}

/// A text as a string of JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{WebhookInfo, WebhookKey};
    use crate::module::broker::forward;

    /// An event with these header fields.
    pub(crate) fn delivery(data_type: DataType, headers: &[(&'static str, &str)], body: &'static [u8]) -> Delivery {
        let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), data_type);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Delivery::new(info, map, body)
    }

    #[test]
    fn the_body_of_json_stands_in_the_envelope_as_it_was_sent() {
        let body = br#"{ "a" : 1e400 }"#;
        let delivery = delivery(DataType::Json, &[("x-a", "1"), ("x-a", "2"), ("cookie", "s3cret")], body);
        let text = String::from_utf8(json(&delivery, &forward(true, None).unwrap())).unwrap();
        assert!(text.starts_with(r#"{"payload":{ "a" : 1e400 },"headers":{"#), "{text}");
        let headers: Value =
            serde_json::from_str(text.split_once(r#","headers":"#).unwrap().1.strip_suffix('}').unwrap()).unwrap();
        assert_eq!(headers["x-a"], "1, 2");
        assert_eq!(headers["x-event-id"], delivery.id().to_string());
        assert_eq!((&headers["x-namespace"], &headers["x-webhook"]), (&json!("shop"), &json!("orders")));
        assert!(!text.contains("s3cret"));
    }

    #[test]
    fn other_bodies_are_strings() {
        let read = |data_type, body| -> Value {
            let envelope = json(&delivery(data_type, &[], body), &forward(false, None).unwrap());
            serde_json::from_slice(&envelope).unwrap()
        };
        let blob = read(DataType::Blob, b"\0\xff");
        assert_eq!((&blob["payload"], &blob["encoding"]), (&json!("AP8="), &json!("base64")));
        let form = read(DataType::Form, b"a=1&b=%22\"");
        assert_eq!((&form["payload"], &form["encoding"]), (&json!("a=1&b=%22\""), &Value::Null));
        assert_eq!(read(DataType::Json, b"")["payload"], Value::Null);
    }
}
