//! Logs each refused request, at a limited rate.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Extensions, Request, Response};
use tracing::Level;

use crate::base::log_limit::LogLimit;
use crate::base::shown::Shown;
use crate::config::Target;
use crate::request::{Peer, Rejection, RejectionKind};

/// The longest path or reason that is logged whole, in characters.
const MAX_SHOWN: usize = 200;

/// The log of refused requests, shared by all requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedLog(Arc<LogLimit<Subject>>);

/// The subject of a rate limit. All requests without a known webhook share one, because there is no end of names.
type Subject = Option<(Target, RejectionKind)>;

/// A request that has not been answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    log: RefusedLog,
    peer: Option<SocketAddr>,
    /// Behind proxies: the client that they name.
    client: Option<IpAddr>,
}

impl RefusedLog {
    /// `None` if nothing would be logged.
    pub(crate) fn begin<B>(&self, req: &Request<B>) -> Option<Pending> {
        is_logged().then(|| {
            let peer = Peer::of(req.extensions());
            let client = peer.and_then(Peer::forwarded_for);
            Pending { log: self.clone(), peer: peer.map(Peer::address), client }
        })
    }
}

impl Pending {
    pub(crate) fn end<B>(self, response: &Response<B>) {
        let rejection = response.extensions().get::<Rejection>().filter(|rejection| !rejection.is_logged());
        let Some(rejection) = rejection else { return };
        let asked = response.extensions().get::<Asked>();
        let Some(left_out) = self.log.0.admit(subject(rejection.kind(), asked)) else { return };
        tracing::info!(
            target: "tower_webhook::rejection",
            webhook = asked.map(tracing::field::display),
            kind = rejection.kind().label(),
            guard = rejection.guard(),
            reason = %Shown::new(rejection.reason(), MAX_SHOWN),
            peer = self.peer.map(tracing::field::display),
            client = self.client.map(tracing::field::display),
            left_out = (left_out > 0).then_some(left_out),
            "request refused"
        );
    }
}

fn is_logged() -> bool {
    tracing::enabled!(target: "tower_webhook::rejection", Level::INFO)
}

fn subject(kind: RejectionKind, asked: Option<&Asked>) -> Subject {
    use RejectionKind as K;
    match (kind, asked) {
        // Refused before the webhook was found.
        (K::NoRoute | K::InvalidName | K::UnknownWebhook | K::MethodNotAllowed | K::NotReady, _) => None,
        (_, Some(Asked::Webhook(target))) => Some((*target, kind)),
        _ => None,
    }
}

/// The webhook or path of a refused request, in the extensions of the response.
#[derive(Clone)]
pub(crate) enum Asked {
    Webhook(Target),
    /// The path names no webhook.
    Path(Box<str>),
}

impl Asked {
    /// `None` if nothing would be logged.
    pub(crate) fn webhook(target: Target) -> Option<Self> {
        is_logged().then_some(Self::Webhook(target))
    }

    /// `None` if nothing would be logged.
    pub(crate) fn path(path: &str) -> Option<Self> {
        // One character more than is shown, so that the cut is visible.
        is_logged().then(|| Self::Path(path.chars().take(MAX_SHOWN + 1).collect()))
    }

    /// Adds it to a refusal, for its log line.
    pub(crate) fn attach(asked: &mut Option<Self>, extensions: &mut Extensions) {
        if extensions.get::<Rejection>().is_some()
            && let Some(asked) = asked.take()
        {
            extensions.insert(asked);
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked({self})")
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(target) => f.write_str(target.as_str()),
            Self::Path(path) => Shown::new(&**path, MAX_SHOWN).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_share_one_limit() {
        let asked = |id: &str| Asked::Webhook(Target::new("ns", id).unwrap());
        let key = |kind, id: &str| subject(kind, Some(&asked(id)));
        assert_eq!(key(RejectionKind::UnknownWebhook, "a"), key(RejectionKind::MethodNotAllowed, "b"));
        assert_eq!(key(RejectionKind::NotReady, "a"), subject(RejectionKind::NoRoute, Some(&Asked::Path("/x".into()))));
        assert_ne!(key(RejectionKind::Unauthenticated, "a"), key(RejectionKind::Unauthenticated, "b"));
        assert_ne!(key(RejectionKind::Unauthenticated, "a"), key(RejectionKind::BodyTooLarge, "a"));
        assert_eq!(subject(RejectionKind::Unauthenticated, None), None);
    }
}
