//! Removes or masks credentials in delivered events: the key `credential_cleanup`.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::base::secret_names::{REDACTED, sounds_secret};
use crate::config::DataType;
use crate::event::{DeliverError, DeliverErrorKind, Delivery};
use crate::form;
use crate::json::secrets as json;

/// The largest body that is cleaned on the async thread, in bytes. A larger one would block other tasks.
const MAX_INLINE: usize = 64 << 10;

/// The largest number of names in `fields`. Each name in a body is compared with all of them.
const MAX_FIELDS: usize = 100;

/// The longest name in `fields`, in bytes.
const MAX_FIELD: usize = 256;

/// Removes credentials from events before they are delivered.
#[derive(Debug, Deserialize)]
#[serde(try_from = "CleanupConfig")]
pub(crate) struct Cleanup {
    is_enabled: bool,
    mode: Mode,
    /// Additional names of secret fields, in lower case.
    fields: Box<[String]>,
}

/// The treatment of a field whose name sounds secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Mask,
    Remove,
}

impl Cleanup {
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether header fields of this name are masked or removed, whatever their value.
    #[cfg(feature = "admin")]
    pub(crate) fn cleans(&self, name: &HeaderName) -> bool {
        self.is_secret(name.as_str())
    }

    /// Returns the event without the header fields, and in JSON or a form without the fields of the body, whose names sound
    /// secret.
    pub(crate) async fn clean(self: &Arc<Self>, delivery: Delivery) -> Result<Delivery, DeliverError> {
        if delivery.body().len() <= MAX_INLINE || delivery.webhook().data_type() == DataType::Blob {
            return self.clean_now(delivery);
        }
        let cleanup = Arc::clone(self);
        let cleaned = tokio::task::spawn_blocking(move || cleanup.clean_now(delivery)).await;
        cleaned.unwrap_or_else(|_| Err(cannot_clean()))
    }

    fn clean_now(&self, delivery: Delivery) -> Result<Delivery, DeliverError> {
        let mut headers = delivery.headers().clone();
        self.clean_headers(&mut headers);
        let body = match delivery.webhook().data_type() {
            DataType::Json => self.clean_json(delivery.body())?,
            DataType::Form => self.clean_form(delivery.body())?,
            DataType::Blob => None,
        };
        if let (Some(body), true) = (&body, headers.contains_key(CONTENT_LENGTH)) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let body = body.unwrap_or_else(|| delivery.body().clone());
        Ok(delivery.with(headers, body))
    }

    fn clean_headers(&self, headers: &mut HeaderMap) {
        match self.mode {
            Mode::Mask => {
                let secret = headers.iter_mut().filter(|(name, _)| self.is_secret(name.as_str()));
                secret.for_each(|(_, value)| *value = HeaderValue::from_static(REDACTED));
            }
            Mode::Remove => {
                let secret: Vec<HeaderName> =
                    headers.keys().filter(|name| self.is_secret(name.as_str())).cloned().collect();
                for name in secret {
                    headers.remove(name);
                }
            }
        }
    }

    /// The cleaned body; `None` if nothing changes.
    fn clean_json(&self, body: &[u8]) -> Result<Option<Bytes>, DeliverError> {
        let cleaned = json::clean(body, self.mask(), &|name| self.is_secret(name));
        cleaned.map(|text| text.map(Bytes::from)).map_err(|_| cannot_clean())
    }

    /// `None` if nothing is to be changed.
    fn clean_form(&self, body: &[u8]) -> Result<Option<Bytes>, DeliverError> {
        let cleaned = form::clean(body, self.mask(), &|name| self.is_secret(name));
        cleaned.map(|form| form.map(Bytes::from)).map_err(|_| cannot_clean())
    }

    fn mask(&self) -> Option<&'static str> {
        (self.mode == Mode::Mask).then_some(REDACTED)
    }

    fn is_secret(&self, name: &str) -> bool {
        sounds_secret(name) || (!self.fields.is_empty() && self.fields.contains(&name.to_lowercase()))
    }
}

/// Fails closed: an event that cannot be cleaned is not delivered.
fn cannot_clean() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Permanent, "the payload cannot be cleaned of credentials")
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
struct CleanupConfig {
    enabled: bool,
    mode: Mode,
    fields: Vec<String>,
}

impl Default for CleanupConfig {
    fn default() -> Self {
        Self { enabled: true, mode: Mode::default(), fields: Vec::new() }
    }
}

impl TryFrom<CleanupConfig> for Cleanup {
    type Error = String;

    fn try_from(config: CleanupConfig) -> Result<Self, String> {
        let found = config.fields.len();
        if found > MAX_FIELDS {
            return Err(format!("expected at most {MAX_FIELDS} names in `fields`, found {found}"));
        }
        if let Some(long) = config.fields.iter().find(|name| name.len() > MAX_FIELD) {
            let found = long.len();
            return Err(format!("expected at most {MAX_FIELD} bytes in each name of `fields`, found {found}"));
        }
        let fields = config.fields.iter().map(|name| name.to_lowercase()).collect();
        Ok(Self { is_enabled: config.enabled, mode: config.mode, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleanup(json: &str) -> Result<Cleanup, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn the_cleanup_is_enabled_by_default() {
        assert!(cleanup("{}").unwrap().is_enabled());
        assert!(!cleanup(r#"{"enabled": false}"#).unwrap().is_enabled());
        assert_eq!(cleanup("{}").unwrap().mode, Mode::Mask);
        for wrong in ["true", "null", r#"{"mode": "hide"}"#, r#"{"field": []}"#, r#"{"fields": "a"}"#] {
            assert!(cleanup(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn too_many_or_too_long_names_are_refused() {
        let fields = |count, length| {
            let names: Vec<_> = (0..count).map(|nth| format!("{nth:0>length$}")).collect();
            cleanup(&serde_json::json!({"fields": names}).to_string())
        };
        assert!(fields(100, 256).is_ok());
        assert!(fields(101, 3).unwrap_err().starts_with("expected at most 100 names in `fields`, found 101"));
        let error = fields(1, 257).unwrap_err();
        assert!(error.starts_with("expected at most 256 bytes in each name of `fields`, found 257"));
    }

    #[test]
    fn every_secret_header_field_is_masked_or_removed() {
        let sent = || {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("authorization", "Bearer x"),
                ("cookie", "a=b"),
                ("cookie", "c=d"),
                ("content-type", "text/plain"),
                ("x-mine", "1"),
            ] {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            headers
        };
        let mut headers = sent();
        cleanup(r#"{"fields": ["X-Mine"]}"#).unwrap().clean_headers(&mut headers);
        let values: Vec<_> = headers.values().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, [REDACTED, REDACTED, REDACTED, "text/plain", REDACTED]);
        let mut headers = sent();
        cleanup(r#"{"mode": "remove"}"#).unwrap().clean_headers(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-mine"]);
    }
}
