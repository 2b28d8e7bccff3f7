//! The kinds of errors that the answers of a server mean.

use std::io;

use lapin::protocol::AMQPError;
use lapin::{Error, ErrorKind};

use crate::egress;
use crate::event::DeliverError;
use crate::event::DeliverErrorKind::{self, Auth, Config, Connect, Permanent, Timeout, Unavailable};
use crate::module::broker::Server;

/// Codes of AMQP 0.9.1, §1.2 of its generated reference.
const CONTENT_TOO_LARGE: u16 = 311;
const NO_ROUTE: u16 = 312;
const CONNECTION_FORCED: u16 = 320;
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const RESOURCE_ERROR: u16 = 506;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;
const INTERNAL_ERROR: u16 = 541;

/// No connection to `server`.
pub(super) fn unreachable(server: &Server, error: &egress::ConnectError) -> DeliverError {
    let kind = match error {
        egress::ConnectError::Forbidden(..) => Config,
        egress::ConnectError::Timeout => Timeout,
        _ => Connect,
    };
    DeliverError::new(kind, format!("{server}: {error}"))
}

/// No TLS session with `server`.
pub(super) fn no_tls(server: &Server, error: &io::Error) -> DeliverError {
    DeliverError::new(Connect, format!("{server}: no TLS: {error}"))
}

/// The server does not take the login. `has_certificate` is `None` without TLS.
pub(super) fn not_connected(server: &Server, error: &Error, has_certificate: Option<bool>) -> DeliverError {
    let (kind, text) = match error.kind() {
        ErrorKind::ProtocolError(refusal) => match refusal.get_id() {
            ACCESS_REFUSED => (Auth, "the server refuses the user or the password of the connection".to_owned()),
            NOT_ALLOWED => {
                let said = refusal.get_message();
                (Config, format!("the user may not use the virtual host, or there is none of this name: {said}"))
            }
            _ => (kind(refusal), refusal.to_string()),
        },
        ErrorKind::IOError(error) if of_certificate(error) => {
            (Auth, format!("the server does not accept the client's certificate: {error}"))
        }
        ErrorKind::IOError(error) => {
            // Its reason may be lost: a server that refuses a certificate resets the connection.
            let or = match has_certificate {
                None => "",
                Some(true) => ", or the server does not accept the client's certificate",
                Some(false) => ", or the server wants the client's certificate",
            };
            (Connect, format!("the connection broke before the login was complete{or}: {error}"))
        }
        ErrorKind::MissingHeartbeatError => (Timeout, "the server does not answer".to_owned()),
        ErrorKind::InvalidProtocolVersion(version) => {
            (Config, format!("the server speaks AMQP {version}, and this module speaks AMQP 0.9.1"))
        }
        ErrorKind::ParsingError(_) => (Connect, "the server does not speak AMQP 0.9.1".to_owned()),
        _ => (Connect, format!("no connection: {error}")),
    };
    DeliverError::new(kind, format!("{server}: {text}"))
}

/// Whether the server has refused the client's certificate, or its absence: over TLS 1.3 the client learns that from the
/// first bytes that it reads.
fn of_certificate(error: &io::Error) -> bool {
    let said = error.to_string().to_ascii_lowercase();
    said.contains("alert") && (said.contains("certificate") || said.contains("unknownca"))
}

/// The connection was lost, or no channel can be opened.
pub(super) fn of_connection(error: &Error) -> DeliverError {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => DeliverError::new(kind(refusal), refusal.to_string()),
        ErrorKind::MissingHeartbeatError => DeliverError::new(Timeout, "the server has not answered for too long"),
        ErrorKind::ChannelsLimitReached => {
            DeliverError::new(Unavailable, "the server allows no further channel on the connection")
        }
        _ => lost(),
    }
}

/// The connection was lost before the server has confirmed the message.
pub(super) fn lost() -> DeliverError {
    DeliverError::new(Connect, "the connection was lost before the server has confirmed the message")
}

/// The queue cannot be made.
pub(super) fn not_declared(error: &Error) -> DeliverError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return of_connection(error) };
    let said = refusal.get_message();
    let text = match refusal.get_id() {
        PRECONDITION_FAILED => format!(
            "the queue exists and is not a durable classic one: set `declare` to false, or choose another `queue_name` ({said})"
        ),
        ACCESS_REFUSED => format!("the user may not make the queue: permit it, or set `declare` to false ({said})"),
        RESOURCE_LOCKED => format!("the queue belongs to another connection alone ({said})"),
        _ => return DeliverError::new(kind(refusal), format!("the queue cannot be made: {refusal}")),
    };
    DeliverError::new(Config, text)
}

/// The server has refused the message, or the connection was lost.
pub(super) fn not_published(error: &Error) -> DeliverError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return of_connection(error) };
    let said = refusal.get_message();
    let text = match refusal.get_id() {
        NOT_FOUND => format!("the server has no such exchange: make it, or correct `exchange` ({said})"),
        ACCESS_REFUSED => format!("the user may not publish there: permit it ({said})"),
        PRECONDITION_FAILED | CONTENT_TOO_LARGE if is_too_large(refusal) => {
            return DeliverError::new(Permanent, format!("the event is too large for the server ({said})"));
        }
        _ => return DeliverError::new(kind(refusal), format!("the server refuses the message: {refusal}")),
    };
    DeliverError::new(Config, text)
}

fn is_too_large(refusal: &AMQPError) -> bool {
    refusal.get_id() == CONTENT_TOO_LARGE || refusal.get_message().as_str().contains("message size")
}

/// The server has returned the message, because no queue gets it.
pub(super) fn returned(code: u16, said: &str) -> DeliverError {
    match code {
        NO_ROUTE => DeliverError::new(
            Config,
            "no queue gets this message: the queue is missing, or none is bound to the exchange with this routing key",
        ),
        _ => DeliverError::new(Unavailable, format!("the server has returned the message: {said}")),
    }
}

/// The server has answered `basic.nack`: a queue is full and set to refuse, or it cannot store the message.
pub(super) fn rejected() -> DeliverError {
    DeliverError::new(
        Unavailable,
        "the server does not take the message (basic.nack): a queue is full, or cannot store it",
    )
}

/// The channel has no confirms. It always asks for them.
pub(super) fn unconfirmed() -> DeliverError {
    DeliverError::new(Unavailable, "the server has not confirmed the message")
}

/// The server reads nothing from the connection.
pub(super) fn blocked(reason: &str) -> DeliverError {
    DeliverError::new(Unavailable, format!("the server takes no messages now: {reason}"))
}

/// The kind for an error of the server, whatever it is about.
fn kind(refusal: &AMQPError) -> DeliverErrorKind {
    match refusal.get_id() {
        CONTENT_TOO_LARGE => Permanent,
        ACCESS_REFUSED | NOT_FOUND | RESOURCE_LOCKED | PRECONDITION_FAILED | NOT_ALLOWED | NOT_IMPLEMENTED => Config,
        CONNECTION_FORCED | RESOURCE_ERROR | INTERNAL_ERROR => Unavailable,
        // The others are violations of the protocol, after which the server closes the connection.
        _ => Connect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, text: &str) -> Error {
        ErrorKind::ProtocolError(AMQPError::from_id(code, text.into()).unwrap()).into()
    }

    #[test]
    fn each_code_has_its_kind() {
        for (code, text, expected) in [
            (404, "NOT_FOUND - no exchange 'e' in vhost '/'", Config),
            (403, "ACCESS_REFUSED - write access to exchange 'e' refused", Config),
            (406, "PRECONDITION_FAILED - message size 2 is larger than configured max size 1", Permanent),
            (406, "PRECONDITION_FAILED - invalid expiration", Config),
            (311, "CONTENT_TOO_LARGE", Permanent),
            (320, "CONNECTION_FORCED - broker forced connection closure", Unavailable),
            (541, "INTERNAL_ERROR", Unavailable),
            (501, "FRAME_ERROR", Connect),
        ] {
            assert_eq!(not_published(&refusal(code, text)).kind(), expected, "{text}");
        }
        for (code, expected) in [(406, Config), (403, Config), (405, Config), (541, Unavailable)] {
            assert_eq!(not_declared(&refusal(code, "")).kind(), expected, "{code}");
        }
        let server = Server::new("rabbit", 5672).unwrap();
        for (code, expected) in [(403, Auth), (530, Config), (320, Unavailable)] {
            assert_eq!(not_connected(&server, &refusal(code, ""), None).kind(), expected, "{code}");
        }
        let alert = io::Error::other("received fatal alert: CertificateRequired");
        assert_eq!(not_connected(&server, &alert.into(), Some(true)).kind(), Auth);
        let broken = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(not_connected(&server, &broken.into(), Some(true)).kind(), Connect);
        assert_eq!((returned(312, "").kind(), returned(313, "").kind()), (Config, Unavailable));
    }
}
