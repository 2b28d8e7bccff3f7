//! Makes TCP connections to the addresses that the policy allows.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::host::literal;
use super::nat64;
use super::policy::{EgressPolicy, OPENED_BY};
use super::prefix::Prefix;
use super::resolve::Resolver;

/// The time limit for name lookup, TCP and TLS together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time given to one address before the next one is tried as well (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The most addresses of one name that are tried. A target with more does not need all of them to be reachable.
const MAX_ADDRESSES: usize = 8;

/// Makes TCP connections, only to addresses that the policy allows.
///
/// The check applies to the very address that is connected to, whether the host contains it or a lookup returned it: a
/// name that is checked and then looked up again may have another address by then.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) policy: Arc<EgressPolicy>,
    pub(super) resolver: Resolver,
}

impl Guard {
    /// Connects to `host`, a name or an address, on behalf of `namespace`. There is no time limit.
    pub(super) async fn connect(&self, host: &str, port: u16, namespace: Arc<str>) -> Result<TcpStream, ConnectError> {
        let addresses = self.addresses(host, port, namespace).await?;
        let connected = first_to_connect(addresses).await;
        let stream = connected.inspect_err(|_| self.resolver.forget(host)).map_err(ConnectError::Connect)?;
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        Ok(stream)
    }

    /// The addresses of `host` that may be connected to, at least one. There is no time limit.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
        namespace: Arc<str>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let Self { policy, resolver } = self;
        let addresses = addresses(host, port, resolver, namespace).await?;
        let announced = match addresses.iter().any(|address| depends_on_prefixes(policy, address.ip())) {
            true => nat64::announced(resolver).await,
            false => None,
        };
        allowed(policy, announced.as_deref(), addresses)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The policy allows none of the addresses: the first of them, and its kind.
    Forbidden(IpAddr, &'static str),
    /// It is unknown whether this address leads to a refused one.
    Unknown(IpAddr),
    Resolve(Arc<io::Error>),
    Connect(io::Error),
    /// The server's certificate is not trusted, or it does not speak TLS, or refuses ours.
    Tls(io::Error),
    Timeout,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(address, class) => {
                write!(f, "its address {address} is {class}: {}", OPENED_BY)
            }
            Self::Unknown(address) => write!(
                f,
                "its address {address} may lead to a private IPv4 address (NAT64): the name servers did not answer for \
                 ipv4only.arpa within {:?}, which tells; an address in EGRESS_ALLOW needs no answer",
                nat64::PATIENCE
            ),
            Self::Resolve(error) => write!(f, "its name cannot be resolved: {error}"),
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Tls(error) => write!(f, "no TLS: {error}"),
            Self::Timeout => write!(f, "no connection within {CONNECT_TIMEOUT:?}"),
        }
    }
}

impl Error for ConnectError {}

/// The addresses of a host.
async fn addresses(
    host: &str,
    port: u16,
    resolver: &Resolver,
    namespace: Arc<str>,
) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = literal(host) {
        return Ok(vec![(address, port).into()]);
    }
    let found = resolver.resolve(host, namespace).await.map_err(ConnectError::Resolve)?;
    Ok(found.iter().map(|&address| (address, port).into()).collect())
}

/// Whether the policy can decide about `address` only with the prefixes that the network announces.
fn depends_on_prefixes(policy: &EgressPolicy, address: IpAddr) -> bool {
    address.is_ipv6() && !policy.lists(address)
}

/// The addresses that may be connected to. `announced` are the network's prefixes, if they are known.
fn allowed(
    policy: &EgressPolicy,
    announced: Option<&[Prefix]>,
    mut addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let mut refused: Option<ConnectError> = None;
    addresses.retain(|address| {
        let address = address.ip();
        if let Some(class) = policy.refusal_where(address, announced.unwrap_or_default()) {
            refused.get_or_insert(ConnectError::Forbidden(address, class));
            return false;
        }
        let is_unknown = announced.is_none() && depends_on_prefixes(policy, address);
        if is_unknown {
            // Takes precedence, because only this reason is temporary.
            refused = Some(ConnectError::Unknown(address));
        }
        !is_unknown
    });
    addresses.truncate(MAX_ADDRESSES);
    match refused {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(refused) => Err(refused),
        None => Err(ConnectError::Resolve(Arc::new(io::Error::other("it has no address")))),
    }
}

/// Tries the addresses in order, each with a head start, and returns the first connection.
async fn first_to_connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut untried = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::other("no address");
    loop {
        attempts.extend(untried.next().map(TcpStream::connect));
        match timeout(HEAD_START, attempts.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error,
            Ok(None) => return Err(last),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn connect(policy: &str, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let policy = Arc::new(policy.parse().unwrap());
        Guard { policy, resolver: Resolver::system() }.connect(host, port, "".into()).await
    }

    /// With a mock of the resolver, for a network with DNS64.
    #[tokio::test]
    async fn a_prefix_that_the_network_announces_leads_to_no_private_address() {
        let resolver = Resolver::new(|name| {
            let last: [u8; 4] = if name == "ipv4only.arpa" { [192, 0, 0, 170] } else { [10, 0, 0, 1] };
            let [a, b, c, d] = last.map(u16::from);
            Ok(vec![IpAddr::from([0x2600, 0x64, 0, 0, 0, 0, a << 8 | b, c << 8 | d])])
        });
        let guard = Guard { policy: Arc::default(), resolver };
        let error = guard.connect("intern.example", 80, "".into()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Forbidden(_, "a private address")), "{error}");
    }

    /// With a mock of the resolver, for a network with DNS64 whose name servers do not answer for some names.
    #[tokio::test]
    async fn names_without_an_answer_do_not_open_a_prefix_of_the_network() {
        let resolver = Resolver::new(|name| match name {
            "ipv4only.arpa" => Ok(vec!["2600:64::192.0.0.170".parse().unwrap()]),
            _ => {
                std::thread::sleep(nat64::PATIENCE + Duration::from_secs(2));
                Err(io::Error::other("no answer"))
            }
        });
        // So many lookups that there is no room for another.
        for (namespace, number) in (0..10).flat_map(|namespace| (0..64).map(move |number| (namespace, number))) {
            let resolver = resolver.clone();
            let name = format!("{number}.{namespace}.hangs");
            tokio::spawn(async move { resolver.resolve(&name, format!("tenant-{namespace}").into()).await });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!((0..10).map(|number| resolver.under_way(&format!("tenant-{number}"))).sum::<usize>(), 64);
        let guard = Guard { policy: Arc::default(), resolver };
        let error = guard.connect("[2600:64::10.0.0.1]", 80, "tenant-0".into()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Forbidden(_, "a private address")), "{error}");
    }

    /// However a private address is spelt, and whatever the system's resolver makes of it.
    #[tokio::test]
    async fn no_spelling_leads_to_a_private_address() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "127.0.0.1.",
            "169.254.169.254",
            "[fe80::1]",
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let error = connect("", host, listener.local_addr().unwrap().port()).await.unwrap_err();
            assert!(matches!(error, ConnectError::Forbidden(..) | ConnectError::Resolve(_)), "{host}: {error}");
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "{host}");
        }
    }

    #[tokio::test]
    async fn an_allowed_address_is_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let stream = connect("127.0.0.0/8", host, port).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
            assert!(stream.nodelay().unwrap());
        }
    }

    #[test]
    fn of_several_addresses_only_the_allowed_ones_are_left() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let policy = EgressPolicy::default();
        let mixed = addresses(&["10.0.0.1:80", "93.184.216.34:80", "[::1]:80", "[2606:4700::1]:80"]);
        let expected = addresses(&["93.184.216.34:80", "[2606:4700::1]:80"]);
        assert_eq!(allowed(&policy, Some(&[]), mixed).unwrap(), expected);
        assert!(matches!(allowed(&policy, Some(&[]), addresses(&["10.0.0.1:80"])), Err(ConnectError::Forbidden(..))));
        assert!(matches!(allowed(&policy, Some(&[]), Vec::new()), Err(ConnectError::Resolve(_))));
        // Refused addresses do not count towards the limit.
        let mut many = addresses(&["10.0.0.1:80"; 20]);
        many.extend(addresses(&["93.184.216.34:80"; 20]));
        assert_eq!(allowed(&policy, Some(&[]), many).unwrap().len(), MAX_ADDRESSES);
    }

    #[test]
    fn while_the_prefixes_of_the_network_are_unknown_only_what_the_operator_allows_is_left_of_ipv6() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let policy = "fd00::/8".parse().unwrap();
        let mixed = addresses(&["[2606:4700::1]:80", "93.184.216.34:80", "[fd00::1]:80", "[::1]:80"]);
        let expected = addresses(&["93.184.216.34:80", "[fd00::1]:80"]);
        assert_eq!(allowed(&policy, None, mixed).unwrap(), expected);
        let error = allowed(&policy, None, addresses(&["10.0.0.1:80", "[2606:4700::1]:80", "[::1]:80"])).unwrap_err();
        assert!(matches!(error, ConnectError::Unknown(_)), "{error}");
        let error = allowed(&policy, None, addresses(&["[::1]:80"])).unwrap_err();
        assert!(matches!(error, ConnectError::Forbidden(..)), "{error}");
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses_or_is_silent() {
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = listener.local_addr().unwrap();
        let stream = first_to_connect(vec![refusing, listening]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
        let error = first_to_connect(vec![refusing, refusing]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

        // The listener accepts nothing and its queue is full: further connections get no answer.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(0).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(silent_address)).await {
            filling.push(stream);
        }
        let began = Instant::now();
        let stream = first_to_connect(vec![silent_address, listening]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
        assert!(began.elapsed() >= HEAD_START && began.elapsed() < CONNECT_TIMEOUT);
    }
}
