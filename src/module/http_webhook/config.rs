//! The options of `http_webhook`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{self, MAX_NAMES, at_most, check_headers, check_names, check_url};
use crate::config::BuildError;

/// The longest `timeout`, in seconds.
const LONGEST_TIMEOUT: f64 = 300.0;

/// The options of [`HttpWebhook`](super::HttpWebhook).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpWebhookConfig {
    /// Where to send to: `http` or `https`, without user, password and fragment, of at most 8 KiB. An address in place of
    /// a name must be in its usual form (`127.0.0.1`, `[::1]`; not `127.1`). Required, unless the webhook names a
    /// connection: see [`HttpConnection`](super::HttpConnection).
    pub url: Option<String>,
    /// `POST` if not given.
    #[serde(default)]
    pub method: HttpMethod,
    /// Further header fields: at most 100, a name of at most 256 bytes, a value of at most 8 KiB, 64 KiB in all. Those of
    /// the connection, `host`, `content-length` and what this module sets itself are refused.
    #[serde(default, deserialize_with = "bounds::headers")]
    pub headers: BTreeMap<String, String>,
    /// Whether received header fields are sent on; not if not given.
    #[serde(default)]
    pub forward_headers: bool,
    /// With `forward_headers`: only these are, and none if the list is empty; at most 100. Credentials must be named here.
    pub allowed_headers: Option<Vec<String>>,
    /// The host of `url` must be one of these, at most 100. It lifts no refusal of an address.
    pub allowed_hosts: Option<Vec<String>>,
    /// For a whole attempt, from the lookup of the name to the head of the answer: seconds, more than 0 and at most 300;
    /// what the connection says, or 30, if not given.
    pub timeout: Option<f64>,
    /// Signs each request: 24 to 64 bytes in base64, with or without `whsec_` before it.
    pub signing_secret: Option<String>,
}

/// How an event is sent.
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

/// The time that a `timeout` means.
pub(super) fn limit(seconds: f64) -> Result<Duration, BuildError> {
    // It may be NaN, from the environment.
    match seconds > 0.0 && seconds <= LONGEST_TIMEOUT {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("`timeout` must be more than 0 and at most 300 seconds".into()),
    }
}
