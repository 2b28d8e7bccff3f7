//! The connection type `http`: an origin and credentials that webhooks share without seeing them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::fields::Fields;
use super::{bounds, path, url};
use crate::config::BuildError;
use crate::egress::{Certificates, Egress, certificates};
use crate::event::DeliverError;
use crate::module::connection::{ConnectionContext, ConnectionKind};
use crate::module::forward::Forward;
use crate::module::time_limit::time_limit;

/// The target, and the header fields with credentials, of webhooks that name a connection of type `http`.
///
/// ```json
/// {"type": "http", "url": "https://crm.example.com/api", "headers": {"Authorization": "Bearer {$CRM_TOKEN}"}}
/// ```
///
/// The `url` in the `module-config` of such a webhook is a path, or missing. The path is appended to the connection's
/// `url` and cannot lead elsewhere: a path with `.` or `..`, with `%2f`, `%5c` or `%25`, or with an invalid escape is
/// refused. The connection's `headers` are sent to its `url` only. All webhooks share network connections and TLS
/// sessions, with or without such a connection; a connection with `ca` has its own.
pub struct HttpConnection {
    url: String,
    headers: BTreeMap<String, String>,
    timeout: Option<Duration>,
    ca: Option<Certificates>,
    egress: Egress,
}

/// The options of [`HttpConnection`].
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConnectionConfig {
    /// The target, like [`HttpWebhookConfig::url`](super::HttpWebhookConfig::url), but without a query.
    pub url: String,
    /// Additional header fields, like [`HttpWebhookConfig::headers`](super::HttpWebhookConfig::headers). A webhook must
    /// not set the same fields.
    #[serde(default, deserialize_with = "bounds::headers")]
    pub headers: BTreeMap<String, String>,
    /// The default `timeout` of the webhooks.
    pub timeout: Option<f64>,
    /// Certificates in PEM, of authorities or of servers, that are trusted in addition to those of the [`Egress`], even
    /// when those change.
    pub ca: Option<String>,
}

impl HttpConnection {
    /// Sends through `egress`.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`HttpConnectionConfig`], or `url` names an address that the policy of
    /// `egress` refuses.
    pub fn new(egress: &Egress, config: HttpConnectionConfig) -> Result<Self, BuildError> {
        bounds::check_url(&config.url)?;
        bounds::check_headers(&config.headers)?;
        if config.url.contains('?') {
            return Err("`url` of a connection must not have a query".into());
        }
        url::parse(&config.url, egress.policy())?;
        Fields::new(&config.headers, Forward::Nothing, false)?;
        let ca = config.ca.map(|pem| certificates(pem.as_bytes())).transpose();
        let ca = ca.map_err(|error| format!("`ca`: {error}"))?.map(Arc::from);
        let timeout = config.timeout.map(time_limit).transpose()?;
        Ok(Self { url: config.url, headers: config.headers, timeout, ca, egress: egress.clone() })
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The complete URL of a webhook whose `url` is `own`.
    pub(super) fn url(&self, own: Option<&str>) -> Result<String, BuildError> {
        let Some(own) = own else { return Ok(self.url.clone()) };
        if !own.starts_with('/') {
            return Err("`url` must be a path that begins with `/`: the connection sets the rest".into());
        }
        path::check(own.split('?').next().unwrap_or_default())?;
        Ok(format!("{}{own}", self.url.strip_suffix('/').unwrap_or(&self.url)))
    }

    /// The header fields of a webhook whose `headers` are `own`.
    pub(super) fn headers(&self, mut own: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, BuildError> {
        for (name, value) in &self.headers {
            if own.keys().any(|own| own.eq_ignore_ascii_case(name)) {
                return Err(format!("`{name}` in `headers` is set by the connection").into());
            }
            own.insert(name.clone(), value.clone());
        }
        Ok(own)
    }
}

impl ConnectionKind for HttpConnection {
    const TYPE: &'static str = "http";

    type Config = HttpConnectionConfig;

    /// The network connections that are used.
    type Client = Egress;

    /// Connects to public addresses only, over network connections of its own; in
    /// [`Registry::builtin`](crate::Registry::builtin) all share them.
    fn build(config: HttpConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    async fn connect(&self) -> Result<Egress, DeliverError> {
        Ok(match &self.ca {
            Some(ca) => self.egress.with_own(Arc::clone(ca)),
            None => self.egress.clone(),
        })
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnection").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for HttpConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnectionConfig").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(json: &str) -> Result<HttpConnection, String> {
        let config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        HttpConnection::new(&Egress::default(), config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_webhooks_path_stays_below_the_connections_path() {
        for (base, path, whole) in [
            ("https://example.com", None, "https://example.com"),
            ("https://example.com/a", None, "https://example.com/a"),
            ("https://example.com/a/", Some("/b?c=/../d%2f"), "https://example.com/a/b?c=/../d%2f"),
            ("https://example.com", Some("/"), "https://example.com/"),
            ("https://example.com/a", Some("/..b/c.d"), "https://example.com/a/..b/c.d"),
        ] {
            let connection = connection(&format!(r#"{{"url": {base:?}}}"#)).unwrap();
            assert_eq!(connection.url(path).unwrap(), whole);
        }
        let connection = connection(r#"{"url": "https://example.com/a"}"#).unwrap();
        for path in [
            "",
            "b",
            ".evil.example/",
            "@evil.example/",
            "https://evil.example/",
            "/../b",
            "/b/..",
            "/..%2f..%2fadmin/x",
            "/%2e%2e%2Fadmin?x",
            "/..%5cadmin",
            "/%252e%252e/admin",
        ] {
            assert!(connection.url(Some(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn unusable_options_are_refused() {
        for (json, words) in [
            (r#"{}"#, "url"),
            (r#"{"url": "example.com"}"#, "`url` must begin with http"),
            (r#"{"url": "http://127.0.0.1/"}"#, "`url` names"),
            (r#"{"url": "http://example.com/?a=b"}"#, "must not have a query"),
            (r#"{"url": "http://example.com/", "headers": {"Host": "x"}}"#, "`headers` has a name that"),
            (r#"{"url": "http://example.com/", "timeout": 0}"#, "`timeout` must be more than 0"),
            (r#"{"url": "http://example.com/", "ca": "x"}"#, "`ca`: "),
        ] {
            let error = connection(json).err().unwrap();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn a_webhook_must_not_set_a_header_of_the_connection() {
        let connection =
            connection(r#"{"url": "http://example.com/", "headers": {"Authorization": "s3cret"}}"#).unwrap();
        let own = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        assert_eq!(connection.headers(own("X-A")).unwrap().len(), 2);
        let error = connection.headers(own("authorization")).unwrap_err().to_string();
        assert_eq!(error, "`Authorization` in `headers` is set by the connection");
    }
}
