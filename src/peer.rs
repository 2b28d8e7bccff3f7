//! The other end of a request's connection.

use std::net::SocketAddr;

use http::Extensions;

/// The other end of the connection that a request came over.
///
/// A server puts it into the request's extensions; log lines about the request then name it. No layer decides by it:
/// behind a proxy it is the proxy.
///
/// ```
/// use http::Request;
/// use tower_webhook::Peer;
///
/// let mut request = Request::post("/orders").body(()).unwrap();
/// request.extensions_mut().insert(Peer::new("192.0.2.7:4711".parse().unwrap()));
/// assert_eq!(Peer::of(request.extensions()).unwrap().address().port(), 4711);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// A peer with this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The peer of the request that these extensions belong to, if the server has said which it is.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Its address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
