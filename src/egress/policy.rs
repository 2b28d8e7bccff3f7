//! The policy over the addresses that connections may be made to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::InvalidEgress;
use super::prefix::Prefix;
use crate::base::network::{Network, in_v4, in_v6};

/// How an operator allows a refused address.
pub(crate) const OPENED_BY: &str =
    "connections lead only to public addresses, and to the networks that the operator lists in EGRESS_ALLOW";

/// The addresses that connections may be made to: public ones, and the networks that the operator allows in addition.
///
/// The default allows public addresses only. The refused IPv4 addresses are the special-purpose ones (RFC 6890 and its
/// IANA registry: loopback, private, link-local, shared, documentation, benchmarking, reserved), multicast, and the
/// address of Azure's own services. Of IPv6, only global unicast (`2000::/3`) is public, except its ranges for IETF
/// protocols and documentation, Teredo and 6to4. IPv4-mapped addresses are not public.
///
/// An address with the NAT64 prefix `64:ff9b::/96`, or with one given to [`nat64`](Self::nat64), is judged by the IPv4
/// address inside it. Before a connection to an IPv6 address, the prefixes that the network announces (RFC 7050) are
/// looked up: an address that leads to a refused IPv4 address is refused. Until that lookup has been answered once,
/// every IPv6 address that the operator does not allow is refused.
///
/// Parsed from a comma-separated list of additional addresses and networks in CIDR notation.
///
/// ```
/// use tower_webhook::module::EgressPolicy;
///
/// let policy: EgressPolicy = "10.1.0.0/16, fd00:1::/32, 192.168.0.7".parse()?;
/// assert!(policy.allows("10.1.2.3".parse().unwrap()));
/// assert!(policy.allows("93.184.216.34".parse().unwrap()));
/// assert!(!policy.allows("10.2.0.1".parse().unwrap()));
/// assert!(!EgressPolicy::default().allows("10.1.2.3".parse().unwrap()));
/// # Ok::<(), tower_webhook::module::InvalidEgress>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    allowed: Vec<Network>,
    nat64: Vec<Prefix>,
}

impl EgressPolicy {
    /// Whether a connection may be made to `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.refusal(address).is_none()
    }

    /// The kind of `address`, if the policy refuses it.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        self.refusal_where(address, &[])
    }

    /// Whether the operator's list contains `address`.
    pub(crate) fn lists(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(address))
    }

    /// Like [`refusal`](Self::refusal), in a network that has announced these prefixes. Prefixes can only refuse more
    /// addresses and never allow any: the owner of a name server is not the operator.
    pub(super) fn refusal_where(&self, address: IpAddr, announced: &[Prefix]) -> Option<&'static str> {
        if self.lists(address) {
            return None;
        }
        let IpAddr::V6(v6) = address else { return special(address) };
        let judge = |prefixes: &[Prefix]| -> Vec<Option<&'static str>> {
            prefixes.iter().filter_map(|prefix| prefix.inside(v6)).map(|inside| special(inside.into())).collect()
        };
        let known = [judge(&[Prefix::WELL_KNOWN]), judge(&self.nat64)].concat();
        let refusal = match known.is_empty() {
            true => special(address),
            false => known.into_iter().flatten().next(),
        };
        refusal.or_else(|| judge(announced).into_iter().flatten().next())
    }

    /// Judges addresses with these prefixes by the IPv4 addresses inside them: a comma-separated list of IPv6 prefixes
    /// of 32, 40, 48, 56, 64 or 96 bits, which a translator (NAT64) maps to IPv4 (RFC 6052).
    ///
    /// # Errors
    ///
    /// When an item is not such a prefix, or has bits beyond its length.
    pub fn nat64(mut self, prefixes: &str) -> Result<Self, InvalidEgress> {
        for item in prefixes.split(',').filter(|_| !prefixes.trim().is_empty()) {
            self.nat64.push(Prefix::parse(item.trim())?);
        }
        Ok(self)
    }
}

impl FromStr for EgressPolicy {
    type Err = InvalidEgress;

    /// An empty text allows nothing in addition. A network whose address has bits beyond its prefix is refused: a
    /// different one may have been meant.
    fn from_str(text: &str) -> Result<Self, InvalidEgress> {
        let allowed = Network::parse_list(text).map_err(|error| InvalidEgress(error.reason()))?;
        Ok(Self { allowed, nat64: Vec::new() })
    }
}

/// The kind of an address that is not public.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let row = SPECIAL_V4.iter().find(|&&(network, prefix, _)| in_v4(address, network, prefix));
            row.map(|&(_, _, class)| class)
        }
        IpAddr::V6(address) => {
            let row = SPECIAL_V6.iter().find(|&&(network, prefix, _)| in_v6(address, network, prefix));
            let beyond =
                (!in_v6(address, GLOBAL_UNICAST, 3)).then_some("an address outside of the global unicast addresses");
            row.map(|&(_, _, class)| class).or(beyond)
        }
    }
}

const PRIVATE: &str = "a private address";
const LOOPBACK: &str = "a loopback address";
const LINK_LOCAL: &str = "a link-local address";
const DOCUMENTATION: &str = "an address for documentation";
const PROTOCOLS: &str = "an address of the IETF's protocols";
const MULTICAST: &str = "a multicast address";

/// The IPv4 networks that are not public.
const SPECIAL_V4: [(Ipv4Addr, u32, &str); 17] = [
    // "This network", RFC 1122; Linux treats 0.0.0.0 as loopback.
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an unspecified address"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, PRIVATE), // RFC 1918
    (Ipv4Addr::new(100, 64, 0, 0), 10, "a shared address of a provider"), // RFC 6598
    (Ipv4Addr::new(127, 0, 0, 0), 8, LOOPBACK),
    // Special only on Azure's machines; a public address elsewhere.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "the address of Azure's own services"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address, where clouds have their metadata"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, PRIVATE), // RFC 1918
    (Ipv4Addr::new(192, 0, 0, 0), 24, PROTOCOLS),
    (Ipv4Addr::new(192, 0, 2, 0), 24, DOCUMENTATION), // RFC 5737
    (Ipv4Addr::new(192, 31, 196, 0), 24, "an address of AS112"), // RFC 7535
    (Ipv4Addr::new(192, 88, 99, 0), 24, "an address of 6to4 relays"), // RFC 7526
    (Ipv4Addr::new(192, 168, 0, 0), 16, PRIVATE),     // RFC 1918
    (Ipv4Addr::new(198, 18, 0, 0), 15, "an address for benchmarks"), // RFC 2544
    (Ipv4Addr::new(198, 51, 100, 0), 24, DOCUMENTATION), // RFC 5737
    (Ipv4Addr::new(203, 0, 113, 0), 24, DOCUMENTATION), // RFC 5737
    (Ipv4Addr::new(224, 0, 0, 0), 4, MULTICAST),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"), // broadcast, too
];

const GLOBAL_UNICAST: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);

/// The ranges of global unicast that are not public, and the names of some ranges outside of it.
const SPECIAL_V6: [(Ipv6Addr, u32, &str); 10] = [
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, DOCUMENTATION), // RFC 3849
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, PROTOCOLS),         // Teredo (2001::/32) among them
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "an address of 6to4"), // any IPv4 address may be inside
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, DOCUMENTATION),     // RFC 9637
    (Ipv6Addr::UNSPECIFIED, 128, "an unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, LOOPBACK),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4-mapped address"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, PRIVATE), // RFC 4193
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK_LOCAL),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, MULTICAST),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &str, address: &str) -> bool {
        policy.parse::<EgressPolicy>().unwrap().allows(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_allowed() {
        // The first and last address of each network, and the neighbours that are public.
        let refused = "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 127.0.0.1 \
            127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.255.255 172.16.0.0 172.31.255.255 \
            192.0.0.0 192.0.0.192 192.0.0.255 192.0.2.1 192.31.196.1 192.88.99.1 192.168.0.0 192.168.255.255 \
            198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.0 239.255.255.255 240.0.0.0 \
            255.255.255.255 :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 \
            64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::a00:1 64:ff9b:1::808:808 64:ff9b:0:1::808:808 100::1 \
            1fff::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:1ff:ffff:: 2001:db8::1 2001:db8:ffff::1 2002:7f00:1:: \
            2002:a00:1::1 2002:808:808::1 3fff::1 3fff:fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fdff::1 \
            fe80::1 febf::1 fec0::1 ff02::1";
        for address in refused.split_whitespace() {
            assert!(!allows("", address), "{address}");
        }
        let public = "1.0.0.0 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
            168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 \
            192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 2000::1 \
            2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2606:4700::1111 3ffe::1 \
            3fff:1000::1 64:ff9b::808:808";
        for address in public.split_whitespace() {
            assert!(allows("", address), "{address}");
        }
    }

    #[test]
    fn the_error_names_the_kind_of_a_refused_address() {
        for (addresses, class) in [
            ("127.0.0.1 127.255.255.255 ::1 64:ff9b::7f00:1", "a loopback address"),
            ("10.0.0.1 172.16.0.1 192.168.1.1 fd00:ec2::254 64:ff9b::a00:1", "a private address"),
            ("169.254.169.254", "a link-local address, where clouds have their metadata"),
            ("fe80::1 febf::1", "a link-local address"),
            ("0.0.0.0 ::", "an unspecified address"),
            ("100.64.0.1", "a shared address of a provider"),
            ("224.0.0.1 ff02::1", "a multicast address"),
            ("255.255.255.255", "a reserved address"),
            ("192.0.2.1 2001:db8::1 3fff::1", "an address for documentation"),
            ("::ffff:8.8.8.8", "an IPv4-mapped address"),
            ("64:ff9b:1::808:808 fec0::1 4000::1", "an address outside of the global unicast addresses"),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(EgressPolicy::default().refusal(address.parse().unwrap()), Some(class), "{address}");
            }
        }
    }

    #[test]
    fn a_list_allows_exactly_its_networks() {
        let policy = "127.0.0.0/8,10.1.2.3, fd00::/8 ,::1";
        for address in ["127.0.0.1", "10.1.2.3", "fd12::1", "::1", "8.8.8.8"] {
            assert!(allows(policy, address), "{address}");
        }
        for address in ["10.1.2.4", "192.168.0.1", "fc00::1", "::2", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert!(!allows(policy, address), "{address}");
        }
        assert!(allows("0.0.0.0/0,::/0", "169.254.169.254") && allows("0.0.0.0/0,::/0", "fe80::1"));
        assert!(allows("::ffff:0:0/96", "::ffff:127.0.0.1"));
    }

    #[test]
    fn an_address_with_a_nat64_prefix_is_judged_by_the_address_inside() {
        let configured = EgressPolicy::default().nat64("2600:64::/96, fd00:64::/96,64:ff9b:1::/48").unwrap();
        let allows = |policy: &EgressPolicy, address: &str| policy.allows(address.parse().unwrap());
        for (inside, is_public) in [("8.8.8.8", true), ("10.0.0.1", false), ("169.254.169.254", false)] {
            for prefix in ["2600:64::", "fd00:64::", "64:ff9b::"] {
                assert_eq!(allows(&configured, &format!("{prefix}{inside}")), is_public, "{prefix}{inside}");
            }
        }
        assert!(allows(&configured, "64:ff9b:1:808:8:800::") && !allows(&configured, "64:ff9b:1:a00:0:100::"));
        assert!(allows(&configured, "2600:65::10.0.0.1") && !allows(&configured, "fd00:65::8.8.8.8"));
        assert!(EgressPolicy::default().nat64(" ").unwrap() == EgressPolicy::default());
        // Announced prefixes allow nothing, and listed addresses stay allowed.
        let announced = ["2600:64::/96", "fd00:64::/96"].map(|prefix| Prefix::parse(prefix).unwrap());
        let refusal = |policy: &str, address: &str| {
            policy.parse::<EgressPolicy>().unwrap().refusal_where(address.parse().unwrap(), &announced)
        };
        assert_eq!(refusal("", "2600:64::10.0.0.1"), Some(PRIVATE));
        assert_eq!(refusal("", "2600:64::8.8.8.8"), None);
        assert_eq!(refusal("", "fd00:64::8.8.8.8"), Some(PRIVATE));
        assert_eq!(refusal("2600:64::/96", "2600:64::10.0.0.1"), None);
    }

    #[test]
    fn an_invalid_list_is_refused() {
        let wrong = "x 10.0.0.0/33 10.0.0.1/8 10.0.0.0/ 10.0.0.0/+8 /8 10/8 10.0.0.0/8, , 10.0.0.0/8;::1 fd00::1/8 ::1/0 \
            ::/129 [::1] localhost 010.0.0.0/8 10.0.0.0/8/8 10.0.0.0/255.0.0.0 10.0.0.0/99999999999";
        for text in wrong.split_whitespace().chain(["10.0.0.0/8 ::1"]) {
            assert!(text.parse::<EgressPolicy>().is_err(), "{text}");
        }
        assert_eq!(" ".parse::<EgressPolicy>(), Ok(EgressPolicy::default()));
    }
}
