//! The webhook's key `ip_allow`.

use std::sync::LazyLock;

use http::HeaderValue;
use http::header::HeaderName;

use super::UNNAMED_CHALLENGE;
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme};
use crate::base::log_limit::LogLimit;
use crate::base::network::Network;
use crate::base::network_set::NetworkSet;
use crate::config::{BuildContext, BuildError, read_networks};
use crate::request::{ClientAddress, Head};

/// Lets requests in that come from one of these networks. Other senders get a 403.
///
/// The address is [`Peer::client`](crate::request::Peer::client). The server must put a [`Peer`](crate::request::Peer) into the
/// extensions of each request; a request without one is refused. An IPv4-mapped IPv6 address counts as IPv4.
///
/// ```
/// use tower_webhook::auth::IpAllow;
/// use tower_webhook::layers::RequireAuthLayer;
/// use tower_webhook::request::Network;
///
/// let guard = RequireAuthLayer::new(IpAllow::new(Network::parse_list("192.0.2.0/24, 2001:db8::/32")?)?);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug)]
pub struct IpAllow {
    allowed: NetworkSet,
    /// The proxies that only this webhook trusts.
    proxies: Option<ClientAddress>,
}

impl IpAllow {
    /// Lets in the addresses of `networks`.
    ///
    /// # Errors
    ///
    /// When there is no network, and when the networks contain all IPv4 or all IPv6 addresses: the guard would have no effect.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Result<Self, BuildError> {
        let allowed = NetworkSet::new(networks);
        if allowed.is_empty() {
            return Err("expected at least one address or network, found none".into());
        }
        if allowed.is_everybody() {
            return Err(EVERYBODY.into());
        }
        Ok(Self { allowed, proxies: None })
    }

    /// Trusts the proxies in `networks` to name the client in `X-Forwarded-For`. This has no effect on a request for which the
    /// server has already taken the client's address from a proxy.
    ///
    /// # Errors
    ///
    /// When the networks contain all IPv4 or all IPv6 addresses: everybody could claim an allowed address.
    pub fn trusted_proxies(self, networks: impl IntoIterator<Item = Network>) -> Result<Self, BuildError> {
        let networks: Vec<_> = networks.into_iter().collect();
        if NetworkSet::new(networks.iter().copied()).is_everybody() {
            return Err(format!("in `trusted_proxies`: {EVERYBODY}").into());
        }
        let proxies = (!networks.is_empty()).then(|| ClientAddress::new(networks, FORWARDED_FOR));
        Ok(Self { proxies, ..self })
    }
}

const EVERYBODY: &str = "expected some networks, found all addresses there are; leave out a network such as 0.0.0.0/0";

/// The only field that is read. A client may have forged any field that the proxy does not set.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl ConfigScheme for IpAllow {
    const KEY: &'static str = "ip_allow";

    type Config = Vec<String>;

    fn build(config: Vec<String>, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(read_networks(&config)?)?.trusted_proxies(cx.trusted_proxies().iter().copied())
    }
}

impl Scheme for IpAllow {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let Some(peer) = head.peer() else {
            report_no_peer();
            return Err(AuthError::Forbidden);
        };
        let client = match &self.proxies {
            Some(proxies) if peer.forwarded_for().is_none() => {
                proxies.resolve(peer.address().ip(), head.headers).map_err(|_| AuthError::Forbidden)?
            }
            _ => peer.client(),
        };
        match self.allowed.contains(client) {
            true => Ok(Proof::Complete),
            false => Err(AuthError::Forbidden),
        }
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        UNNAMED_CHALLENGE
    }

    fn label(&self) -> &'static str {
        Self::KEY
    }
}

/// Reports a defect of the server, about which the sender can do nothing.
fn report_no_peer() {
    static LINES: LazyLock<LogLimit<()>> = LazyLock::new(LogLimit::default);
    if let Some(left_out) = LINES.admit(()) {
        let left_out = (left_out > 0).then_some(left_out);
        tracing::error!(
            left_out,
            "`ip_allow` refuses everybody: found no `Peer` beside the request, expected the server to put one there"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::Request;

    use super::*;
    use crate::request::Peer;

    fn allow(networks: &str) -> IpAllow {
        IpAllow::new(Network::parse_list(networks).unwrap()).unwrap()
    }

    fn check(guard: &IpAllow, peer: Peer, forwarded: &[&str]) -> Result<Proof, AuthError> {
        let mut request = Request::new(());
        request.extensions_mut().insert(peer);
        for value in forwarded {
            request.headers_mut().append(FORWARDED_FOR, value.parse().unwrap());
        }
        guard.check_head(Head::of(&request))
    }

    fn peer(address: &str) -> Peer {
        Peer::new(SocketAddr::new(address.parse().unwrap(), 4711))
    }

    const IN: Result<Proof, AuthError> = Ok(Proof::Complete);
    const OUT: Result<Proof, AuthError> = Err(AuthError::Forbidden);

    #[test]
    fn only_addresses_of_the_networks_are_let_in() {
        let guard = allow("192.0.2.0/24, 2001:db8::/32");
        for address in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
            assert_eq!(check(&guard, peer(address), &[]), IN, "{address}");
        }
        for address in ["192.0.3.1", "::192.0.2.1", "2001:db9::1", "127.0.0.1", "::1"] {
            assert_eq!(check(&guard, peer(address), &[]), OUT, "{address}");
        }
    }

    #[test]
    fn nobody_is_let_in_whose_address_is_not_known() {
        assert_eq!(allow("127.0.0.1").check_head(Head::of(&Request::new(()))), OUT);
    }

    #[test]
    fn a_client_cannot_name_its_own_address() {
        let guard = allow("192.0.2.1");
        assert_eq!(check(&guard, peer("198.51.100.9"), &["192.0.2.1"]), OUT);
        // A proxy that the server trusts has named it.
        let proxied = || peer("10.0.0.1").with_client("192.0.2.1".parse().unwrap());
        assert_eq!(check(&guard, proxied(), &["198.51.100.9"]), IN);
        let other = || peer("192.0.2.1").with_client("198.51.100.9".parse().unwrap());
        assert_eq!(check(&guard, other(), &["192.0.2.1"]), OUT);
    }

    #[test]
    fn a_webhooks_own_proxies_name_the_client_from_the_right() {
        let trusted = Network::parse_list("10.0.0.0/8").unwrap();
        let guard = allow("192.0.2.1").trusted_proxies(trusted).unwrap();
        assert_eq!(check(&guard, peer("10.0.0.1"), &["192.0.2.1"]), IN);
        assert_eq!(check(&guard, peer("10.0.0.1"), &["junk, 192.0.2.1, 10.0.0.2"]), IN);
        // The client itself wrote the left one.
        assert_eq!(check(&guard, peer("10.0.0.1"), &["192.0.2.1, 198.51.100.9"]), OUT);
        assert_eq!(check(&guard, peer("10.0.0.1"), &["192.0.2.1", "198.51.100.9"]), OUT);
        assert_eq!(check(&guard, peer("10.0.0.1"), &["192.0.2.1, unknown"]), OUT);
        assert_eq!(check(&guard, peer("10.0.0.1"), &[]), OUT);
        assert_eq!(check(&guard, peer("198.51.100.9"), &["192.0.2.1"]), OUT);
        // The server has taken the address from a proxy of its own.
        let named = || peer("10.0.0.1").with_client("10.0.0.9".parse().unwrap());
        assert_eq!(check(&guard, named(), &["192.0.2.1"]), OUT);
    }

    #[test]
    fn what_would_let_in_everybody_does_not_build() {
        for networks in ["", "0.0.0.0/0", "192.0.2.1, ::/0", "::ffff:0:0/96", "0.0.0.0/1, 128.0.0.0/1"] {
            assert!(IpAllow::new(Network::parse_list(networks).unwrap()).is_err(), "{networks}");
        }
        let everybody = Network::parse_list("0.0.0.0/0").unwrap();
        assert!(allow("192.0.2.1").trusted_proxies(everybody).is_err());
    }
}
