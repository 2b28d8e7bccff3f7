//! Finds the client of a request behind proxies.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, Request, StatusCode};
use tower_webhook::request::{ClientAddress, Peer};

use crate::rules::Violation;

/// Finds the client of each request, if `TRUSTED_PROXIES` and `CLIENT_ADDRESS_HEADER` are set.
#[derive(Clone, Default)]
pub(crate) struct Clients(Option<Arc<ClientAddress>>);

impl Clients {
    /// The client that a trusted proxy names; `None` without a proxy, and if the name cannot be read.
    pub(crate) fn forwarded(&self, peer: &Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.address().ip();
        self.0.as_ref()?.resolve(peer, headers).ok().filter(|client| *client != peer)
    }

    pub(crate) fn new(addresses: Option<ClientAddress>) -> Self {
        Self(addresses.map(Arc::new))
    }

    /// Sets the client in the request's [`Peer`].
    ///
    /// # Errors
    ///
    /// When a trusted proxy names the client in a way that cannot be read. The gateway does not guess then.
    pub(crate) fn note<B>(&self, req: &mut Request<B>) -> Result<(), Violation> {
        let (Some(addresses), Some(peer)) = (&self.0, Peer::of(req.extensions())) else { return Ok(()) };
        let client = addresses
            .resolve(peer.address().ip(), req.headers())
            .map_err(|error| Violation { status: StatusCode::BAD_REQUEST, detail: error.reason() })?;
        if client != peer.client() {
            let peer = peer.clone().with_client(client);
            req.extensions_mut().insert(peer);
        }
        Ok(())
    }
}
