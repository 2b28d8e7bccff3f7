//! An event as text.

use std::io;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::LogConfig;
use super::redact::redact;
use crate::module::Delivery;
use crate::payload::DataType;

/// The longest string that is printed whole, in characters.
const MAX_STRING: usize = 10_000;

/// The longest event that is printed whole, in bytes of its payload as printed.
const MAX_PAYLOAD: usize = 64 << 10;

#[derive(Serialize)]
struct Event<'a> {
    event_id: String,
    namespace: &'a str,
    webhook: &'a str,
    /// Milliseconds since the epoch.
    received_at_ms: u128,
    /// Of the body as received.
    bytes: usize,
    payload: Value,
}

/// The event with its final newline.
pub(super) fn render(delivery: &Delivery, config: LogConfig) -> Vec<u8> {
    let webhook = delivery.webhook();
    let mut event = Event {
        event_id: delivery.id().to_string(),
        namespace: webhook.namespace(),
        webhook: webhook.id(),
        received_at_ms: delivery.received_at().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
        bytes: delivery.body().len(),
        payload: payload(delivery, config),
    };
    let text = print(&event, config);
    if text.len() <= MAX_PAYLOAD + 1024 {
        return text;
    }
    // Cut as text: half a tree would look like the whole.
    let mut cut =
        String::from_utf8(print(&event.payload, LogConfig { pretty_print: false, ..config })).unwrap_or_default();
    truncate(&mut cut, MAX_PAYLOAD / 2);
    event.payload = Value::String(cut);
    print(&event, config)
}

fn payload(delivery: &Delivery, config: LogConfig) -> Value {
    let parsed = match delivery.webhook().data_type() {
        DataType::Json => serde_json::from_slice(delivery.body()).ok(),
        DataType::Blob => None,
    };
    let mut value = parsed.unwrap_or_else(|| {
        // A text that was not parsed cannot be redacted by field; a multiple of the bound is all that can be printed.
        let head = &delivery.body()[..delivery.body().len().min(4 * MAX_STRING)];
        Value::String(String::from_utf8_lossy(head).into_owned())
    });
    if config.redact_sensitive {
        redact(&mut value);
    }
    cut_strings(&mut value);
    value
}

fn cut_strings(value: &mut Value) {
    match value {
        Value::String(text) => truncate(text, MAX_STRING),
        Value::Array(items) => items.iter_mut().for_each(cut_strings),
        Value::Object(fields) => fields.values_mut().for_each(cut_strings),
        _ => {}
    }
}

fn truncate(text: &mut String, max_chars: usize) {
    if let Some((at, _)) = text.char_indices().nth(max_chars) {
        text.truncate(at);
        text.push_str("… (cut)");
    }
}

fn print(value: &impl Serialize, config: LogConfig) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let printed = if config.pretty_print {
        value.serialize(&mut Serializer::with_formatter(&mut out, Printable(PrettyFormatter::new())))
    } else {
        value.serialize(&mut Serializer::with_formatter(&mut out, Printable(CompactFormatter)))
    };
    if let Err(error) = printed {
        // Not reachable for a value that was parsed; the line then says so.
        out = format!("{{\"error\":\"the event cannot be printed: {error}\"}}").into_bytes();
    }
    out.push(b'\n');
    out
}

/// Escapes what JSON leaves alone and a terminal or a reader would fall for: DEL, C1 controls, line separators and
/// the marks that turn the direction of text.
struct Printable<F>(F);

impl<F: Formatter> Printable<F> {
    fn is_hidden(c: char) -> bool {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    }
}

macro_rules! delegate {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {$(
        fn $method<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $type)*) -> io::Result<()> {
            self.0.$method(writer $(, $arg)*)
        }
    )*};
}

impl<F: Formatter> Formatter for Printable<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| Self::is_hidden(c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            // All of them are in the basic plane: one unit each.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    delegate! {
        write_char_escape(escape: CharEscape);
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::config::{Compiler, Connections, Registry};
    use crate::key::WebhookKey;

    fn rendered(data_type: &str, body: impl Into<Bytes>, config: LogConfig) -> String {
        let compiler = Compiler::new(Registry::builtin());
        let json = format!(r#"{{"module":"log","data_type":{data_type:?}}}"#);
        let key = WebhookKey::new("ns", "hook").unwrap();
        let spec = compiler.read_webhook(json.as_bytes()).unwrap();
        let webhook = compiler.build_webhook(&key, spec, &Connections::new()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer hunter2".parse().unwrap());
        let delivery = Delivery::new(webhook.into(), headers, body.into());
        String::from_utf8(render(&delivery, config)).unwrap()
    }

    fn payload_of(line: &str) -> Value {
        serde_json::from_str::<Value>(line).unwrap()["payload"].clone()
    }

    #[test]
    fn one_event_is_one_line() {
        let line = rendered("json", r#"{"hello": "wor\nld"}"#, LogConfig::default());
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("}\n") && line.contains(r#""namespace":"ns","webhook":"hook""#), "{line}");
        assert!(!line.contains("hunter2"));
    }

    #[test]
    fn pretty_is_indented() {
        let text =
            rendered("json", r#"{"hello": ["world"]}"#, LogConfig { pretty_print: true, ..LogConfig::default() });
        assert!(text.contains("\n    \"hello\": [\n"), "{text}");
    }

    #[test]
    fn secrets_are_redacted_unless_switched_off() {
        let body = r#"{"token": "hunter2", "author": "me"}"#;
        let line = rendered("json", body, LogConfig::default());
        assert!(!line.contains("hunter2") && line.contains("me"), "{line}");
        assert!(
            rendered("json", body, LogConfig { redact_sensitive: false, ..LogConfig::default() }).contains("hunter2")
        );
    }

    #[test]
    fn nothing_unprintable_comes_through() {
        let line =
            rendered("json", "{\"k\u{9b}\": \"\u{9b}31m\u{7f}\u{202e}\u{2028}\\u001b[0m\\r\"}", LogConfig::default());
        assert!(line.trim_end_matches('\n').chars().all(|c| !Printable::<CompactFormatter>::is_hidden(c)), "{line:?}");
        assert_eq!(payload_of(&line)["k\u{9b}"], "\u{9b}31m\u{7f}\u{202e}\u{2028}\u{1b}[0m\r");
    }

    #[test]
    fn blobs_are_text() {
        let line = rendered("blob", &b"\xff\x00\x1b[31m{"[..], LogConfig::default());
        assert_eq!(payload_of(&line), "\u{fffd}\u{0}\u{1b}[31m{");
        assert!(line.contains("\\u0000\\u001b[31m{"), "{line}");
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = format!(r#"{{"a": "{}"}}"#, "é".repeat(20_000));
        let line = rendered("json", long, LogConfig::default());
        assert!(payload_of(&line)["a"].as_str().unwrap().ends_with("é… (cut)"));

        let wide = format!("[{}1]", "\"abcdefgh\",".repeat(100_000));
        for pretty_print in [false, true] {
            let line = rendered("json", wide.clone(), LogConfig { pretty_print, ..LogConfig::default() });
            assert!(line.len() < 80_000, "{}", line.len());
            assert!(payload_of(&line).as_str().unwrap().ends_with("… (cut)"));
        }
    }
}
