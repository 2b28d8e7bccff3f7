//! The prefix of a translator from IPv6 to IPv4 (NAT64).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::InvalidEgress;

/// The lengths that a prefix may have (RFC 6052 §2.2).
pub(super) const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The prefix of a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    network: Ipv6Addr,
    length: u8,
}

impl Prefix {
    /// The well-known prefix, which needs no announcement (RFC 6052 §2.1).
    pub(super) const WELL_KNOWN: Self = Self { network: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), length: 96 };

    pub(super) fn of(address: Ipv6Addr, length: u8) -> Self {
        Self { network: Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length))), length }
    }

    pub(super) fn parse(text: &str) -> Result<Self, InvalidEgress> {
        let (network, length) = text.split_once('/').ok_or(WRONG)?;
        let network = network.parse().map_err(|_| WRONG)?;
        let length = LENGTHS.into_iter().find(|known| known.to_string() == length).ok_or(WRONG)?;
        let prefix = Self::of(network, length);
        match prefix.network == network {
            true => Ok(prefix),
            false => Err(InvalidEgress("a prefix's address has bits beyond its length")),
        }
    }

    /// The IPv4 address that `address` leads to, if it has this prefix.
    pub(super) fn inside(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        (Self::of(address, self.length) == self).then(|| inside(address, self.length))
    }
}

const WRONG: InvalidEgress =
    InvalidEgress("each item must be an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as 2001:db8:64::/96");

/// The IPv4 address after the first `length` bits. The ninth byte is not part of it.
pub(super) fn inside(address: Ipv6Addr, length: u8) -> Ipv4Addr {
    let mut bytes = address.octets().into_iter().enumerate().skip(usize::from(length / 8));
    let mut next = || bytes.find(|&(place, _)| place != 8).map_or(0, |(_, byte)| byte);
    Ipv4Addr::from([next(), next(), next(), next()])
}
