//! The header fields of a request: received, configured, and always set.

use std::collections::BTreeMap;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{hops, signature};
use crate::base::rfc3339;
use crate::config::BuildError;
use crate::event::{Delivery, EVENT_ID};
use crate::module::forward::{Forward, name_of};
use crate::module::trace;

const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");
const RECEIVED_AT: HeaderName = HeaderName::from_static("x-received-at");

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tower-webhook/", env!("CARGO_PKG_VERSION")));

/// Fields that this module always sets itself.
pub(super) const OWN_FIELDS: [HeaderName; 4] = [EVENT_ID, ATTEMPT, RECEIVED_AT, hops::FIELD];

/// Fields that describe the body, which is sent as it was received.
const BODY_FIELDS: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

/// The prefixes of signature fields in Standard Webhooks and in Svix, where the standard comes from. Svix's libraries
/// read either, so forwarding a sender's fields next to ours would make a request with two signatures.
const SIGNATURE_PREFIXES: [&str; 2] = ["webhook-", "svix-"];

fn is_of_signature(name: &HeaderName) -> bool {
    SIGNATURE_PREFIXES.iter().any(|start| name.as_str().starts_with(start))
}

/// How the header fields of each request are made.
pub(super) struct Fields {
    configured: HeaderMap,
    forward: Forward,
    signed: bool,
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
            let name = name_of(name, &OWN_FIELDS).map_err(|error| format!("`headers` has a name that {error}"))?;
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

    /// Whether the received field `name` is sent on, or changes what is sent.
    pub(super) fn uses(&self, name: &HeaderName) -> bool {
        let own = [&hops::FIELD, &trace::TRACEPARENT, &trace::TRACESTATE];
        let is_replaced = OWN_FIELDS.contains(name) || self.configured.contains_key(name);
        BODY_FIELDS.contains(name)
            || own.contains(&name)
            || (self.forward.uses(name) && !is_replaced && !(self.signed && is_of_signature(name)))
    }

    /// The fields for one attempt, at a distance of `hops` webhooks from the event's origin.
    pub(super) fn of(&self, delivery: &Delivery, hops: u8) -> HeaderMap {
        let received = delivery.headers();
        let mut headers = HeaderMap::new();
        for (name, value) in self.forward.of(received, |name| self.signed && is_of_signature(name)) {
            headers.append(name, value.clone());
        }
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
        if let Ok(time) = HeaderValue::try_from(rfc3339::format(delivery.received_at())) {
            headers.insert(RECEIVED_AT, time);
        }
        headers
    }
}
