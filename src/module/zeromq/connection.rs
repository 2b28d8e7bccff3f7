//! The connection type `zeromq`, and the client that deliveries share.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::config::{Place, ZeroMqConnectionConfig};
use super::dial::Dialer;
use super::frame::{Message, Role};
use super::one_way::OneWay;
use super::requests::Requests;
use crate::config::BuildError;
use crate::egress::{Egress, check_host};
use crate::event::DeliverError;
use crate::module::connection::{ConnectionContext, ConnectionKind};

/// A socket of ZeroMQ, which connects to a peer or, with `bind`, lets peers connect.
///
/// ```json
/// {"type": "zeromq", "endpoint": "tcp://worker.internal:5555", "socket_type": "REQ"}
/// ```
///
/// It speaks ZMTP 3.0 over TCP, without encryption and without credentials (the mechanism `NULL`). All webhooks that name it
/// share it. The first delivery opens it. A connection that is lost is made anew at once, and then with waits of up to 5 s.
///
/// With `bind` the address must be one that the operator's list of allowed networks names, and a peer is let in if the policy
/// allows connections to its address. At most 64 are.
pub struct ZeroMqConnection {
    role: Role,
    egress: Egress,
    place: Place,
}

impl ZeroMqConnection {
    /// Connects, or lets peers connect, as the policy of `egress` allows.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`ZeroMqConnectionConfig`], or the endpoint is an address that the policy of
    /// `egress` refuses. The addresses of a name are checked when a connection is made.
    pub fn new(egress: &Egress, config: &ZeroMqConnectionConfig) -> Result<Self, BuildError> {
        let place = config.place()?;
        match &place {
            Place::Connect(server) => {
                check_host(&server.host, egress.policy()).map_err(|error| format!("`endpoint` {error}"))?;
            }
            Place::Bind(address, _) if !egress.policy().lists(*address) => {
                let text = "with `bind` a port of this machine is opened: the address in `endpoint` must be in the \
                            networks that the operator lists in EGRESS_ALLOW (0.0.0.0 for `*`)";
                return Err(text.into());
            }
            Place::Bind(..) => {}
        }
        Ok(Self { role: config.socket_type.role(), egress: egress.clone(), place })
    }

    /// The host and port that are connected to, or those that peers connect to.
    pub(super) fn place(&self) -> String {
        match &self.place {
            Place::Connect(server) => server.to_string(),
            Place::Bind(address, port) => SocketAddr::new(*address, *port).to_string(),
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }
}

impl ConnectionKind for ZeroMqConnection {
    const TYPE: &'static str = "zeromq";
    type Config = ZeroMqConnectionConfig;
    type Client = ZeroMqClient;

    /// Connects to public addresses only, and binds to none; [`Registry::egress`](crate::Registry::egress) allows others.
    fn build(config: ZeroMqConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), &config)
    }

    /// Begins to connect, and does not wait for it; or opens the port.
    async fn connect(&self) -> Result<ZeroMqClient, DeliverError> {
        let (role, egress) = (self.role, self.egress.clone());
        let way = match (&self.place, role) {
            (Place::Connect(server), _) => {
                let dialer = Dialer { egress, server: server.clone(), role };
                match role {
                    Role::Req => Way::Requests(Requests::connect(dialer)),
                    _ => Way::OneWay(OneWay::connect(dialer)),
                }
            }
            (&Place::Bind(address, port), Role::Req) => {
                Way::Requests(Requests::bind(egress, (address, port).into()).await?)
            }
            (&Place::Bind(address, port), _) => Way::OneWay(OneWay::bind(egress, (address, port).into(), role).await?),
        };
        Ok(ZeroMqClient { role, way })
    }
}

/// The client of a [`ZeroMqConnection`].
pub struct ZeroMqClient {
    role: Role,
    way: Way,
}

enum Way {
    Requests(Requests),
    OneWay(OneWay),
}

impl ZeroMqClient {
    /// Sends the parts in `before` and the body as one message. There is no time limit, but that it does not wait long for a
    /// peer.
    pub(super) async fn send(
        &self,
        before: &[&[u8]],
        body: &Bytes,
        require_receiver: bool,
    ) -> Result<(), DeliverError> {
        match &self.way {
            Way::Requests(requests) => requests.ask(&Message::request(before, body)).await,
            Way::OneWay(peers) if self.role == Role::Pub => {
                let first = before.first().copied().unwrap_or(body);
                peers.publish(first, &Message::new(before, body), require_receiver).await
            }
            Way::OneWay(peers) => peers.push(&Message::new(before, body)).await,
        }
    }
}

impl fmt::Debug for ZeroMqConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZeroMqConnection").field("role", &self.role).field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for ZeroMqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZeroMqClient").field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(allowed: &str, json: &str) -> Result<ZeroMqConnection, String> {
        let egress = Egress::new(allowed.parse().unwrap());
        ZeroMqConnection::new(&egress, &serde_json::from_str(json).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_must_be_allowed_and_a_bound_one_be_listed() {
        let connect = r#"{"endpoint": "tcp://127.0.0.1:1", "socket_type": "PUSH"}"#;
        assert!(build("", connect).unwrap_err().contains("a loopback address"));
        assert!(build("127.0.0.0/8", connect).is_ok());
        for (address, listed) in [("127.0.0.1", "127.0.0.1"), ("*", "0.0.0.0"), ("8.8.8.8", "8.8.8.8")] {
            let bind = format!(r#"{{"endpoint": "tcp://{address}:1", "socket_type": "PUSH", "bind": true}}"#);
            assert!(build("", &bind).unwrap_err().contains("EGRESS_ALLOW"), "{address}");
            assert!(build(listed, &bind).is_ok(), "{address}");
        }
    }
}
