//! An event as text.

use std::borrow::Cow;
use std::io;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::LogConfig;
use super::redact::Json;
use crate::module::{Delivery, EventId};
use crate::payload::DataType;

/// The longest string that is printed whole, in characters.
const MAX_STRING: usize = 10_000;

/// The longest event that is printed whole, in bytes as printed.
const MAX_PRINTED: usize = 64 << 10;

/// The largest body that is looked into, in bytes.
const MAX_READ: usize = 256 << 10;

#[derive(Serialize)]
struct Event<'a> {
    #[serde(serialize_with = "id")]
    event_id: EventId,
    namespace: &'a str,
    webhook: &'a str,
    /// Milliseconds since the epoch.
    received_at_ms: u128,
    /// Of the body as received.
    bytes: usize,
    /// Why the payload is not printed, or not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(Json<'a>),
    Text(Cow<'a, str>),
}

fn id<S: serde::Serializer>(id: &EventId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// The event with its final newline.
pub(super) fn render(delivery: &Delivery, config: LogConfig) -> Vec<u8> {
    let webhook = delivery.webhook();
    let (payload, note) = match payload(delivery, config) {
        Ok(payload) => (Some(payload), None),
        Err(note) => (None, Some(note)),
    };
    let mut event = Event {
        event_id: delivery.id(),
        namespace: webhook.namespace(),
        webhook: webhook.id(),
        received_at_ms: delivery.received_at().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
        bytes: delivery.body().len(),
        note,
        payload,
    };
    loop {
        let mut text = print(&event, config.pretty_print, MAX_PRINTED);
        let mut is_wrong = text.end == End::Wrong;
        if text.end == End::Cut {
            // As text: half a value would look like the whole.
            let head = print(&event.payload, false, MAX_PRINTED / 4);
            is_wrong = head.end == End::Wrong;
            event.payload = Some(Payload::Text(String::from_utf8_lossy(&head.bytes).into_owned().into()));
            event.note = Some("cut");
        }
        if is_wrong {
            // Well-formed, and still no value: a number beyond every float, half of a surrogate pair.
            (event.payload, event.note) = match config.redact_sensitive {
                true => (None, Some("not printed: it cannot be redacted")),
                false => (Some(Payload::Text(as_text(delivery.body()))), None),
            };
        }
        if text.end == End::Whole {
            text.bytes.push(b'\n');
            return text.bytes;
        }
    }
}

/// What is printed of the body, or why nothing is.
fn payload(delivery: &Delivery, config: LogConfig) -> Result<Payload<'_>, &'static str> {
    let body = delivery.body();
    match delivery.webhook().data_type() {
        DataType::Json if body.len() > MAX_READ => Err("not printed: too large"),
        DataType::Json => Ok(Payload::Json(Json { text: body, redact: config.redact_sensitive })),
        DataType::Blob => Ok(Payload::Text(as_text(body))),
    }
}

fn as_text(body: &[u8]) -> Cow<'_, str> {
    // A character has at most four bytes; more of them would be cut anyway.
    let head = &body[..body.len().min(4 * (MAX_STRING + 1))];
    match String::from_utf8_lossy(head) {
        Cow::Borrowed(text) => cut(text),
        Cow::Owned(text) => cut(&text).into_owned().into(),
    }
}

/// A string, or as much of it as is printed.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    let is_long = text.len() > MAX_STRING;
    match is_long.then(|| text.char_indices().nth(MAX_STRING)).flatten() {
        Some((at, _)) => format!("{}… (cut)", &text[..at]).into(),
        None => text.into(),
    }
}

fn print(value: &impl Serialize, pretty: bool, max: usize) -> Printed {
    let mut out = Bounded { bytes: Vec::with_capacity(512), max, is_cut: false };
    let outcome = match pretty {
        true => value.serialize(&mut Serializer::with_formatter(&mut out, Printable(PrettyFormatter::new()))),
        false => value.serialize(&mut Serializer::with_formatter(&mut out, Printable(CompactFormatter))),
    };
    let end = match outcome {
        Ok(()) => End::Whole,
        Err(_) if out.is_cut => End::Cut,
        Err(_) => End::Wrong,
    };
    Printed { bytes: out.bytes, end }
}

struct Printed {
    bytes: Vec<u8>,
    end: End,
}

#[derive(PartialEq)]
enum End {
    Whole,
    /// At the bound.
    Cut,
    /// At something that is no value.
    Wrong,
}

/// Takes so many bytes, and then no more.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    is_cut: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.max - self.bytes.len();
        if bytes.len() > room {
            self.bytes.extend_from_slice(&bytes[..room]);
            self.is_cut = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes what JSON leaves alone and a terminal or a reader would fall for: DEL, C1 controls, line separators and
/// the marks that turn the direction of text.
struct Printable<F>(F);

impl<F: Formatter> Printable<F> {
    fn is_hidden(c: char) -> bool {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
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
        // Control characters have been escaped already.
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
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
    use serde_json::Value;

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

        // A tree of many small pieces grows most when it is indented.
        let wide = format!("[{}1]", "\"abcdefgh\",".repeat(20_000));
        let deep = format!("{}1{},1]", "[".repeat(49), "]".repeat(48));
        let many = format!("[{deep}{}]", format!(",{deep}").repeat(1_000));
        for body in [wide, many] {
            for pretty_print in [false, true] {
                let line = rendered("json", body.clone(), LogConfig { pretty_print, ..LogConfig::default() });
                assert!(line.len() <= MAX_PRINTED + 1, "{}", line.len());
                let event: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(event["note"], "cut");
                assert!(event["payload"].as_str().unwrap().starts_with('['));
            }
        }
    }

    #[test]
    fn what_cannot_be_redacted_is_not_printed() {
        let huge = format!(r#"{{"token": "hunter2", "rest": "{}"}}"#, "x".repeat(MAX_READ));
        for body in [r#"{"password": "hunter2", "a": "\ud83d"}"#, r#"{"password": "hunter2", "a": 1e999}"#, &huge] {
            let line = rendered("json", body.to_owned(), LogConfig::default());
            assert!(!line.contains("hunter2") && line.contains("not printed"), "{line}");
        }
    }
}
