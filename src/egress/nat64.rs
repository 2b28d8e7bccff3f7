//! Finds the prefixes under which a network translates IPv6 addresses to IPv4 (NAT64, RFC 6146).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::timeout;

use super::prefix::{LENGTHS, Prefix, inside};
use super::resolve::{OWN, Resolver};

/// The name whose IPv6 addresses reveal a network's prefixes, and the IPv4 addresses inside them (RFC 7050).
const NAME: &str = "ipv4only.arpa";
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The time limit for looking up the network's prefixes.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The prefixes that the network announces; `None` if that is unknown.
///
/// Prefixes stay known until a lookup finds others: names without an answer must not make them unknown, and an answer
/// may lack its IPv6 part. A network without the name has no prefixes. Until a lookup has been answered, nothing is
/// known.
pub(super) async fn announced(resolver: &Resolver) -> Option<Vec<Prefix>> {
    let answer = timeout(PATIENCE, resolver.resolve(NAME, OWN.into())).await;
    let mut last = resolver.prefixes();
    match answer {
        Ok(Ok(addresses)) => {
            let found = found(&addresses);
            if last.is_none() || !found.is_empty() {
                *last = Some(found);
            }
            last.clone()
        }
        Ok(Err(_)) => Some(last.clone().unwrap_or_default()),
        Err(_) => last.clone(),
    }
}

/// The prefixes that the addresses of [`NAME`] reveal.
fn found(addresses: &[IpAddr]) -> Vec<Prefix> {
    let of_one = |&address: &IpAddr| {
        let IpAddr::V6(address) = address else { return Vec::new() };
        let lengths = LENGTHS.into_iter().filter(|&length| KNOWN.contains(&inside(address, length)));
        lengths.map(|length| Prefix::of(address, length)).collect()
    };
    addresses.iter().flat_map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    /// The examples of RFC 6052 §2.4.
    const EXAMPLES: [(&str, &str); 6] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ];

    #[test]
    fn an_address_below_a_prefix_holds_an_ipv4_address() {
        for (prefix, address) in EXAMPLES {
            let inside = Prefix::parse(prefix).unwrap().inside(address.parse().unwrap());
            assert_eq!(inside, Some(Ipv4Addr::new(192, 0, 2, 33)), "{prefix}");
            assert_eq!(Prefix::parse(prefix).unwrap().inside("2002:db8::1".parse().unwrap()), None);
        }
    }

    #[test]
    fn the_prefixes_that_the_network_announces_are_found() {
        for (prefix, address) in [
            ("2600::/32", "2600:0:c000:aa::"),
            ("2600:0:100::/40", "2600:0:1c0:0:aa::"),
            ("2600:0:122::/48", "2600:0:122:c000:0:ab00::"),
            ("2600:0:122:300::/56", "2600:0:122:3c0:0:aa::"),
            ("2600:0:122:344::/64", "2600:0:122:344:c0:0:aa00::"),
            ("2600:0:122:344::/96", "2600:0:122:344::192.0.0.171"),
        ] {
            let addresses = [IpAddr::from(KNOWN[0]), address.parse().unwrap()];
            assert_eq!(found(&addresses), [Prefix::parse(prefix).unwrap()], "{prefix}");
        }
        assert_eq!(found(&[KNOWN[0].into(), "2600::1".parse().unwrap()]), []);
    }

    /// With a mock of the resolver: the system's cannot be silenced.
    #[tokio::test]
    async fn known_prefixes_stay_known_while_lookups_get_no_answer() {
        const SILENCE: fn() -> io::Result<Vec<IpAddr>> = || {
            std::thread::sleep(PATIENCE + Duration::from_secs(1));
            Err(io::Error::other("no answer"))
        };
        const NONE: fn() -> io::Result<Vec<IpAddr>> = || Err(io::Error::other("no such name"));
        static MODE: Mutex<fn() -> io::Result<Vec<IpAddr>>> = Mutex::new(SILENCE);
        let lookup = |_: &str| {
            let mode = *MODE.lock().unwrap();
            mode()
        };
        let resolver = Resolver::new(lookup);
        assert_eq!(announced(&resolver).await, None, "silence from the start");
        *MODE.lock().unwrap() = NONE;
        let resolver = Resolver::new(lookup);
        assert_eq!(announced(&resolver).await, Some(vec![]), "no such name");
        let found = Some(vec![Prefix::parse("2600:64::/96").unwrap()]);
        let modes: [(_, fn() -> io::Result<Vec<IpAddr>>); 4] = [
            ("an answer", || Ok(vec!["2600:64::192.0.0.170".parse().unwrap()])),
            ("an answer without IPv6 addresses", || Ok(vec![KNOWN[0].into()])),
            ("an error", NONE),
            ("silence", SILENCE),
        ];
        for (name, mode) in modes {
            *MODE.lock().unwrap() = mode;
            resolver.forget(NAME);
            assert_eq!(announced(&resolver).await, found, "{name}");
        }
    }

    #[test]
    fn an_invalid_prefix_is_refused() {
        for text in ["", "x", "2600::", "2600::/33", "2600::/+96", "2600::1/96", "10.0.0.0/8", "2600::/128", "/96"] {
            assert!(Prefix::parse(text).is_err(), "{text}");
        }
    }
}
