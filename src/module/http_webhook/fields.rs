//! The header fields of a request: received, configured, and always set.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::{hops, signature, trace};
use crate::base::secret_names::is_credential;
use crate::config::BuildError;
use crate::event::{Delivery, EVENT_ID};

const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");
const RECEIVED_AT: HeaderName = HeaderName::from_static("x-received-at");

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tower-webhook/", env!("CARGO_PKG_VERSION")));

/// Fields that concern one connection (RFC 9110 §7.6.1), or the framing of the message on it.
const CONNECTION_FIELDS: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

/// Fields that describe the body, which is sent as it was received.
const BODY_FIELDS: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

/// The prefixes of signature fields in Standard Webhooks and in Svix, where the standard comes from. Svix's libraries
/// read either, so forwarding a sender's fields next to ours would make a request with two signatures.
const SIGNATURE_PREFIXES: [&str; 2] = ["webhook-", "svix-"];

/// How the header fields of each request are made.
pub(super) struct Fields {
    configured: HeaderMap,
    forward: Forward,
    signed: bool,
}

/// The received fields that are forwarded.
pub(super) enum Forward {
    Nothing,
    Everything,
    Only(Vec<HeaderName>),
}

impl Fields {
    /// `signed`: whether the request is signed.
    pub(super) fn new(
        configured: &BTreeMap<String, String>,
        forward: Forward,
        signed: bool,
    ) -> Result<Self, BuildError> {
        let mut headers = HeaderMap::new();
        for (name, value) in configured {
            let name = name_of(name).map_err(|error| format!("`headers` has a name that {error}"))?;
            if signature::FIELDS.contains(&name) {
                return Err(format!("`{name}` in `headers` is set by `signing_secret`").into());
            }
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("the value of `{name}` in `headers` is not a valid header value"))?;
            // Each value may be a credential: Debug does not show it, and HTTP/2 does not index it.
            value.set_sensitive(true);
            if headers.insert(&name, value).is_some() {
                return Err(format!("duplicate header `{name}` in `headers`").into());
            }
        }
        Ok(Self { configured: headers, forward, signed })
    }

    /// The fields for one attempt, at a distance of `hops` webhooks from the event's origin.
    pub(super) fn of(&self, delivery: &Delivery, hops: u8) -> HeaderMap {
        let received = delivery.headers();
        let mut headers = self.forward.of(received, self.signed);
        for name in &BODY_FIELDS {
            headers.remove(name);
            for value in received.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        trace::propagate(received, &mut headers);
        headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
        for (name, value) in &self.configured {
            headers.insert(name, value.clone());
        }
        if let Some(id) = delivery.id().to_header() {
            headers.insert(EVENT_ID, id);
        }
        headers.insert(ATTEMPT, delivery.attempt().into());
        headers.insert(hops::FIELD, u16::from(hops).into());
        if let Ok(time) = HeaderValue::try_from(rfc3339(delivery.received_at())) {
            headers.insert(RECEIVED_AT, time);
        }
        headers
    }
}

impl Forward {
    pub(super) fn new(forward_headers: bool, allowed_headers: Option<&[String]>) -> Result<Self, BuildError> {
        match (forward_headers, allowed_headers) {
            (false, None) => Ok(Self::Nothing),
            (false, Some(_)) => Err("`allowed_headers` requires `forward_headers`".into()),
            (true, None) => Ok(Self::Everything),
            (true, Some(names)) => {
                let names = names.iter().map(|name| name_of(name)).collect::<Result<_, _>>();
                Ok(Self::Only(names.map_err(|error| format!("`allowed_headers` has a name that {error}"))?))
            }
        }
    }

    fn of(&self, received: &HeaderMap, signed: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if matches!(self, Self::Nothing) {
            return headers;
        }
        let of_the_connection = named_by_connection(received);
        let is_in_the_way = |name: &HeaderName| {
            CONNECTION_FIELDS.contains(name)
                || of_the_connection.contains(name.as_str().as_bytes())
                || (signed && SIGNATURE_PREFIXES.iter().any(|start| name.as_str().starts_with(start)))
        };
        for (name, value) in received {
            let wanted = match self {
                Self::Nothing => false,
                Self::Everything => !is_credential(name),
                Self::Only(names) => names.contains(name),
            };
            if wanted && !is_in_the_way(name) {
                headers.append(name, value.clone());
            }
        }
        headers
    }
}

/// Parses the name of a field that the configuration may set or forward.
fn name_of(text: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::try_from(text).map_err(|_| "no field can have")?;
    if CONNECTION_FIELDS.contains(&name) {
        return Err("belongs to the connection or to the framing");
    }
    if [EVENT_ID, ATTEMPT, RECEIVED_AT, hops::FIELD].contains(&name) {
        return Err("this module always sets itself");
    }
    Ok(name)
}

/// The additional fields that the sender's `Connection` names.
fn named_by_connection(received: &HeaderMap) -> HashSet<Vec<u8>> {
    // As bytes: an invalid byte makes one name unusable, not the whole list.
    let lists = received.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let names = lists.flat_map(|list| list.split(|&byte| byte == b','));
    names.map(|name| name.trim_ascii().to_ascii_lowercase()).collect()
}

/// The time in UTC with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    // A time outside of the years -9999 to 9999 becomes the epoch.
    let time = Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.3}")
}
