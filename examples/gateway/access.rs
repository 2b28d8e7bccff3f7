//! The access log: one line on stderr for each request, once its answer has been sent or its connection has ended.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use jiff::Timestamp;
use serde_json::json;
use tower_webhook::event::EVENT_ID;
use tower_webhook::request::Peer;

use crate::routes::WEBHOOKS;
use crate::stderr::Stderr;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A JSON object.
    Json,
    /// The common log format of Apache.
    Common,
}

/// The status of a request whose connection or stream ended before the answer. nginx uses the same.
const GONE: u16 = 499;

/// Writes the lines. Without a form it costs nothing.
#[derive(Clone)]
pub(crate) struct AccessLog(Option<Lines>);

#[derive(Clone)]
struct Lines {
    form: Form,
    stderr: Stderr,
    namespace: Box<str>,
}

/// A request that is being answered. Its line is written when this is dropped.
pub(crate) struct Entry {
    lines: Lines,
    facts: Facts,
    started: Instant,
}

/// The parts of a line. No value of a query and no header is among them, since both may hold secrets.
struct Facts {
    at: SystemTime,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    method: Method,
    path: Box<str>,
    version: Version,
    status: u16,
    bytes: u64,
    took: Duration,
    event_id: Option<HeaderValue>,
    webhook: Option<Box<str>>,
}

impl AccessLog {
    /// `namespace` is that of `/webhook/{id}`.
    pub(crate) fn new(form: Option<Form>, stderr: Stderr, namespace: &str) -> Self {
        Self(form.map(|form| Lines { form, stderr, namespace: namespace.into() }))
    }

    /// `None` if there is no access log. `client` finds the client behind proxies.
    pub(crate) fn begin<B>(
        &self,
        req: &Request<B>,
        client: impl FnOnce(&Peer, &HeaderMap) -> Option<IpAddr>,
    ) -> Option<Box<Entry>> {
        let lines = self.0.clone()?;
        let peer = Peer::of(req.extensions());
        let path = req.uri().path();
        let facts = Facts {
            at: SystemTime::now(),
            peer: peer.map(Peer::address),
            client: peer.and_then(|peer| client(peer, req.headers())),
            method: req.method().clone(),
            webhook: webhook(path, &lines.namespace),
            path: path.into(),
            version: req.version(),
            status: GONE,
            bytes: 0,
            took: Duration::ZERO,
            event_id: None,
        };
        Some(Box::new(Entry { lines, facts, started: Instant::now() }))
    }
}

impl Entry {
    /// The answer that is sent.
    pub(crate) fn answered<B>(&mut self, answer: &Response<B>) {
        self.facts.status = answer.status().as_u16();
        self.facts.event_id = answer.headers().get(EVENT_ID).cloned();
        if answer.status() == StatusCode::NOT_FOUND {
            self.facts.webhook = None;
        }
    }

    /// So many more bytes of the answer's body were handed to the connection.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.facts.bytes += bytes as u64;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.facts.took = self.started.elapsed();
        let line = match self.lines.form {
            Form::Json => as_json(&self.facts),
            Form::Common => as_common(&self.facts),
        };
        self.lines.stderr.line(&line);
    }
}

/// The webhook that a path names, whether it is configured or not.
fn webhook(path: &str, namespace: &str) -> Option<Box<str>> {
    let name = path.strip_prefix(WEBHOOKS)?;
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] if !id.is_empty() => Some(format!("{namespace}/{id}").into()),
        [namespace, id] if !namespace.is_empty() && !id.is_empty() => Some(format!("{namespace}/{id}").into()),
        _ => None,
    }
}

fn as_json(facts: &Facts) -> String {
    let line = json!({
        "access": {
            "time": stamp(facts.at, "%Y-%m-%dT%H:%M:%S.%3fZ"),
            "peer": facts.peer.map(|peer| peer.to_string()),
            "client": facts.client.map(|client| client.to_string()),
            "method": facts.method.as_str(),
            "path": facts.path,
            "protocol": format!("{:?}", facts.version),
            "status": facts.status,
            "bytes": facts.bytes,
            "seconds": facts.took.as_secs_f64(),
            "event_id": facts.event_id.as_ref().and_then(|id| id.to_str().ok()),
            "webhook": facts.webhook,
        }
    });
    line.to_string()
}

/// `host ident authuser [date] "request" status bytes`: <https://httpd.apache.org/docs/2.4/logs.html#common>.
fn as_common(facts: &Facts) -> String {
    let host = facts.client.or(facts.peer.map(|peer| peer.ip())).map_or("-".to_owned(), |host| host.to_string());
    let at = stamp(facts.at, "%d/%b/%Y:%H:%M:%S +0000");
    let mut request = String::new();
    escape(facts.method.as_str(), &mut request);
    request.push(' ');
    escape(&facts.path, &mut request);
    let bytes = if facts.bytes == 0 { "-".to_owned() } else { facts.bytes.to_string() };
    format!("{host} - - [{at}] \"{request} {:?}\" {} {bytes}", facts.version, facts.status)
}

fn stamp(at: SystemTime, form: &str) -> String {
    Timestamp::try_from(at).map_or_else(|_| "-".to_owned(), |at| at.strftime(form).to_string())
}

/// Escapes as Apache does, so that no request can end the text or the line.
fn escape(text: &str, line: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => line.extend(['\\', char::from(byte)]),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => _ = write!(line, "\\x{byte:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_410_874_250),
            peer: Some("10.0.0.9:4711".parse().unwrap()),
            client: None,
            method: Method::POST,
            path: "/webhook/a\"b\\c\u{e9}".into(),
            version: Version::HTTP_11,
            status: 202,
            bytes: 0,
            took: Duration::from_millis(1500),
            event_id: Some(HeaderValue::from_static("an-id")),
            webhook: Some("default/a".into()),
        }
    }

    #[test]
    fn a_common_line_has_the_form_of_apache() {
        let line = as_common(&facts());
        assert_eq!(line, r#"10.0.0.9 - - [23/Nov/2026:05:14:34 +0000] "POST /webhook/a\"b\\c\xc3\xa9 HTTP/1.1" 202 -"#);
        let client = Some("192.0.2.7".parse().unwrap());
        let line = as_common(&Facts { client, bytes: 17, ..facts() });
        assert!(line.starts_with("192.0.2.7 - - [") && line.ends_with("\" 202 17"), "{line}");
    }

    #[test]
    fn a_json_line_has_every_fact() {
        let line: serde_json::Value = serde_json::from_str(&as_json(&facts())).unwrap();
        let expected = json!({"access": {
            "time": "2026-11-23T05:14:34.250Z", "peer": "10.0.0.9:4711", "client": null, "method": "POST",
            "path": "/webhook/a\"b\\c\u{e9}", "protocol": "HTTP/1.1", "status": 202, "bytes": 0, "seconds": 1.5,
            "event_id": "an-id", "webhook": "default/a",
        }});
        assert_eq!(line, expected);
    }

    #[test]
    fn a_path_names_a_webhook() {
        let found = |path| webhook(path, "default").map(String::from);
        assert_eq!(found("/webhook/a").as_deref(), Some("default/a"));
        assert_eq!(found("/webhook/shop/a").as_deref(), Some("shop/a"));
        for path in ["/health", "/webhook/", "/webhook/a/", "/webhook//a", "/webhook/a/b/c"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
