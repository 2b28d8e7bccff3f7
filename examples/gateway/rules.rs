//! The rules of HTTP that hyper leaves to the server: the target's host, and transfer codings.

use std::net::Ipv6Addr;

use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};

/// A rule of HTTP that a request breaks, with the status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) status: StatusCode,
    pub(crate) detail: &'static str,
}

const fn bad_request(detail: &'static str) -> Violation {
    Violation { status: StatusCode::BAD_REQUEST, detail }
}

const NO_HOST: Violation = bad_request("The request has no Host field; HTTP/1.1 requires exactly one (RFC 9112 §3.2)");
const NO_AUTHORITY: Violation =
    bad_request("The request has neither :authority nor a Host field; HTTP/2 requires one (RFC 9113 §8.3.1)");
const MANY_HOSTS: Violation = bad_request("The request has more than one Host field; exactly one is expected");
const INVALID_HOST: Violation =
    bad_request("The Host field is invalid; a name or an address is expected, with a port or without");
const INVALID_TARGET: Violation = bad_request(
    "The request's target names an invalid host; a name or an address is expected, without user information",
);
const TWO_TARGETS: Violation = bad_request("Host and :authority name different servers; the same one is expected");
const CHUNKED_TWICE: Violation = bad_request("Transfer-Encoding names chunked more than once; once is expected");
const UNKNOWN_CODING: Violation = Violation {
    status: StatusCode::NOT_IMPLEMENTED,
    detail: "Transfer-Encoding names a coding other than chunked; only chunked is supported",
};

/// Checks the rules that hyper does not check.
///
/// hyper refuses a `Transfer-Encoding` that does not end with `chunked`, one in HTTP/1.0 or HTTP/2, and lengths that
/// contradict each other. A request with both a length and `Transfer-Encoding` is read by the latter, and its connection is
/// closed after the answer (RFC 9112 §6.3).
pub(crate) fn check<B>(req: &Request<B>) -> Result<(), Violation> {
    check_target(req.version(), req.uri(), req.headers())?;
    check_codings(req.headers())
}

fn check_target(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Violation> {
    let authority = match uri.authority() {
        Some(authority) => Some(Host::parse(authority.as_str().as_bytes()).ok_or(INVALID_TARGET)?),
        None => None,
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(Host::parse(host.as_bytes()).ok_or(INVALID_HOST)?),
        (Some(_), Some(_)) => return Err(MANY_HOSTS),
    };
    match (version, authority, host) {
        (Version::HTTP_11, _, None) => Err(NO_HOST),
        (Version::HTTP_2, None, None) => Err(NO_AUTHORITY),
        (Version::HTTP_2, Some(authority), Some(host)) if !authority.is_same(&host, uri) => Err(TWO_TARGETS),
        // In HTTP/1 an absolute target takes precedence over `Host` (RFC 9112 §3.2.2).
        _ => Ok(()),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2).
#[derive(Clone, Copy)]
struct Host<'a> {
    name: &'a [u8],
    port: Option<u16>,
}

impl<'a> Host<'a> {
    /// An empty name is valid: it stands for a target without authority (RFC 9112 §3.2).
    fn parse(text: &'a [u8]) -> Option<Self> {
        let end = match text.strip_prefix(b"[") {
            Some(literal) => {
                let end = literal.iter().position(|byte| *byte == b']')?;
                std::str::from_utf8(&literal[..end]).ok()?.parse::<Ipv6Addr>().ok()?;
                end + 2
            }
            None => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
        };
        let (name, port) = text.split_at(end);
        if !name.starts_with(b"[") && !is_registered_name(name) {
            return None;
        }
        let port = match port {
            [] | b":" => None,
            [b':', digits @ ..] => Some(number(digits)?),
            _ => return None,
        };
        Some(Self { name, port })
    }

    fn is_same(&self, other: &Self, uri: &Uri) -> bool {
        let usual = match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        };
        self.name.eq_ignore_ascii_case(other.name) && self.port.unwrap_or(usual) == other.port.unwrap_or(usual)
    }
}

/// `reg-name` (RFC 3986 §3.2.2), which includes IPv4 addresses.
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => rest,
            _ => return false,
        }
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    // `parse` would also accept a sign.
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Only `chunked` is decoded. With another coding the body would be delivered still encoded.
fn check_codings(headers: &HeaderMap) -> Result<(), Violation> {
    let mut chunked = false;
    for value in headers.get_all(header::TRANSFER_ENCODING) {
        for coding in elements(value) {
            match coding.eq_ignore_ascii_case(b"chunked") {
                false => return Err(UNKNOWN_CODING),
                true if chunked => return Err(CHUNKED_TWICE),
                true => chunked = true,
            }
        }
    }
    Ok(())
}

/// The elements of a list, without empty ones (RFC 9110 §5.6.1.2).
fn elements(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}
