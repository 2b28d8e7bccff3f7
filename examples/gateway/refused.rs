//! Log lines about requests that the gateway itself refuses. Their rate is limited, since anybody can cause them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use tower_webhook::LogLimit;
use tower_webhook::request::Peer;
use tracing::field::{DisplayValue, display};

use crate::rules::Violation;

/// One limit for each rule, for all peers together: the number of peers has no bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedLog(Arc<LogLimit<&'static str>>);

impl RefusedLog {
    /// Logs that a request breaks a rule of HTTP.
    pub(crate) fn violation<B>(&self, req: &Request<B>, violation: &Violation) {
        let Some(left_out) = self.admit(violation.detail) else { return };
        let (peer, client) = peer(req);
        tracing::info!(
            target: "tower_webhook::rejection",
            kind = "invalid_http",
            reason = violation.detail,
            peer,
            client,
            left_out,
            "request refused"
        );
    }

    /// `Some` if the line may be written now. The inner value is the field `left_out`.
    fn admit(&self, about: &'static str) -> Option<Option<u64>> {
        self.0.admit(about).map(|left_out| (left_out > 0).then_some(left_out))
    }
}

/// The peer, and the client whose request it forwards.
fn peer<B>(req: &Request<B>) -> (Option<DisplayValue<SocketAddr>>, Option<DisplayValue<IpAddr>>) {
    let peer = Peer::of(req.extensions());
    (peer.map(Peer::address).map(display), peer.and_then(Peer::forwarded_for).map(display))
}
