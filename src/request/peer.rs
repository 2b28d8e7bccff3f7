//! The other end of a request's connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Extensions;

/// The other end of the connection that a request came over, and the client that sent the request.
///
/// A server adds it to the request's extensions. Guards find it with [`Head::peer`](super::head::Head::peer), and log lines
/// about the request contain it.
///
/// ```
/// use http::Request;
/// use tower_webhook::request::Peer;
///
/// let mut request = Request::post("/orders").body(()).unwrap();
/// request.extensions_mut().insert(Peer::new("192.0.2.7:4711".parse().unwrap()));
/// assert_eq!(Peer::of(request.extensions()).unwrap().address().port(), 4711);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    address: SocketAddr,
    forwarded_for: Option<IpAddr>,
    certificate: Option<ClientCertificate>,
}

impl Peer {
    /// A peer with this address that sends its own requests.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, forwarded_for: None, certificate: None }
    }

    /// Declares that the peer is a proxy, which forwards a request of `client`: see
    /// [`ClientAddress`](super::client_address::ClientAddress).
    #[must_use]
    pub fn with_client(mut self, client: IpAddr) -> Self {
        self.forwarded_for = Some(client);
        self
    }

    /// Adds the certificate that the peer presented in the TLS handshake, and that the server has verified.
    #[must_use]
    pub fn with_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// The peer in the extensions of a request, if the server has added one.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The address and port of the other end of the connection. Behind a proxy this is the proxy's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the client that sent the request: the peer's own, or the one that a trusted proxy has named. An
    /// IPv4-mapped IPv6 address is returned as an IPv4 address.
    pub fn client(&self) -> IpAddr {
        self.forwarded_for.unwrap_or(self.address.ip()).to_canonical()
    }

    /// The address of the client, if a proxy has forwarded the request.
    pub fn forwarded_for(&self) -> Option<IpAddr> {
        self.forwarded_for
    }

    /// The certificate of the connection's other end. Behind a proxy this is the proxy's certificate.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }
}

/// The leaf certificate of a TLS client, verified by the server.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    der: Arc<[u8]>,
}

impl ClientCertificate {
    /// A certificate in DER, which the server has verified. Clones share the bytes.
    pub fn new(der: impl Into<Arc<[u8]>>) -> Self {
        Self { der: der.into() }
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificate({} bytes)", self.der.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::head::Head;

    #[test]
    fn the_client_is_the_peer_unless_a_proxy_names_another() {
        let peer = Peer::new("[::ffff:192.0.2.7]:4711".parse().unwrap());
        assert_eq!(peer.client(), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(peer.forwarded_for(), None);
        let proxied = peer.with_client("2001:db8::1".parse().unwrap());
        assert_eq!(proxied.client().to_string(), "2001:db8::1");
        assert_eq!(proxied.address().port(), 4711);
    }

    #[test]
    fn a_guard_finds_the_peer_in_the_head() {
        let mut request = http::Request::new(());
        assert!(Head::of(&request).peer().is_none());
        let certificate = ClientCertificate::new([1, 2, 3]);
        request
            .extensions_mut()
            .insert(Peer::new("192.0.2.7:4711".parse().unwrap()).with_certificate(certificate.clone()));
        let peer = Head::of(&request).peer().unwrap();
        assert_eq!(peer.certificate(), Some(&certificate));
        assert_eq!(certificate.der(), [1, 2, 3]);
        assert_eq!(format!("{certificate:?}"), "ClientCertificate(3 bytes)");
    }
}
