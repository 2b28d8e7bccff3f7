//! The options of `http_webhook`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bounds::{self, MAX_NAMES, at_most, check_headers, check_names, check_url};
use crate::config::BuildError;

/// The options of [`HttpWebhook`](super::HttpWebhook).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpWebhookConfig {
    /// The target: `http` or `https`, without user, password and fragment, at most 8 KiB. An IP address must be in its
    /// usual form (`127.0.0.1`, `[::1]`; not `127.1`). Required, unless the webhook names a connection: see
    /// [`HttpConnection`](super::HttpConnection).
    pub url: Option<String>,
    /// The method; `POST` by default.
    #[serde(default)]
    pub method: HttpMethod,
    /// Additional header fields: at most 100, with names of at most 256 bytes and values of at most 8 KiB, 64 KiB in
    /// all. Connection fields, `host`, `content-length` and the fields that this module sets itself are refused.
    #[serde(default, deserialize_with = "bounds::headers")]
    pub headers: BTreeMap<String, String>,
    /// Whether received header fields are forwarded. Off by default.
    #[serde(default)]
    pub forward_headers: bool,
    /// The only received header fields that `forward_headers` forwards, at most 100; with an empty list none is.
    /// Credentials are forwarded only if they are named here.
    pub allowed_headers: Option<Vec<String>>,
    /// The allowed hosts of `url`, at most 100. This does not allow an address that is otherwise refused.
    pub allowed_hosts: Option<Vec<String>>,
    /// The time limit for a whole attempt, from the name lookup to the head of the answer, in seconds: more than 0, at
    /// most 300. The default is the connection's `timeout`, or 30.
    pub timeout: Option<f64>,
    /// The key to sign each request with: 24 to 64 bytes in base64, optionally preceded by `whsec_`.
    pub signing_secret: Option<String>,
}

/// The method by which an event is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum HttpMethod {
    /// `POST`.
    #[default]
    #[serde(rename = "POST", alias = "post")]
    Post,
    /// `PUT`.
    #[serde(rename = "PUT", alias = "put")]
    Put,
    /// `PATCH`.
    #[serde(rename = "PATCH", alias = "patch")]
    Patch,
}

impl HttpWebhookConfig {
    /// Refuses options that are too long or too many. No error quotes them.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        check_url(self.url.as_deref().unwrap_or_default())?;
        check_headers(&self.headers)?;
        for (option, names) in [("allowed_headers", &self.allowed_headers), ("allowed_hosts", &self.allowed_hosts)] {
            let names = names.as_deref().unwrap_or_default();
            at_most(MAX_NAMES, format_args!("names in `{option}`"), names.len())?;
            check_names(option, names.iter())?;
        }
        Ok(())
    }
}
