//! Networks in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation, such as `10.1.0.0/16`, or a single address.
///
/// ```
/// use tower_webhook::request::Network;
///
/// let network: Network = "10.1.0.0/16".parse()?;
/// assert!(network.contains("10.1.2.3".parse().unwrap()));
/// assert!(!network.contains("10.2.0.1".parse().unwrap()));
/// # Ok::<(), tower_webhook::request::InvalidNetwork>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Reads a comma-separated list. An empty text is an empty list.
    ///
    /// # Errors
    ///
    /// When an item of the list is not a network.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidNetwork> {
        match text.trim() {
            "" => Ok(Vec::new()),
            list => list.split(',').map(|item| item.trim().parse()).collect(),
        }
    }

    /// Whether `address` is in this network. An IPv4 address is never in an IPv6 network, even if it is mapped.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (address, self.address) {
            (IpAddr::V4(address), IpAddr::V4(network)) => in_v4(address, network, self.prefix),
            (IpAddr::V6(address), IpAddr::V6(network)) => in_v6(address, network, self.prefix),
            _ => false,
        }
    }
}

impl Network {
    /// The first address of the network.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn prefix(&self) -> u32 {
        self.prefix
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    /// Refuses a network whose address has bits beyond its prefix: another network may have been meant.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        const WRONG: InvalidNetwork = InvalidNetwork("each item must be an address or `address/prefix`");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_err(|_| WRONG)?,
            Some(_) => return Err(WRONG),
            None => bits,
        };
        let beyond = match address {
            _ if prefix > bits => return Err(WRONG),
            IpAddr::V4(address) => address.to_bits().checked_shl(prefix).unwrap_or(0) != 0,
            IpAddr::V6(address) => address.to_bits().checked_shl(prefix).unwrap_or(0) != 0,
        };
        if beyond {
            return Err(InvalidNetwork("a network's address has bits beyond its prefix"));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether both addresses begin with the same `prefix` bits.
pub(crate) fn in_v4(address: Ipv4Addr, network: Ipv4Addr, prefix: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
}

/// Whether both IPv6 addresses begin with the same `prefix` bits.
pub(crate) fn in_v6(address: Ipv6Addr, network: Ipv6Addr, prefix: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
}

/// The reason for which a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidNetwork(&'static str);

impl InvalidNetwork {
    #[cfg(feature = "_egress")]
    pub(crate) fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidNetwork {}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(networks: &str, address: &str) -> bool {
        Network::parse_list(networks).unwrap().iter().any(|network| network.contains(address.parse().unwrap()))
    }

    #[test]
    fn a_network_contains_the_addresses_that_begin_with_its_bits() {
        let networks = "127.0.0.0/8,10.1.2.3, fd00::/8 ,::1";
        for address in ["127.0.0.0", "127.255.255.255", "10.1.2.3", "fd12::1", "::1"] {
            assert!(contains(networks, address), "{address}");
        }
        for address in ["126.255.255.255", "128.0.0.0", "10.1.2.4", "fc00::1", "::2", "::ffff:127.0.0.1"] {
            assert!(!contains(networks, address), "{address}");
        }
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1") && contains("::/0", "::1"));
    }

    #[test]
    fn a_list_with_an_invalid_item_is_refused() {
        let wrong = "x 10.0.0.0/33 10.0.0.1/8 10.0.0.0/ 10.0.0.0/+8 /8 10/8 10.0.0.0/8, , 10.0.0.0/8;::1 fd00::1/8 ::1/0 \
            ::/129 [::1] localhost 010.0.0.0/8 10.0.0.0/8/8 10.0.0.0/255.0.0.0 10.0.0.0/99999999999";
        for text in wrong.split_whitespace().chain(["10.0.0.0/8 ::1"]) {
            assert!(Network::parse_list(text).is_err(), "{text}");
        }
        assert_eq!(Network::parse_list(" "), Ok(Vec::new()));
    }
}
