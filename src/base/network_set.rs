//! A set of many networks with a fast lookup.

use std::net::{IpAddr, Ipv6Addr};

use super::network::Network;

/// A set of addresses, made of networks: sorted ranges that neither overlap nor touch. A lookup is a binary search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// The first and the last addresses of all ranges, in separate arrays, because the search reads only the first ones.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<T> {
    first: Box<[T]>,
    last: Box<[T]>,
}

impl NetworkSet {
    /// A set of these networks. A network of IPv4-mapped IPv6 addresses counts as an IPv4 network.
    pub(crate) fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let (address, prefix) = (network.address(), network.prefix());
            match (address, address.to_canonical()) {
                (IpAddr::V4(address), _) => v4.push(range(address.to_bits(), prefix)),
                (_, IpAddr::V4(address)) if prefix >= MAPPED => v4.push(range(address.to_bits(), prefix - MAPPED)),
                (IpAddr::V6(address), _) => v6.push(range(address.to_bits(), prefix)),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// Whether the set contains `address`. An IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.first.is_empty() && self.v6.first.is_empty()
    }

    /// Whether the set contains all IPv4 or all IPv6 addresses.
    pub(crate) fn is_everybody(&self) -> bool {
        self.v4.is_full() || self.v6.is_full()
    }
}

/// The prefix of the IPv4 addresses among those of IPv6 (RFC 4291 §2.5.5.2).
const MAPPED: u32 = Ipv6Addr::BITS - u32::BITS;

/// The addresses that begin with the first `prefix` bits of `address`.
fn range<T: Bits>(address: T, prefix: u32) -> (T, T) {
    (address, address.with_ones_behind(prefix))
}

impl<T: Bits> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.next() => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let (first, last): (Vec<_>, Vec<_>) = merged.into_iter().unzip();
        Self { first: first.into(), last: last.into() }
    }

    fn contains(&self, address: T) -> bool {
        let behind = self.first.partition_point(|first| *first <= address);
        behind.checked_sub(1).and_then(|at| self.last.get(at)).is_some_and(|last| address <= *last)
    }

    fn is_full(&self) -> bool {
        *self.first == [T::MIN] && *self.last == [T::MAX]
    }
}

/// An address as a number.
trait Bits: Copy + Ord {
    const MIN: Self;
    const MAX: Self;

    /// The last address that begins with the same `prefix` bits.
    fn with_ones_behind(self, prefix: u32) -> Self;

    /// The next address; of the last one, the last one.
    fn next(self) -> Self;
}

macro_rules! bits {
    ($type:ty) => {
        impl Bits for $type {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;

            fn with_ones_behind(self, prefix: u32) -> Self {
                self | Self::MAX.checked_shr(prefix).unwrap_or(0)
            }

            fn next(self) -> Self {
                self.saturating_add(1)
            }
        }
    };
}

bits!(u32);
bits!(u128);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn set(networks: &str) -> NetworkSet {
        NetworkSet::new(Network::parse_list(networks).unwrap())
    }

    fn has(set: &NetworkSet, address: &str) -> bool {
        set.contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_found_up_to_both_ends_of_a_network() {
        let set = set("10.1.0.0/16, 192.0.2.7, 2001:db8::/32, ::1, 255.255.255.255");
        for address in ["10.1.0.0", "10.1.255.255", "192.0.2.7", "2001:db8::", "::1", "255.255.255.255"] {
            assert!(has(&set, address), "{address}");
        }
        for address in ["10.0.255.255", "10.2.0.0", "192.0.2.6", "192.0.2.8", "2001:db7::", "2001:db9::", "::", "::2"] {
            assert!(!has(&set, address), "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_has_one_form() {
        for networks in ["192.0.2.0/24", "::ffff:192.0.2.0/120", "::ffff:c000:200/120"] {
            let set = set(networks);
            assert!(has(&set, "192.0.2.1") && has(&set, "::ffff:192.0.2.1"), "{networks}");
            assert!(!has(&set, "192.0.3.1") && !has(&set, "::192.0.2.1") && !has(&set, "64:ff9b::192.0.2.1"));
        }
    }

    #[test]
    fn networks_that_are_everybody_together_are_known_as_that() {
        for networks in ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "0.0.0.0/1, 128.0.0.0/1", "::/2, 4000::/2, 8000::/1"] {
            assert!(set(networks).is_everybody(), "{networks}");
        }
        for networks in ["", "0.0.0.0/1, 128.0.0.0/2", "::/1", "0.0.0.0/1, 8000::/1"] {
            assert!(!set(networks).is_everybody(), "{networks}");
        }
        assert!(set("").is_empty() && !set("::1").is_empty() && !set("127.0.0.1").is_empty());
    }

    fn network() -> impl Strategy<Value = Network> {
        // Few addresses and long prefixes, so that networks meet.
        let v4 = (0..=u32::MAX, 0..=32_u32).prop_map(|(bits, prefix)| {
            let bits = (bits & 0xff00_000f) & !u32::MAX.checked_shr(prefix).unwrap_or(0);
            format!("{}/{prefix}", Ipv4Addr::from_bits(bits))
        });
        let v6 = (0..=u128::MAX, 0..=128_u32).prop_map(|(bits, prefix)| {
            let bits = (bits & 0xf) & !u128::MAX.checked_shr(prefix).unwrap_or(0);
            format!("{}/{prefix}", Ipv6Addr::from_bits(bits))
        });
        prop_oneof![v4, v6].prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn the_set_has_an_address_if_one_of_its_networks_has(
            networks in prop::collection::vec(network(), 0..20),
            v4 in 0..=u32::MAX,
            v6 in 0..=u128::MAX,
        ) {
            let set = NetworkSet::new(networks.clone());
            for address in [IpAddr::from(Ipv4Addr::from_bits(v4 & 0xff00_000f)), Ipv6Addr::from_bits(v6 & 0xf).into()] {
                let expected = networks.iter().any(|network| network.contains(address));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
        }
    }
}
