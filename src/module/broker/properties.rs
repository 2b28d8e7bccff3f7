//! The data that an event carries beside its body: its id, its origin, and received header fields.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::base::rfc3339;
use crate::config::BuildError;
use crate::event::{Delivery, EventId};
use crate::module::forward::Forward;
use crate::module::trace::{TRACEPARENT, TRACESTATE, parent};

/// The names of an event's fields in the headers of a broker's message.
pub(crate) const EVENT_ID: &str = "X-Event-Id";
pub(crate) const NAMESPACE: &str = "X-Namespace";
pub(crate) const WEBHOOK: &str = "X-Webhook";
pub(crate) const RECEIVED_AT: &str = "X-Received-At";
pub(crate) const CONTENT_TYPE: &str = "Content-Type";
pub(crate) const CONTENT_ENCODING: &str = "Content-Encoding";

/// The names in this order.
const NAMES: [&str; 6] = [EVENT_ID, NAMESPACE, WEBHOOK, RECEIVED_AT, CONTENT_TYPE, CONTENT_ENCODING];

/// Received fields of these names are not sent on: the event's own replace them.
const OWN_FIELDS: [HeaderName; 8] = [
    HeaderName::from_static("x-event-id"),
    HeaderName::from_static("x-namespace"),
    HeaderName::from_static("x-webhook"),
    HeaderName::from_static("x-received-at"),
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    TRACEPARENT,
    TRACESTATE,
];

/// The most names in `allowed_headers`.
const MAX_NAMES: usize = 100;

/// The longest name in `allowed_headers`, in bytes.
const MAX_NAME: usize = 256;

/// The rule of the options `forward_headers` and `allowed_headers`: at most 100 names, each of at most 256 bytes. They mean
/// the same as for `http_webhook`.
///
/// # Errors
///
/// When a name cannot be sent on, or the options contradict each other.
pub(crate) fn forward(forward_headers: bool, allowed_headers: Option<&[String]>) -> Result<Forward, BuildError> {
    let names = allowed_headers.unwrap_or_default();
    if names.len() > MAX_NAMES {
        return Err(format!("expected at most {MAX_NAMES} names in `allowed_headers`, found {}", names.len()).into());
    }
    if names.iter().any(|name| name.len() > MAX_NAME) {
        return Err(format!("expected at most {MAX_NAME} bytes in each name of `allowed_headers`").into());
    }
    Forward::new(forward_headers, allowed_headers, &OWN_FIELDS)
}

/// The properties of one event.
#[derive(Debug)]
pub(crate) struct Properties<'a> {
    id: [u8; EventId::LENGTH],
    pub(crate) namespace: &'a str,
    pub(crate) webhook: &'a str,
    /// RFC 3339, UTC, milliseconds.
    pub(crate) received_at: String,
    /// As received. If there are several, the first.
    pub(crate) content_type: Option<&'a [u8]>,
    /// As received; several in one list.
    pub(crate) content_encoding: Option<Cow<'a, [u8]>>,
    /// As received, if there is exactly one and it is valid.
    pub(crate) traceparent: Option<&'a [u8]>,
    /// As received, beside a valid `traceparent`; several in one list.
    pub(crate) tracestate: Option<Cow<'a, [u8]>>,
    /// The received fields that are sent on, without those above. Their names are in lower case.
    pub(crate) forwarded: Vec<(&'a HeaderName, &'a HeaderValue)>,
}

/// Whether the received field `name` is among the properties of an event, or decides which are.
pub(crate) fn uses(forward: &Forward, name: &HeaderName) -> bool {
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, TRACEPARENT, TRACESTATE].contains(name)
        || (!OWN_FIELDS.contains(name) && forward.uses(name))
}

impl<'a> Properties<'a> {
    pub(crate) fn of(delivery: &'a Delivery, forward: &Forward) -> Self {
        let received = delivery.headers();
        let traceparent = parent(received);
        let mut id = [0; EventId::LENGTH];
        delivery.id().encode(&mut id);
        Self {
            id,
            namespace: delivery.webhook().namespace(),
            webhook: delivery.webhook().id(),
            received_at: rfc3339::format(delivery.received_at()),
            content_type: received.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes),
            content_encoding: list(received, &header::CONTENT_ENCODING),
            traceparent: traceparent.map(HeaderValue::as_bytes),
            tracestate: traceparent.and_then(|_| list(received, &TRACESTATE)),
            forwarded: forward.of(received, |name| OWN_FIELDS.contains(name)).collect(),
        }
    }

    /// The event's id.
    pub(crate) fn id(&self) -> &str {
        // It was text, so this does not fail.
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Calls `add` with the name and value of each property and each forwarded field, for brokers whose messages have
    /// headers. A name may occur several times, without others in between. Values may have any byte that HTTP allows.
    pub(crate) fn each<'s>(&'s self, add: impl FnMut(&'s str, &'s [u8])) {
        self.each_as(NAMES, add);
    }

    /// The same with all names in lower case.
    pub(crate) fn each_in_lower_case<'s>(&'s self, add: impl FnMut(&'s str, &'s [u8])) {
        let names = ["x-event-id", "x-namespace", "x-webhook", "x-received-at", "content-type", "content-encoding"];
        self.each_as(names, add);
    }

    /// The same as `each`, without the forwarded fields; each name occurs once.
    pub(crate) fn each_own<'s>(&'s self, mut add: impl FnMut(&'s str, &'s [u8])) {
        self.own_as(NAMES, &mut add);
    }

    fn each_as<'s>(&'s self, names: [&'static str; 6], mut add: impl FnMut(&'s str, &'s [u8])) {
        self.own_as(names, &mut add);
        for (name, value) in &self.forwarded {
            add(name.as_str(), value.as_bytes());
        }
    }

    fn own_as<'s>(&'s self, names: [&'static str; 6], add: &mut impl FnMut(&'s str, &'s [u8])) {
        let [event_id, namespace, webhook, received_at, content_type, content_encoding] = names;
        add(event_id, &self.id);
        add(namespace, self.namespace.as_bytes());
        add(webhook, self.webhook.as_bytes());
        add(received_at, self.received_at.as_bytes());
        for (name, value) in [
            (content_type, self.content_type),
            (content_encoding, self.content_encoding.as_deref()),
            ("traceparent", self.traceparent),
            ("tracestate", self.tracestate.as_deref()),
        ] {
            if let Some(value) = value {
                add(name, value);
            }
        }
    }
}

/// The text of a header field's value: UTF-8, or else ISO 8859-1, which RFC 9110 §5.5 names as the old encoding.
pub(crate) fn text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.iter().copied().map(char::from).collect()),
    }
}

/// The values of a field, joined by commas (RFC 9110 §5.3).
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next()?;
    Some(values.fold(Cow::Borrowed(first), |joined, value| [&joined, &b", "[..], value].concat().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// The names and values for an event with these header fields, without those that every event has.
    fn properties(headers: &[(&'static str, &str)], forward: &Forward) -> Vec<String> {
        let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
        let headers = headers.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let delivery = Delivery::new(info, headers.collect(), "{}");
        let mut found = Vec::new();
        let properties = Properties::of(&delivery, forward);
        properties.each(|name, value| found.push(format!("{name}: {}", text(value))));
        let own = found.drain(..4).collect::<Vec<_>>();
        let id = delivery.id();
        assert_eq!(own[..3], [format!("X-Event-Id: {id}"), "X-Namespace: shop".into(), "X-Webhook: orders".into()]);
        let at = own[3].strip_prefix("X-Received-At: ").unwrap();
        let at = rfc3339::parse(at.as_bytes()).unwrap();
        assert!(delivery.received_at().duration_since(at).unwrap().as_millis() < 1);
        found
    }

    #[test]
    fn the_description_of_the_body_and_the_trace_go_along() {
        let found = properties(
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
                ("content-encoding", "br"),
                ("traceparent", PARENT),
                ("tracestate", "a=1"),
                ("tracestate", "b=2"),
                ("x-github-event", "push"),
            ],
            &forward(false, None).unwrap(),
        );
        let trace = format!("traceparent: {PARENT}");
        let expected = ["Content-Type: application/json", "Content-Encoding: gzip, br", &trace, "tracestate: a=1, b=2"];
        assert_eq!(found, expected);
        let none = forward(false, None).unwrap();
        assert!(properties(&[("traceparent", "00-0-0-00"), ("tracestate", "a=1")], &none).is_empty());
    }

    #[test]
    fn names_in_lower_case_are_the_same_names() {
        let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
        let headers =
            [("content-type", "text/plain"), ("content-encoding", "br"), ("traceparent", PARENT), ("x-a", "1")];
        let headers = headers.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let delivery = Delivery::new(info, headers.into_iter().collect(), "{}");
        let forward = forward(true, None).unwrap();
        let properties = Properties::of(&delivery, &forward);
        let (mut names, mut lower) = (Vec::new(), Vec::new());
        properties.each(|name, value| names.push((name.to_ascii_lowercase(), value.to_vec())));
        properties.each_in_lower_case(|name, value| lower.push((name.to_owned(), value.to_vec())));
        assert_eq!(names, lower);
        assert_eq!((names.len(), properties.id()), (8, &*delivery.id().to_string()));
    }

    #[test]
    fn received_fields_go_along_as_the_options_say() {
        let received = [
            ("x-github-event", "push"),
            ("x-tag", "1"),
            ("x-tag", "\u{fc}"),
            ("authorization", "s3cret"),
            ("cookie", "s3cret"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("host", "a.example"),
            ("content-length", "2"),
            ("x-event-id", "forged"),
            ("x-namespace", "forged"),
            ("x-webhook", "forged"),
            ("x-received-at", "forged"),
        ];
        let all = properties(&received, &forward(true, None).unwrap());
        assert_eq!(all, ["x-github-event: push", "x-tag: 1", "x-tag: \u{fc}"]);
        let names = ["Authorization".to_owned(), "X-Tag".to_owned(), "X-Hop".to_owned()];
        let some = properties(&received, &forward(true, Some(&names)).unwrap());
        assert_eq!(some, ["x-tag: 1", "x-tag: \u{fc}", "authorization: s3cret"]);
        for (name, expected) in [
            ("Host", "belongs to the connection"),
            ("x-event-id", "this module always sets itself"),
            ("a b", "no field can have"),
        ] {
            let error = forward(true, Some(&[name.to_owned()])).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(forward(false, Some(&[])).is_err());
        assert!(forward(true, Some(&vec!["a".to_owned(); 101])).is_err());
        assert!(forward(true, Some(&["a".repeat(257)])).is_err());
    }

    #[test]
    fn a_value_that_is_not_utf8_is_read_as_latin_1() {
        assert_eq!(text(b"caf\xc3\xa9"), "caf\u{e9}");
        assert_eq!(text(b"caf\xe9"), "caf\u{e9}");
    }
}
