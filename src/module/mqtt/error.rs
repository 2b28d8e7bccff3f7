//! The kinds of errors that the answers of a server mean.

use std::io;
use std::time::Duration;

use super::incoming::{Reason, Violation};
use super::packet::Version;
use crate::event::DeliverError;
use crate::event::DeliverErrorKind::{self, Auth, Config, Connect, Permanent, Throttled, Timeout, Unavailable};

/// No answer to the login.
pub(super) fn silent(server: &str, limit: Duration) -> DeliverError {
    DeliverError::new(Timeout, format!("{server}: no session within {limit:?}"))
}

/// The connection broke before the server has answered the login.
pub(super) fn not_answered(server: &str, error: &io::Error) -> DeliverError {
    let said = error.to_string().to_ascii_lowercase();
    // Over TLS 1.3 a client learns from the first bytes that it reads whether its certificate is accepted.
    match said.contains("alert") && (said.contains("certificate") || said.contains("unknownca")) {
        true => DeliverError::new(
            Auth,
            format!(
                "{server}: the server refuses the client certificate, or requires one; see `client_cert` in `tls`: {error}"
            ),
        ),
        false => {
            DeliverError::new(Connect, format!("{server}: the connection broke before the login was answered: {error}"))
        }
    }
}

/// The server does not take the client.
pub(super) fn refused(server: &str, version: Version, reason: &Reason) -> DeliverError {
    let version_text = match version {
        Version::V4 => "the server does not speak MQTT 3.1.1",
        Version::V5 => "the server does not speak MQTT 5; set `mqtt_version` to \"3.1.1\"",
    };
    let login = "the server refuses the login; check `username` and `password`";
    let client_id = "the server refuses the client id; see `client_id`";
    let (kind, text) = match reason.code {
        1 | 0x84 => (Config, version_text),
        2 | 0x85 => (Config, client_id),
        3 | 0x88 => (Unavailable, "the server takes no clients now"),
        4 | 5 | 0x86 | 0x87 => (Auth, login),
        0x8A => (Auth, "the server has banned the client"),
        0x8C => (Auth, "the server wants another way to log in"),
        0x89 => (Unavailable, "the server is busy"),
        0x97 => (Throttled, "the server's quota is used up"),
        0x9C | 0x9D => (Config, "the server says that the client should use another server"),
        0x9F => (Throttled, "the server takes no more connections for a while"),
        _ => (Connect, "the server refuses the connection"),
    };
    DeliverError::new(kind, format!("{server}: {text} ({})", said(reason)))
}

/// The server violates the protocol.
pub(super) fn violation(server: &str, violation: Violation) -> DeliverError {
    DeliverError::new(Connect, format!("{server}: the server does not speak MQTT: {}", violation.0))
}

/// The server has ended the session. No kind means that another attempt is useless, because the reason may be another
/// delivery's message.
pub(super) fn ended(server: &str, reason: &Reason) -> DeliverError {
    let (kind, text) = match reason.code {
        0x89 | 0x8B => (Unavailable, "the server stops, or is busy"),
        0x8E => (Connect, "another client has logged in with the same client id; each needs its own `client_id`"),
        0x96 | 0x97 | 0x9F => (Throttled, "the server has ended the session: too many messages"),
        _ => (Connect, "the server has ended the session"),
    };
    DeliverError::new(kind, format!("{server}: {text} ({})", said(reason)))
}

/// The connection was lost before the server has acknowledged the message.
pub(super) fn lost(server: &str, cause: &str) -> DeliverError {
    DeliverError::new(Connect, format!("{server}: the connection was lost before the acknowledgement: {cause}"))
}

/// The server has acknowledged the message with an error.
pub(super) fn not_taken(server: &str, reason: &Reason) -> DeliverError {
    let (kind, text) = match reason.code {
        0x87 => (Config, "the user may not publish to the topic"),
        0x90 => (Config, "the server does not accept the topic"),
        0x95 => (Permanent, "the event is too large for the server"),
        0x96 | 0x97 => (Throttled, "the server's quota is used up"),
        0x99 => (Permanent, "the server does not accept the message's content"),
        0x9A => (Config, "the server keeps no messages: set `retained` to false"),
        0x9B => (Config, "the server does not support this `qos`"),
        _ => (Unavailable, "the server does not take the message"),
    };
    DeliverError::new(kind, format!("{server}: {text} ({})", said(reason)))
}

/// The server has acknowledged the message, and no client gets it.
pub(super) fn no_receiver(server: &str) -> DeliverError {
    let text = "no client is subscribed to the topic, so the event is gone";
    DeliverError::new(Unavailable, format!("{server}: {text}"))
}

fn said(reason: &Reason) -> String {
    match &reason.text {
        Some(text) if !text.is_empty() => format!("reason 0x{:02X}: {text}", reason.code),
        _ => format!("reason 0x{:02X}", reason.code),
    }
}

/// A message that the server will not take, as it has said when the session began.
pub(super) fn not_sent(server: &str, kind: DeliverErrorKind, text: &str) -> DeliverError {
    DeliverError::new(kind, format!("{server}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_kind() {
        let reason = |code| Reason { code, text: Some("said".into()) };
        for (code, expected) in [
            (1, Config),
            (2, Config),
            (3, Unavailable),
            (4, Auth),
            (5, Auth),
            (0x80, Connect),
            (0x84, Config),
            (0x86, Auth),
        ] {
            assert_eq!(refused("a:1", Version::V5, &reason(code)).kind(), expected, "{code}");
        }
        for (code, expected) in [
            (0x80, Unavailable),
            (0x83, Unavailable),
            (0x87, Config),
            (0x90, Config),
            (0x91, Unavailable),
            (0x95, Permanent),
            (0x97, Throttled),
            (0x99, Permanent),
        ] {
            let error = not_taken("a:1", &reason(code));
            assert_eq!(error.kind(), expected, "{code}");
            assert!(error.to_string().contains(&format!("(reason 0x{code:02X}: said)")), "{error}");
        }
        for (code, expected) in [(0x8B, Unavailable), (0x8E, Connect), (0x95, Connect), (0x97, Throttled), (0, Connect)]
        {
            assert_eq!(ended("a:1", &reason(code)).kind(), expected, "{code}");
        }
        let alert = io::Error::other("received fatal alert: CertificateRequired");
        assert_eq!(not_answered("a:1", &alert).kind(), Auth);
        assert_eq!(not_answered("a:1", &io::ErrorKind::UnexpectedEof.into()).kind(), Connect);
    }
}
