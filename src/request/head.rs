//! The head of a request.

use std::fmt;

use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::peer::Peer;

/// The head of a request, borrowed: everything that a guard can check before a byte of the body is read.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URI, as it reached the layer.
    pub uri: &'a Uri,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The extensions that outer layers and the server have added.
    pub extensions: &'a Extensions,
}

/// Omits the header fields and the query: both may hold secrets.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", self.method).field("path", &self.uri.path()).finish_non_exhaustive()
    }
}

impl<'a> Head<'a> {
    /// The head of `req`.
    pub fn of<B>(req: &'a Request<B>) -> Self {
        Self { method: req.method(), uri: req.uri(), headers: req.headers(), extensions: req.extensions() }
    }

    /// The other end of the connection, if the server has added it to the extensions.
    pub fn peer(&self) -> Option<&'a Peer> {
        Peer::of(self.extensions)
    }

    /// The head of a request that was taken apart.
    pub(crate) fn of_parts(parts: &'a Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers, extensions: &parts.extensions }
    }
}
