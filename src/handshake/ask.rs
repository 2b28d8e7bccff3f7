//! The parts of a request in which a challenge stands.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::answer::Refusal;
use crate::form;
use crate::json::{Pointer, Scalar};
use crate::request::Head;

/// The parameter's only value.
pub(super) fn parameter<'a>(head: Head<'a>, name: &str) -> Result<Cow<'a, str>, Refusal> {
    form::find(query(head), name).map_err(|not_found| Refusal::malformed(&of_query(name), not_found))
}

pub(super) fn query(head: Head<'_>) -> &[u8] {
    head.uri.query().unwrap_or_default().as_bytes()
}

pub(super) fn of_query(name: &str) -> String {
    format!("the parameter `{name}`")
}

/// The header field's only value.
pub(super) fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Refusal> {
    let refusal = |why| Refusal::malformed(&format!("the header {name}"), why);
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| refusal("holds characters that are not printable ASCII")),
        (None, _) => Err(refusal("is missing")),
        _ => Err(refusal("appears more than once")),
    }
}

/// The string there.
pub(super) fn text(body: &[u8], place: &str) -> Result<String, Refusal> {
    match find(body, place) {
        Some(Scalar::String(text)) => Ok(text),
        _ => Err(Refusal::malformed(&of_body(place), "is not a string, or appears more than once")),
    }
}

pub(super) fn of_body(place: &str) -> String {
    format!("{place} in the body")
}

pub(super) fn find(body: &[u8], place: &str) -> Option<Scalar> {
    Pointer::parse(place).ok()?.find(body)
}
