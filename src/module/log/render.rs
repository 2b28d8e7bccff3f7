//! Renders an event as text.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use super::config::LogConfig;
use super::form;
use super::layout::{MAX_STRING, Page};
use crate::base::secret_names::{REDACTED, is_secret};
use crate::config::DataType;
use crate::event::Delivery;
use crate::json::clean;

/// The longest event that is printed whole, in printed bytes.
const MAX_PRINTED: usize = 64 << 10;

/// The largest JSON body that is parsed, in bytes.
const MAX_READ: usize = 256 << 10;

/// The body, as it is printed.
enum Payload<'a> {
    /// Well-formed JSON without its secrets.
    Json(Cow<'a, str>),
    Text(Cow<'a, str>),
}

/// The event as a line, with its newline.
pub(super) fn render(delivery: &Delivery, config: LogConfig) -> Vec<u8> {
    let (payload, note) = match payload(delivery, config) {
        Ok(payload) => (Some(payload), None),
        Err(note) => (None, Some(note)),
    };
    let mut page = print(delivery, config, note, payload.as_ref());
    if let (true, Some(Payload::Json(json))) = (page.is_cut, &payload) {
        // The beginning of the value as text, which always fits: half a JSON value would look like a whole one.
        let mut head = Page::new(false, MAX_PRINTED / 4);
        head.json(json);
        page = print(delivery, config, Some("cut"), Some(&Payload::Text(head.text.into())));
    }
    page.text.push('\n');
    page.text.into_bytes()
}

fn print(delivery: &Delivery, config: LogConfig, note: Option<&str>, payload: Option<&Payload<'_>>) -> Page {
    let webhook = delivery.webhook();
    let received_at = delivery.received_at().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut page = Page::new(config.pretty_print, MAX_PRINTED);
    page.open("{");
    page.string("event_id");
    page.colon();
    page.string(&delivery.id().to_string());
    field(&mut page, "namespace", |page| page.string(webhook.namespace()));
    field(&mut page, "webhook", |page| page.string(webhook.id()));
    // Milliseconds since the epoch.
    field(&mut page, "received_at_ms", |page| page.push(&received_at.as_millis().to_string()));
    // The length of the body as received.
    field(&mut page, "bytes", |page| page.push(&delivery.body().len().to_string()));
    // Why the payload is not printed, or not printed whole.
    if let Some(note) = note {
        field(&mut page, "note", |page| page.string(note));
    }
    match payload {
        Some(Payload::Json(json)) => field(&mut page, "payload", |page| page.json(json)),
        Some(Payload::Text(text)) => field(&mut page, "payload", |page| page.string(text)),
        None => {}
    }
    page.close("}");
    page
}

fn field(page: &mut Page, name: &str, value: impl FnOnce(&mut Page)) {
    page.comma();
    page.string(name);
    page.colon();
    value(page);
}

/// The payload to print, or the reason why none is printed.
fn payload(delivery: &Delivery, config: LogConfig) -> Result<Payload<'_>, &'static str> {
    let body = delivery.body();
    let data_type = delivery.webhook().data_type();
    if data_type == DataType::Blob {
        return Ok(Payload::Text(as_text(body)));
    }
    if body.len() > MAX_READ {
        return Err("not printed: too large");
    }
    if data_type == DataType::Form {
        return match form::render(body, config) {
            Some(json) => Ok(Payload::Json(Cow::Owned(json))),
            None if config.redact_sensitive => Err("not printed: it cannot be redacted"),
            None => Ok(Payload::Text(as_text(body))),
        };
    }
    let cleaned = clean(body, Some(REDACTED), &|name| config.redact_sensitive && is_secret(name));
    match cleaned.map(|cleaned| text(cleaned.map_or(Cow::Borrowed(body), Cow::Owned))) {
        Ok(Some(json)) => Ok(Payload::Json(json)),
        // The body is not JSON: no layer has checked it, or code has changed it.
        _ if config.redact_sensitive => Err("not printed: it cannot be redacted"),
        _ => Ok(Payload::Text(as_text(body))),
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

fn as_text(body: &[u8]) -> Cow<'_, str> {
    // A character has at most four bytes; anything longer would be cut anyway.
    String::from_utf8_lossy(&body[..body.len().min(4 * (MAX_STRING + 1))])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::config::{WebhookInfo, WebhookKey};
    use crate::module::log::layout::is_hidden;

    fn rendered(data_type: DataType, body: impl Into<Bytes>, config: LogConfig) -> String {
        let webhook = WebhookInfo::new(WebhookKey::new("ns", "hook").unwrap(), data_type);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer hunter2".parse().unwrap());
        let delivery = Delivery::new(webhook, headers, body);
        String::from_utf8(render(&delivery, config)).unwrap()
    }

    fn payload_of(line: &str) -> Value {
        serde_json::from_str::<Value>(line).unwrap()["payload"].clone()
    }

    #[test]
    fn one_event_is_one_line() {
        let line = rendered(DataType::Json, r#"{"hello": "wor\nld"}"#, LogConfig::default());
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("}\n") && line.contains(r#""namespace":"ns","webhook":"hook""#), "{line}");
        assert!(!line.contains("hunter2"));
    }

    #[test]
    fn pretty_is_indented() {
        let text = rendered(
            DataType::Json,
            r#"{"hello": ["world"]}"#,
            LogConfig { pretty_print: true, ..LogConfig::default() },
        );
        assert!(text.contains("\n    \"hello\": [\n"), "{text}");
    }

    #[test]
    fn secrets_are_redacted_unless_switched_off() {
        let body = r#"{"token": "hunter2", "author": "me"}"#;
        let line = rendered(DataType::Json, body, LogConfig::default());
        assert!(!line.contains("hunter2") && line.contains("me"), "{line}");
        assert!(
            rendered(DataType::Json, body, LogConfig { redact_sensitive: false, ..LogConfig::default() })
                .contains("hunter2")
        );
    }

    #[test]
    fn unprintable_characters_are_escaped() {
        let line = rendered(
            DataType::Json,
            "{\"k\u{9b}\": \"\u{9b}31m\u{7f}\u{202e}\u{2028}\\u001b[0m\\r\"}",
            LogConfig::default(),
        );
        assert!(line.trim_end_matches('\n').chars().all(|c| !is_hidden(c)), "{line:?}");
        assert_eq!(payload_of(&line)["k\u{9b}"], "\u{9b}31m\u{7f}\u{202e}\u{2028}\u{1b}[0m\r");
    }

    #[test]
    fn blobs_are_text() {
        let line = rendered(DataType::Blob, &b"\xff\x00\x1b[31m{"[..], LogConfig::default());
        assert_eq!(payload_of(&line), "\u{fffd}\u{0}\u{1b}[31m{");
        assert!(line.contains("\\u0000\\u001b[31m{"), "{line}");
    }

    #[test]
    fn long_strings_and_events_are_cut() {
        let long = format!(r#"{{"a": "{}"}}"#, "é".repeat(20_000));
        let line = rendered(DataType::Json, long, LogConfig::default());
        assert!(payload_of(&line)["a"].as_str().unwrap().ends_with("é… (cut)"));

        // Many small values grow most when they are indented.
        let wide = format!("[{}1]", "\"abcdefgh\",".repeat(20_000));
        let deep = format!("{}1{},1]", "[".repeat(49), "]".repeat(48));
        let many = format!("[{deep}{}]", format!(",{deep}").repeat(1_000));
        for body in [wide, many] {
            for pretty_print in [false, true] {
                let line = rendered(DataType::Json, body.clone(), LogConfig { pretty_print, ..LogConfig::default() });
                assert!(line.len() <= MAX_PRINTED + 1, "{}", line.len());
                let event: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(event["note"], "cut");
                assert!(event["payload"].as_str().unwrap().starts_with('['));
            }
        }
    }

    #[test]
    fn a_body_that_cannot_be_redacted_is_not_printed() {
        let huge = format!(r#"{{"token": "hunter2", "rest": "{}"}}"#, "x".repeat(MAX_READ));
        let line = rendered(DataType::Json, huge, LogConfig::default());
        assert!(!line.contains("hunter2") && line.contains("not printed: too large"), "{line}");
        for body in [r#"{"password": "hunter2""#, "{\"password\": \"hunter2\", \"a\": \"\n\"}", "password=hunter2"] {
            let line = rendered(DataType::Json, body, LogConfig::default());
            assert!(!line.contains("hunter2") && line.contains("not printed: it cannot be redacted"), "{line}");
            let open = LogConfig { redact_sensitive: false, ..LogConfig::default() };
            assert_eq!(payload_of(&rendered(DataType::Json, body, open)), body);
        }
    }

    #[test]
    fn only_redacted_fields_are_changed() {
        let body = r#"{"n": [7615917337495251231111, 1e400, -0, 1.0], "a": "\ud800", "\udc00": 1, "a": 1, "pass\u0077ord": {"x": ["hunter2"]},
            "pass\ud800word": "hunter2", "PassWord": "hunter2", "é\/": "\u00e9"}"#;
        let line = rendered(DataType::Json, body, LogConfig::default());
        let payload = r#"{"n":[7615917337495251231111,1e400,-0,1.0],"a":"\ud800","\udc00":1,"a":1,"pass\u0077ord":"***REDACTED***","pass\ud800word":"***REDACTED***","PassWord":"***REDACTED***","é\/":"\u00e9"}"#;
        assert!(line.ends_with(&format!(",\"payload\":{payload}}}\n")), "{line}");
        let pretty = rendered(DataType::Json, body, LogConfig { pretty_print: true, ..LogConfig::default() });
        assert_eq!(pretty.lines().filter(|line| line.contains("7615917337495251231111")).count(), 1, "{pretty}");
        assert!(!pretty.contains("hunter2") && pretty.contains("\n    \"a\": \"\\ud800\",\n"), "{pretty}");
    }

    /// The expected result, computed on a parsed tree.
    fn expected(value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(expected).collect(),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| match is_secret(&name) {
                    true => (name, REDACTED.into()),
                    false => (name, expected(value)),
                });
                Value::Object(fields.collect())
            }
            other => other,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from),];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("passWord|api_key|token|author|[a-z\u{0}-\u{ff}]{0,4}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn only_redacted_fields_differ_from_the_received_value(value in values(), pretty_print in any::<bool>()) {
            let config = LogConfig { pretty_print, ..LogConfig::default() };
            let text = rendered(DataType::Json, value.to_string(), config);
            prop_assert_eq!(payload_of(&text), expected(value));
        }
    }
}
