//! Which hop is the client, behind proxies.

mod error;
mod forwarded;

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};

pub use self::error::InvalidClientAddress;
use crate::base::network::Network;

/// Finds the client's address behind proxies that are trusted to name it.
///
/// Exactly one field is read, and only if the connection comes from a trusted proxy. A proxy that sets one field passes other
/// fields through, and a client can forge those. Each proxy appends the address from which the request has reached it. So
/// the rightmost address that is not a trusted proxy's is the client's, and everything to the left may be forged.
///
/// ```
/// use http::{HeaderMap, HeaderName};
/// use tower_webhook::{ClientAddress, Network};
///
/// let trusted = Network::parse_list("10.0.0.0/8")?;
/// let clients = ClientAddress::new(trusted, HeaderName::from_static("x-forwarded-for"));
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "127.0.0.1, 203.0.113.7, 10.0.0.2".parse()?);
/// assert_eq!(clients.resolve("10.0.0.1".parse()?, &headers)?.to_string(), "203.0.113.7");
/// // Whoever is no proxy of ours cannot name another.
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
    /// `Forwarded` is read as RFC 7239 defines it. Any other field is a list of addresses, such as `X-Forwarded-For`, or
    /// holds one of them: IPv4 or IPv6, and with a port `192.0.2.7:80` or `[2001:db8::1]:80`.
    pub fn new(trusted: impl IntoIterator<Item = Network>, field: HeaderName) -> Self {
        Self { trusted: trusted.into_iter().collect(), field }
    }

    /// The field that is read.
    pub fn field(&self) -> &HeaderName {
        &self.field
    }

    /// The address of the client whose request came from `peer`, the connection's other end.
    ///
    /// It is `peer` if that is not a trusted proxy, or if the field is missing. If all addresses are trusted, it is the
    /// leftmost. An IPv4 address never has the form of an IPv6 one.
    ///
    /// # Errors
    ///
    /// When the field has anything but an address in the place of the client's address. The items to the left of the client
    /// may be anything, but a `Forwarded` field must be well-formed as a whole.
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

    /// `hops` begins with the one that is nearest to `peer`.
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

/// From right to left. An empty item is none that may be passed over: a proxy may have had no address to add.
fn addresses(line: &HeaderValue) -> impl Iterator<Item = Result<IpAddr, InvalidClientAddress>> {
    line.as_bytes().rsplit(|byte| *byte == b',').map(|item| address(item).ok_or(InvalidClientAddress::MALFORMED))
}

fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?.trim_matches([' ', '\t']);
    if text.contains('%') {
        // A zone means something to one machine only.
        return None;
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inside.parse().ok().map(IpAddr::V6);
    }
    text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests;
