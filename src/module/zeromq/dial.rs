//! Connections to a peer that has a port.

use std::time::Duration;

use tokio::time::timeout;

use super::frame::{Invalid, Role};
use super::handshake::{Met, Wrong, meet};
use super::peer::Peer;
use crate::egress::{ConnectError, Egress};
use crate::event::DeliverErrorKind::{Config, Connect, Timeout};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server};

/// The time limit for a connection to a peer: lookup, TCP and the handshake.
const ATTEMPT: Duration = Duration::from_secs(6);

/// Makes connections to a peer.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) egress: Egress,
    pub(super) server: Server,
    pub(super) role: Role,
}

impl Dialer {
    pub(super) async fn connect(&self) -> Result<Met, DeliverError> {
        let Self { egress, server, role } = self;
        let error = |kind, text: String| DeliverError::new(kind, format!("{server}: {text}"));
        let connecting = async {
            let stream = egress.connect(&server.host, server.port).await;
            let stream = stream.map_err(|wrong| error(kind(&wrong), wrong.to_string()))?;
            meet(stream, *role).await.map_err(|wrong| match wrong {
                Wrong::Socket(wrong) => error(Connect, format!("the connection broke in the handshake: {wrong}")),
                Wrong::Peer(wrong @ Invalid::Peer(_)) => error(Connect, wrong.to_string()),
                Wrong::Peer(wrong) => error(Config, wrong.to_string()),
            })
        };
        let late = |_| Err(error(Timeout, format!("no connection within {ATTEMPT:?}")));
        timeout(ATTEMPT, connecting).await.unwrap_or_else(late)
    }
}

impl Dial for Dialer {
    type Session = Peer;

    async fn dial(&self) -> Result<Peer, DeliverError> {
        Ok(Peer::new(self.connect().await?, self.role, None))
    }

    async fn ended(session: &Peer) {
        session.ended().await;
    }
}

fn kind(error: &ConnectError) -> DeliverErrorKind {
    match error {
        ConnectError::Forbidden(..) => Config,
        ConnectError::Timeout => Timeout,
        _ => Connect,
    }
}
