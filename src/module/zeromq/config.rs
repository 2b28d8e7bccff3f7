//! The options of `zeromq`, and of a connection of type `zeromq`.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::frame::Role;
use crate::config::{BuildError, WebhookKey};
use crate::module::broker::{Server, Template, ZEROMQ_TOPIC, forward, limit};
use crate::module::forward::Forward;

/// The options of [`ZeroMq`](super::ZeroMq).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroMqConfig {
    /// The parts of a message. The default is `body`.
    #[serde(default)]
    pub frames: ZeroMqFrames,
    /// With a `PUB` socket: a first part, by which subscribers choose messages, at most 255 bytes. It may contain
    /// `{namespace}`, `{webhook}` and `{header:NAME}`. None by default.
    pub topic: Option<String>,
    /// With a `PUB` socket: whether an event that no subscriber wants is an error. On by default.
    pub require_receiver: Option<bool>,
    /// With `"frames": "event"`: whether received header fields are in the description of the event. Off by default.
    #[serde(default)]
    pub forward_headers: bool,
    /// The only received header fields that `forward_headers` sends on, at most 100; with an empty list none is.
    /// Credentials are sent on only if they are named here.
    pub allowed_headers: Option<Vec<String>>,
    /// The time limit for an attempt, in seconds: more than 0, at most 300. The default is 10.
    pub timeout: Option<f64>,
    /// Refused: the endpoint belongs to the connection.
    pub endpoint: Option<String>,
    /// Refused: the type of the socket belongs to the connection.
    pub socket_type: Option<ZeroMqSocketType>,
}

/// The parts of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ZeroMqFrames {
    /// The body alone.
    #[default]
    Body,
    /// A description of the event in JSON, and the body.
    Event,
}

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ZeroMqSocketType {
    /// Each subscriber gets each message that it wants. There is no acknowledgement.
    Pub,
    /// One `PULL` gets each message, in turn. There is no acknowledgement.
    Push,
    /// One `REP` or `ROUTER` gets each message, in turn. Its reply is the acknowledgement.
    Req,
    /// One `ROUTER`, `DEALER` or `REP` gets each message, in turn. There is no acknowledgement.
    Dealer,
}

impl ZeroMqSocketType {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Pub => Role::Pub,
            Self::Push => Role::Push,
            Self::Req => Role::Req,
            Self::Dealer => Role::Dealer,
        }
    }
}

/// The parts of a message, and the time limit of its attempt.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) topic: Option<Template>,
    pub(super) frames: ZeroMqFrames,
    pub(super) require_receiver: bool,
    pub(super) forward: Forward,
    pub(super) timeout: Duration,
}

impl ZeroMqConfig {
    pub(super) fn read(&self, role: Role, webhook: &WebhookKey) -> Result<Target, BuildError> {
        if self.endpoint.is_some() || self.socket_type.is_some() {
            let text = "`endpoint` and `socket_type` belong to a connection of the type `zeromq`, so that the operator \
                        decides which ports are opened: move them there, with `\"bind\": true` to bind as before";
            return Err(text.into());
        }
        if role != Role::Pub && (self.topic.is_some() || self.require_receiver.is_some()) {
            return Err("`topic` and `require_receiver` need a connection with the `socket_type` PUB".into());
        }
        if self.forward_headers && self.frames == ZeroMqFrames::Body {
            return Err("`forward_headers` needs `\"frames\": \"event\"`: the body alone has no headers".into());
        }
        let topic = self.topic.as_deref().map(|text| Template::compile("topic", text, ZEROMQ_TOPIC, webhook));
        Ok(Target {
            topic: topic.transpose()?,
            frames: self.frames,
            require_receiver: self.require_receiver.unwrap_or(true),
            forward: forward(self.forward_headers, self.allowed_headers.as_deref())?,
            timeout: limit(self.timeout)?,
        })
    }
}

/// The options of [`ZeroMqConnection`](super::ZeroMqConnection).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroMqConnectionConfig {
    /// `tcp://host:port`, or `tcp://*:port` with `bind`. Required.
    pub endpoint: String,
    /// `PUB`, `PUSH`, `REQ` or `DEALER`. Required.
    pub socket_type: ZeroMqSocketType,
    /// Whether peers connect to this machine, in place of a connection to the peer. Off by default. Needs an address that
    /// the operator's list of allowed networks names.
    #[serde(default)]
    pub bind: bool,
}

/// Where an endpoint is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Connect(Server),
    Bind(IpAddr, u16),
}

impl ZeroMqConnectionConfig {
    pub(super) fn place(&self) -> Result<Place, BuildError> {
        let rule = "`endpoint` must be `tcp://host:port`: other transports, such as `ipc` and `inproc`, do not leave this machine";
        let rest = self.endpoint.strip_prefix("tcp://").ok_or(rule)?;
        let is_any = rest.starts_with("*:");
        let rest = if is_any { rest.replacen('*', "0.0.0.0", 1) } else { rest.to_owned() };
        // No endpoint without a port has a meaning.
        let server = Server::parse("endpoint", &rest, 0)?;
        match (server.port, self.bind) {
            (0, _) => Err("`endpoint` needs a port".into()),
            (_, false) if is_any => Err("`*` in `endpoint` needs `\"bind\": true`".into()),
            (_, false) => Ok(Place::Connect(server)),
            (port, true) => {
                let address = server.literal().ok_or("`bind` needs an address in `endpoint`, or `*`, and no name")?;
                Ok(Place::Bind(address, port))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, role: Role) -> Result<Target, String> {
        let config: ZeroMqConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.read(role, &WebhookKey::new("shop", "orders").unwrap()).map_err(|error| error.to_string())
    }

    fn place(json: &str) -> Result<Place, String> {
        let config: ZeroMqConnectionConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.place().map_err(|error| error.to_string())
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (json, role, words) in [
            (r#"{"endpoint": "tcp://*:5555"}"#, Role::Pub, "belong to a connection of the type `zeromq`"),
            (r#"{"socket_type": "PUSH"}"#, Role::Push, "belong to a connection of the type `zeromq`"),
            (r#"{"topic": "a"}"#, Role::Push, "PUB"),
            (r#"{"require_receiver": false}"#, Role::Req, "PUB"),
            (r#"{"topic": ""}"#, Role::Pub, "`topic`"),
            (r#"{"topic": "a\n"}"#, Role::Pub, "control character"),
            (r#"{"forward_headers": true}"#, Role::Pub, "needs `\"frames\": \"event\"`"),
            (r#"{"frames": "all"}"#, Role::Pub, "unknown variant"),
            (r#"{"timeout": 0}"#, Role::Pub, "`timeout`"),
        ] {
            let error = read(json, role).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        assert!(read("{}", Role::Push).unwrap().require_receiver);
        let topic =
            read(r#"{"topic": "{webhook}", "frames": "event", "forward_headers": true}"#, Role::Pub).unwrap().topic;
        assert_eq!(topic.unwrap().constant(), Some("orders"));
    }

    #[test]
    fn an_endpoint_is_connected_to_unless_it_is_bound() {
        let connect = place(r#"{"endpoint": "tcp://Peer.example:5555", "socket_type": "PUSH"}"#).unwrap();
        assert_eq!(connect, Place::Connect(Server::new("peer.example", 5555).unwrap()));
        for (endpoint, address) in
            [("tcp://*:5555", "0.0.0.0".parse().unwrap()), ("tcp://[::1]:5555", "::1".parse().unwrap())]
        {
            let json = format!(r#"{{"endpoint": "{endpoint}", "socket_type": "PUB", "bind": true}}"#);
            assert_eq!(place(&json).unwrap(), Place::Bind(address, 5555));
        }
        for (json, words) in [
            (r#"{"endpoint": "tcp://*:1", "socket_type": "PUB"}"#, "needs `\"bind\": true`"),
            (r#"{"endpoint": "tcp://a:1", "socket_type": "PUB", "bind": true}"#, "no name"),
            (r#"{"endpoint": "tcp://a", "socket_type": "PUB"}"#, "needs a port"),
            (r#"{"endpoint": "ipc:///run/x", "socket_type": "PUB"}"#, "do not leave this machine"),
            (r#"{"endpoint": "inproc://x", "socket_type": "PUB"}"#, "do not leave this machine"),
            (r#"{"endpoint": "a:1", "socket_type": "PUB"}"#, "`tcp://host:port`"),
            (r#"{"endpoint": "tcp://a:1"}"#, "missing field `socket_type`"),
            (r#"{"endpoint": "tcp://a:1", "socket_type": "PULL"}"#, "unknown variant `PULL`"),
        ] {
            let error = place(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
