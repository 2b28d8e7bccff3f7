//! Networks from which a translator leads to IPv4 addresses (NAT64, RFC 6146).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::timeout;

use super::prefix::{LENGTHS, Prefix, inside};
use super::resolve::{OWN, Resolver};

/// The name whose IPv6 addresses show a network's prefixes, and the IPv4 addresses that are inside them (RFC 7050).
const NAME: &str = "ipv4only.arpa";
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How long the network's own prefixes are waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The prefixes that the network announces, if that is known.
///
/// Prefixes that were once found hold until others are found: names that nobody answers for must not make them unknown,
/// and an answer may lack its IPv6 part. A network without the name has none. If nobody ever answered, nothing is known.
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

/// What the addresses of [`NAME`] show.
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
    fn what_the_network_announces_is_found() {
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

    /// The resolver is a mock: the system's cannot be silenced.
    #[tokio::test]
    async fn prefixes_that_were_found_hold_while_nobody_answers() {
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
    fn what_is_no_prefix_is_refused() {
        for text in ["", "x", "2600::", "2600::/33", "2600::/+96", "2600::1/96", "10.0.0.0/8", "2600::/128", "/96"] {
            assert!(Prefix::parse(text).is_err(), "{text}");
        }
    }
}
