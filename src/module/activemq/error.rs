//! The kinds of errors that the answers of a server mean.

use std::io;

use super::frame::{Frame, Unwritable};
use crate::egress;
use crate::event::DeliverError;
use crate::event::DeliverErrorKind::{self, Auth, Config, Connect, Permanent, Timeout, Unavailable};
use crate::module::broker::Server;

/// The most characters of the server's text that an error shows.
const MAX_SHOWN: usize = 300;

/// No connection to `server`.
pub(super) fn unreachable(server: &Server, error: &egress::ConnectError) -> DeliverError {
    let kind = match error {
        egress::ConnectError::Forbidden(..) => Config,
        egress::ConnectError::Timeout => Timeout,
        egress::ConnectError::Tls(error) if of_certificate(error) => Auth,
        _ => Connect,
    };
    DeliverError::new(kind, format!("{server}: {error}"))
}

/// The connection broke before the server has answered the login.
pub(super) fn broke(server: &Server, error: &io::Error) -> DeliverError {
    match of_certificate(error) {
        true => {
            let text = format!("{server}: the server does not accept the client's certificate: {error}");
            DeliverError::new(Auth, text)
        }
        false => DeliverError::new(Connect, format!("{server}: the connection broke before the login: {error}")),
    }
}

/// The server does not answer as STOMP requires.
pub(super) fn not_stomp(server: &Server, wrong: &str) -> DeliverError {
    DeliverError::new(Connect, format!("{server}: the server does not speak STOMP 1.2: {wrong}"))
}

/// Whether the server has refused the client's certificate, or its absence: over TLS 1.3 the client learns that from the
/// first bytes that it reads.
fn of_certificate(error: &io::Error) -> bool {
    let said = error.to_string().to_ascii_lowercase();
    said.contains("fatal alert") && (said.contains("certificate") || said.contains("unknownca"))
}

/// The server does not take the login. `password` is left out of its text.
pub(super) fn refused_login(server: &Server, frame: &Frame, password: Option<&str>) -> DeliverError {
    let said = said(frame);
    let kind = kind_of_login(&said);
    let said = match password {
        Some(password) if said.contains(password) => "the login is refused".to_owned(),
        _ => said,
    };
    DeliverError::new(kind, format!("{server}: {said}"))
}

fn kind_of_login(said: &str) -> DeliverErrorKind {
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["virtual host", "vhost", "version"]) {
        Config
    } else if has(&["maximum number", "connection limit", "too many", "shutting down", "being stopped"]) {
        Unavailable
    } else {
        Auth
    }
}

/// The server refuses a message.
pub(super) fn refused(frame: &Frame) -> DeliverError {
    let said = said(frame);
    let kind = kind(&said);
    let text = match kind {
        Permanent => format!("the event is too large for the server: {said}"),
        Config => format!("the server refuses messages to this destination: {said}"),
        _ => format!("the server does not take the message: {said}"),
    };
    DeliverError::new(kind, text)
}

/// The kind for the text of a server. STOMP has no codes: these are the words of ActiveMQ and RabbitMQ. A text may also
/// have names of users and destinations in it, so that the words must be long enough to be no part of a name.
fn kind(said: &str) -> DeliverErrorKind {
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["message size", "frame size", "data length", "header length", "headers was exceeded", "too large"]) {
        Permanent
    } else if has(&["not authorized", "access denied"]) {
        Config
    } else if has(&["limit reached", "is full", "no space left", "resourceallocation"]) {
        Unavailable
    } else if has(&[
        "not_found",
        "access_refused",
        "not_allowed",
        "precondition_failed",
        "does not exist",
        "unknown destination",
        "invalid destination",
    ]) {
        Config
    } else {
        Unavailable
    }
}

/// The server has ended the connection with an error that may be about another message.
pub(super) fn ended_by(frame: &Frame) -> DeliverError {
    let text = "the server has ended the connection before it has confirmed the message";
    DeliverError::new(Connect, format!("{text}: {}", said(frame)))
}

/// The server's words: its `message`, and the first line of the body if that says more.
fn said(frame: &Frame) -> String {
    let message = frame.header("message").unwrap_or_default().trim();
    let body = String::from_utf8_lossy(&frame.body);
    let line = body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let text = match (message.is_empty(), line.is_empty() || line.contains(message)) {
        (true, true) => "the server gives no reason".to_owned(),
        (true, false) => line.to_owned(),
        (false, true) => message.to_owned(),
        (false, false) => format!("{message}: {line}"),
    };
    text.chars().take(MAX_SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// The connection was lost.
pub(super) fn lost() -> DeliverError {
    DeliverError::new(Connect, "the connection was lost before the server has confirmed the message")
}

/// The server sends nothing, neither receipts nor heart-beats.
pub(super) fn silent() -> DeliverError {
    DeliverError::new(Timeout, "the server has not answered for too long")
}

/// The server sends something else than frames.
pub(super) fn garbled(wrong: &str) -> DeliverError {
    DeliverError::new(Connect, format!("the server does not speak STOMP 1.2: {wrong}"))
}

/// A header of the message is beyond the bounds.
pub(super) fn unwritable(name: &str, wrong: Unwritable) -> DeliverError {
    DeliverError::new(Permanent, format!("the header `{name}` cannot be sent: {wrong}"))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::frame::Decoder;
    use super::*;

    fn frame(message: &str, body: &str) -> Frame {
        let bytes = format!("ERROR\nmessage:{message}\n\n{body}\0");
        Decoder::default().next(&mut BytesMut::from(bytes.as_bytes())).unwrap().unwrap()
    }

    /// The texts are those of RabbitMQ 3.10.8 and ActiveMQ 5.17.2.
    #[test]
    fn each_text_of_a_server_has_its_kind() {
        for (message, body, expected) in [
            ("not_found", "NOT_FOUND - no exchange 'missing' in vhost '/'\n", Config),
            ("access_refused", "ACCESS_REFUSED - write access to exchange 'e' refused", Config),
            ("precondition_failed", "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q'", Config),
            (
                "precondition_failed",
                "PRECONDITION_FAILED - message size 2 is larger than configured max size 1",
                Permanent,
            ),
            ("Unknown destination", "'/foo/bar' is not a valid destination.", Config),
            ("User limited is not authorized to write to\\c queue\\c//a", "", Config),
            ("The maximum frame size was exceeded", "org.apache.activemq.transport.stomp.ProtocolException", Permanent),
            ("Usage Manager Memory Limit reached on queue\\c//q. See http\\c//x", "javax.jms", Unavailable),
            ("Persistent store is Full, 100% of 1048576. Stopping producer", "", Unavailable),
            ("Processing error", "Processing error", Unavailable),
            ("", "", Unavailable),
        ] {
            assert_eq!(refused(&frame(message, body)).kind(), expected, "{message}");
        }
        let server = Server::new("mq", 1).unwrap();
        for (message, body, expected) in [
            ("Bad CONNECT", "Access refused for user 'tester'\n", Auth),
            ("Bad CONNECT", "Virtual host 'nope' access denied", Config),
            ("Version mismatch", "Supported versions are 1.0,1.1,1.2", Config),
            ("User name [tester] or password is invalid.", "", Auth),
            ("Exceeded the maximum number of allowed client connections. See", "", Unavailable),
        ] {
            assert_eq!(refused_login(&server, &frame(message, body), Some("s3cret")).kind(), expected, "{message}");
        }
    }

    #[test]
    fn a_text_of_the_server_is_one_line_of_bounded_length_without_the_password() {
        let long = "x".repeat(1000);
        assert_eq!(said(&frame("first", "\n second\nthird")), "first: second");
        assert_eq!(said(&frame("same", "same\n")), "same");
        assert_eq!(said(&frame("", "")), "the server gives no reason");
        assert_eq!(said(&frame("a\\nb\tc", "")), "a b c");
        assert_eq!(said(&frame(&long, "")).len(), MAX_SHOWN);
        let server = Server::new("mq", 1).unwrap();
        let error = refused_login(&server, &frame("User u with s3cret", ""), Some("s3cret"));
        assert!(!error.to_string().contains("s3cret") && error.kind() == Auth, "{error}");
    }
}
