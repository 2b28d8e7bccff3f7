//! The address of the client behind proxies.

mod error;
mod forwarded;

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};

pub use self::error::InvalidClientAddress;
use crate::base::network::Network;

/// Finds the client's address behind trusted proxies.
///
/// Exactly one header field is read, and only if the connection comes from a trusted proxy. A proxy that sets one field
/// passes other fields through, so a client can forge the others. Each proxy appends the address from which the request
/// reached it. The rightmost address that is not a trusted proxy's is therefore the client's, and everything to the left of
/// it may be forged.
///
/// ```
/// use http::{HeaderMap, HeaderName};
/// use tower_webhook::request::{ClientAddress, Network};
///
/// let trusted = Network::parse_list("10.0.0.0/8")?;
/// let clients = ClientAddress::new(trusted, HeaderName::from_static("x-forwarded-for"));
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "127.0.0.1, 203.0.113.7, 10.0.0.2".parse()?);
/// assert_eq!(clients.resolve("10.0.0.1".parse()?, &headers)?.to_string(), "203.0.113.7");
/// // A peer that is not a trusted proxy cannot name another client.
/// assert_eq!(clients.resolve("203.0.113.9".parse()?, &headers)?.to_string(), "203.0.113.9");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    trusted: Vec<Network>,
    field: HeaderName,
}

impl ClientAddress {
    /// Trusts the proxies in these networks to add to `field`.
    ///
    /// `Forwarded` is parsed by RFC 7239. Any other field holds one address, or a list of addresses as `X-Forwarded-For` does.
    /// Each address is IPv4 or IPv6, and may have a port: `192.0.2.7:80` or `[2001:db8::1]:80`.
    pub fn new(trusted: impl IntoIterator<Item = Network>, field: HeaderName) -> Self {
        Self { trusted: trusted.into_iter().collect(), field }
    }

    /// The header field that is read.
    pub fn field(&self) -> &HeaderName {
        &self.field
    }

    /// The address of the client. `peer` is the other end of the connection.
    ///
    /// The client is `peer` if that is not a trusted proxy, or if the field is missing. If all addresses are trusted, the
    /// client is the leftmost one. An IPv4-mapped IPv6 address is returned as an IPv4 address.
    ///
    /// # Errors
    ///
    /// When the item at the client's position is not an address. The items to the left of it may be anything, but a
    /// `Forwarded` field must be well-formed as a whole.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, InvalidClientAddress> {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Ok(peer);
        }
        let lines = headers.get_all(&self.field);
        match self.field == FORWARDED {
            true => self.rightmost(peer, forwarded::nodes(lines.iter())?.into_iter().rev()),
            false => self.rightmost(peer, lines.iter().rev().flat_map(addresses)),
        }
    }

    /// The first address in `hops` that is not trusted, or the last one. `hops` begins with the address nearest to `peer`.
    fn rightmost(
        &self,
        peer: IpAddr,
        hops: impl Iterator<Item = Result<IpAddr, InvalidClientAddress>>,
    ) -> Result<IpAddr, InvalidClientAddress> {
        let mut client = peer;
        for hop in hops {
            client = hop?.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        Ok(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// The addresses of a list, from right to left. An empty item is an error: the proxy that added it may have had no address
/// to add.
fn addresses(line: &HeaderValue) -> impl Iterator<Item = Result<IpAddr, InvalidClientAddress>> {
    line.as_bytes().rsplit(|byte| *byte == b',').map(|item| address(item).ok_or(InvalidClientAddress::MALFORMED))
}

fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?.trim_matches([' ', '\t']);
    if text.contains('%') {
        // A zone has a meaning on one machine only.
        return None;
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inside.parse().ok().map(IpAddr::V6);
    }
    text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests;
