//! The field `Forwarded` (RFC 7239).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderValue;

use super::error::InvalidClientAddress;

type Node = Result<IpAddr, InvalidClientAddress>;

const MALFORMED: InvalidClientAddress = InvalidClientAddress::MALFORMED;

/// The node in the parameter `for` of each element, from left to right.
///
/// # Errors
///
/// When any part of the field is malformed: a quote that a client leaves open could hide the address that a proxy adds.
pub(crate) fn nodes<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Result<Vec<Node>, InvalidClientAddress> {
    let lines: Vec<_> = lines.map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let field = lines.join(&b", "[..]);
    let (mut rest, mut nodes) = (Rest(&field), Vec::new());
    loop {
        nodes.push(rest.element()?);
        match rest.next() {
            None => return Ok(nodes),
            Some(b',') => {}
            Some(_) => return Err(MALFORMED),
        }
    }
}

/// The part of the field that has not been parsed yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// `forwarded-element`: pairs between semicolons, each of which may be empty.
    fn element(&mut self) -> Result<Node, InvalidClientAddress> {
        let mut forwarded_for = None;
        loop {
            self.skip_blanks();
            if !matches!(self.peek(), None | Some(b',' | b';')) {
                let (name, value) = self.pair()?;
                // A parameter must not occur more than once (RFC 7239 §4).
                if name.eq_ignore_ascii_case(b"for") && forwarded_for.replace(node(&value)).is_some() {
                    return Err(MALFORMED);
                }
            }
            self.skip_blanks();
            match self.peek() {
                Some(b';') => self.next(),
                _ => return Ok(forwarded_for.unwrap_or(Err(InvalidClientAddress::UNKNOWN))),
            };
        }
    }

    fn pair(&mut self) -> Result<(Vec<u8>, Vec<u8>), InvalidClientAddress> {
        let name = self.token()?;
        match (self.next(), self.peek()) {
            (Some(b'='), Some(b'"')) => Ok((name, self.quoted_string()?)),
            (Some(b'='), _) => Ok((name, self.token()?)),
            _ => Err(MALFORMED),
        }
    }

    /// RFC 9110 §5.6.2.
    fn token(&mut self) -> Result<Vec<u8>, InvalidClientAddress> {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let end = self.0.iter().position(|byte| !is_part(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(MALFORMED) } else { Ok(token.to_vec()) }
    }

    /// RFC 9110 §5.6.4.
    fn quoted_string(&mut self) -> Result<Vec<u8>, InvalidClientAddress> {
        self.next();
        let mut text = Vec::new();
        loop {
            match self.next().ok_or(MALFORMED)? {
                b'"' => return Ok(text),
                b'\\' => text.push(self.next().ok_or(MALFORMED)?),
                byte => text.push(byte),
            }
        }
    }
}

/// `node`: an IPv4 address, an IPv6 address in brackets, `unknown` or an obfuscated identifier, with or without a port.
fn node(text: &[u8]) -> Node {
    let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
    let (name, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal.split_once(']').ok_or(MALFORMED)?;
            (address.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| MALFORMED), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let address = match name.parse::<Ipv4Addr>() {
                Ok(address) => Ok(address.into()),
                Err(_) if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) => {
                    Err(InvalidClientAddress::UNKNOWN)
                }
                Err(_) => Err(MALFORMED),
            };
            (address, port)
        }
    };
    match port.strip_prefix(':') {
        Some(port) if is_port(port) => name,
        None if port.is_empty() => name,
        _ => Err(MALFORMED),
    }
}

fn is_port(text: &str) -> bool {
    is_obfuscated(text) || (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `obfnode` and `obfport`.
fn is_obfuscated(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_part))
}
