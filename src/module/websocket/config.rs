//! The options of `websocket`, and of a connection of type `websocket`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::Uri;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::base::host::is_name;
use crate::config::BuildError;
use crate::egress::{EgressPolicy, TlsOptions, check_host, literal};
use crate::module::broker::{forward, limit};
use crate::module::forward::{Forward, name_of};

/// The default and the largest value of `max_retries`.
const TRIES: u32 = 3;
const MOST_TRIES: u32 = 10;

/// The longest `url`, in bytes.
const MAX_URL: usize = 8 << 10;

/// The most names in each of `headers` and `allowed_hosts`, and the most bytes in all of `headers`.
const MAX_NAMES: usize = 100;
const MAX_HEADERS: usize = 64 << 10;

/// The fields of a handshake (RFC 6455 §4.1) that belong to the client.
const OWN_FIELDS: [HeaderName; 4] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_ACCEPT,
];

/// The options of [`WebSocket`](super::WebSocket).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketConfig {
    /// The target: `ws://` or, with TLS, `wss://`, without user, password and fragment. Required, unless the webhook names
    /// a connection.
    pub url: Option<String>,
    /// Additional header fields of the handshake, with `url`: at most 100, 64 KiB in all.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The allowed hosts of `url`, at most 100. This does not allow an address that is otherwise refused.
    pub allowed_hosts: Option<Vec<String>>,
    /// The message: `json` by default, an object with the body as its `payload`; or `raw`, the body alone.
    #[serde(default)]
    pub format: WebSocketFormat,
    /// Whether the object has `headers`: the event's own, and the received ones. Off by default.
    #[serde(default)]
    pub include_headers: bool,
    /// With `include_headers`: the only received header fields, at most 100. By default all except credentials.
    pub allowed_headers: Option<Vec<String>>,
    /// Whether an event is delivered only once the target has answered with a message. Off by default.
    #[serde(default)]
    pub wait_for_response: bool,
    /// The time limit for an attempt, in seconds: more than 0, at most 300. The default is 10.
    pub timeout: Option<f64>,
    /// How often an attempt tries to send the event while there is no connection, at most 10 times. The default is 3.
    pub max_retries: Option<u32>,
}

/// The content of a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WebSocketFormat {
    /// `{"payload": …}`, as a text message.
    #[default]
    Json,
    /// The body, byte for byte: a binary message for a blob, and a text message otherwise.
    Raw,
}

impl WebSocketConfig {
    /// The options of the webhook's own connection; `None` if there is no `url`.
    pub(super) fn connection(&self) -> Result<Option<WebSocketConnectionConfig>, BuildError> {
        let Some(url) = &self.url else {
            return match self.headers.is_empty() && self.allowed_hosts.is_none() {
                true => Ok(None),
                false => Err("`headers` and `allowed_hosts` need `url`: a connection has its own".into()),
            };
        };
        if let Some(hosts) = &self.allowed_hosts {
            check_allowed(url, hosts)?;
        }
        Ok(Some(WebSocketConnectionConfig { url: url.clone(), headers: self.headers.clone(), tls: None }))
    }

    pub(super) fn forward(&self) -> Result<Forward, BuildError> {
        if self.include_headers && self.format == WebSocketFormat::Raw {
            return Err("`include_headers` needs `\"format\": \"json\"`: a raw message is the body alone".into());
        }
        match (self.include_headers, &self.allowed_headers) {
            (false, Some(_)) => Err("`allowed_headers` requires `include_headers`".into()),
            (include, names) => forward(include, names.as_deref()),
        }
    }

    pub(super) fn limit(&self) -> Result<Duration, BuildError> {
        limit(self.timeout)
    }

    pub(super) fn tries(&self) -> Result<u32, BuildError> {
        match self.max_retries.unwrap_or(TRIES) {
            tries @ 1..=MOST_TRIES => Ok(tries),
            _ => Err(format!("`max_retries` must be from 1 to {MOST_TRIES}").into()),
        }
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for WebSocketConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConfig").field("format", &self.format).finish_non_exhaustive()
    }
}

/// The options of [`WebSocketConnection`](super::WebSocketConnection).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketConnectionConfig {
    /// The target: `ws://` or, with TLS, `wss://`, without user, password and fragment. Required.
    pub url: String,
    /// Additional header fields of the handshake: at most 100, 64 KiB in all.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// TLS for `wss://`: an object with `ca`, `client_cert`, `client_key` (all PEM) and `server_name`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
}

/// A target, checked.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) uri: Uri,
    /// Without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) headers: HeaderMap,
    /// With TLS.
    pub(super) tls: Option<TlsOptions>,
}

impl WebSocketConnectionConfig {
    pub(super) fn read(self, policy: &EgressPolicy) -> Result<Target, BuildError> {
        let (uri, is_tls) = parse(&self.url)?;
        let host = uri.host().unwrap_or_default();
        check_host(host, policy).map_err(|error| format!("`url` {error}"))?;
        if self.tls.is_some() && !is_tls {
            return Err("`tls` needs a `url` that begins with `wss://`".into());
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = literal(host).map_or_else(|| host.to_ascii_lowercase(), |address| address.to_string());
        let tls = is_tls.then(|| self.tls.unwrap_or_default());
        Ok(Target { uri, host: host.into(), port, headers: fields(&self.headers)?, tls })
    }
}

/// Parses a URL, and says whether it asks for TLS. It is not quoted, because it may hold a token.
fn parse(text: &str) -> Result<(Uri, bool), BuildError> {
    if text.len() > MAX_URL {
        return Err(format!("expected at most {MAX_URL} bytes in `url`").into());
    }
    // `Uri` would silently drop a fragment.
    if text.contains('#') || !text.is_ascii() {
        return Err("`url` must be ASCII without a fragment".into());
    }
    let uri: Uri = text.parse().map_err(|_| "`url` is not a URL")?;
    let is_tls = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err("`url` must begin with ws:// or wss://".into()),
    };
    let authority = uri.authority().ok_or("`url` has no host")?;
    if authority.as_str().contains('@') {
        return Err("`url` must not contain a user or password; put credentials into `headers`".into());
    }
    let port = authority.as_str().get(authority.host().len()..).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("`url` has an invalid port".into());
    }
    Ok((uri, is_tls))
}

fn check_allowed(url: &str, hosts: &[String]) -> Result<(), BuildError> {
    if hosts.len() > MAX_NAMES {
        return Err(format!("expected at most {MAX_NAMES} names in `allowed_hosts`").into());
    }
    let plain = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if hosts.iter().any(|host| literal(host).is_none() && !is_name(host)) {
        return Err("`allowed_hosts` must contain host names, without scheme and port".into());
    }
    let host = plain(parse(url)?.0.host().unwrap_or_default());
    match hosts.iter().any(|allowed| plain(allowed) == host) {
        true => Ok(()),
        false => Err("`url` names a host that is not one of `allowed_hosts`".into()),
    }
}

fn fields(configured: &BTreeMap<String, String>) -> Result<HeaderMap, BuildError> {
    let bytes: usize = configured.iter().map(|(name, value)| name.len() + value.len()).sum();
    if configured.len() > MAX_NAMES || bytes > MAX_HEADERS {
        return Err(format!("expected at most {MAX_NAMES} `headers`, and {MAX_HEADERS} bytes in all of them").into());
    }
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        let name = name_of(name, &OWN_FIELDS).map_err(|error| format!("`headers` has a name that {error}"))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of `{name}` in `headers` is not a valid header value"))?;
        // It may be a credential.
        value.set_sensitive(true);
        if headers.insert(&name, value).is_some() {
            return Err(format!("duplicate header `{name}` in `headers`").into());
        }
    }
    Ok(headers)
}

/// Omits everything that may hold a secret.
impl fmt::Debug for WebSocketConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConnectionConfig").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(json: &str) -> Result<Target, String> {
        let config: WebSocketConnectionConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert!(!format!("{config:?}").contains("s3cret"));
        config.read(&"127.0.0.0/8".parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_leads_to_a_host_and_a_port() {
        for (url, host, port, is_tls) in [
            ("ws://A.example/x?token=s3cret", "a.example", 80, false),
            ("wss://a.example", "a.example", 443, true),
            ("ws://127.0.0.1:9000/", "127.0.0.1", 9000, false),
            ("wss://[2600::1]:9000/", "2600::1", 9000, true),
        ] {
            let target =
                target(&serde_json::json!({"url": url, "headers": {"Authorization": "s3cret"}}).to_string()).unwrap();
            assert_eq!((&*target.host, target.port, target.tls.is_some()), (host, port, is_tls), "{url}");
            assert!(target.headers[header::AUTHORIZATION].is_sensitive());
        }
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused_and_not_quoted() {
        for (json, words) in [
            ("{}", "missing field `url`"),
            (r#"{"url": "http://s3cret"}"#, "must begin with ws://"),
            (r#"{"url": "ws://u:s3cret@a"}"#, "user or password"),
            (r#"{"url": "ws://a/#s3cret"}"#, "without a fragment"),
            (r#"{"url": "ws://a:0/s3cret"}"#, "invalid port"),
            (r#"{"url": "ws://10.0.0.1/s3cret"}"#, "names a private address"),
            (r#"{"url": "ws://127.1/s3cret"}"#, "must name a host"),
            (r#"{"url": "ws://a", "tls": true}"#, "`tls` needs"),
            (r#"{"url": "ws://a", "headers": {"Host": "s3cret"}}"#, "belongs to the connection"),
            (r#"{"url": "ws://a", "headers": {"Sec-WebSocket-Key": "s3cret"}}"#, "always sets itself"),
            (r#"{"url": "ws://a", "headers": {"x": "s3cret\n"}}"#, "not a valid header value"),
            (r#"{"url": "ws://a", "user": "s3cret"}"#, "unknown field"),
        ] {
            let error = target(json).err().unwrap_or_else(|| panic!("{json} is accepted"));
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let check = |json: &str| {
            let config: WebSocketConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
            let checked = config.connection().and_then(|_| config.forward()).and_then(|_| config.limit());
            checked.and_then(|_| config.tries()).map_err(|error| error.to_string())
        };
        let old = r#"{"url": "ws://localhost:8080/webhooks", "format": "json", "include_headers": true, "headers": {"X-A": "1"},
                      "timeout": 10, "max_retries": 3, "wait_for_response": false, "allowed_hosts": ["localhost"]}"#;
        assert_eq!(check(old), Ok(3));
        for (json, words) in [
            (r#"{"headers": {"a": "b"}}"#, "need `url`"),
            (r#"{"url": "ws://a", "allowed_hosts": ["b"]}"#, "not one of `allowed_hosts`"),
            (r#"{"url": "ws://a", "allowed_hosts": ["ws://a"]}"#, "must contain host names"),
            (r#"{"url": "ws://a", "format": "raw", "include_headers": true}"#, "needs `\"format\": \"json\"`"),
            (r#"{"url": "ws://a", "allowed_headers": []}"#, "requires `include_headers`"),
            (r#"{"url": "ws://a", "timeout": 301}"#, "`timeout`"),
            (r#"{"url": "ws://a", "max_retries": 0}"#, "`max_retries`"),
        ] {
            let error = check(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
