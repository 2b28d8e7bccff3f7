//! The kinds of errors that the answers of a target mean.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::event::DeliverError;
use crate::event::DeliverErrorKind::{self, Auth, Config, Connect, Permanent, Throttled, Timeout, Unavailable};

/// No connection, because the target refuses the handshake, or something broke.
pub(super) fn not_connected(host: &str, error: &Error) -> DeliverError {
    let (kind, text) = match error {
        Error::Http(response) => {
            let status = response.status();
            let kind = match status.as_u16() {
                401 | 403 | 407 => Auth,
                429 => Throttled,
                408 => Timeout,
                500..=599 => Unavailable,
                _ => Config,
            };
            (kind, format!("the target answers the handshake with {status}"))
        }
        Error::Io(error) => {
            let said = error.to_string().to_ascii_lowercase();
            // Over TLS 1.3 a client learns from the first bytes that it reads whether its certificate is accepted.
            match said.contains("alert") && (said.contains("certificate") || said.contains("unknownca")) {
                true => (Auth, format!("the target refuses the client certificate, or requires one: {error}")),
                false => (Connect, format!("the connection broke during the handshake: {error}")),
            }
        }
        error => (Connect, format!("the handshake fails: {error}")),
    };
    DeliverError::new(kind, format!("{host}: {text}"))
}

/// The target has closed the connection. `is_only` says whether one message alone was on its way, to which the reason
/// refers then.
pub(super) fn closed(host: &str, frame: Option<&CloseFrame>, is_only: bool) -> DeliverError {
    let Some(frame) = frame else { return lost(host, "the target has closed it") };
    let code = u16::from(frame.code);
    // The numbers from RFC 6455 §7.4.1 and IANA's registry.
    let (kind, text) = match code {
        1001 | 1012 => (Unavailable, "the target stops or restarts"),
        1003 | 1007 if is_only => (Permanent, "the target does not accept such messages"),
        1009 if is_only => (Permanent, "the event is too large for the target"),
        1008 if is_only => (Config, "the target says that its policy forbids this"),
        1011 => (Unavailable, "the target has an internal error"),
        1013 => (Throttled, "the target is overloaded"),
        3000 | 3003 => (Auth, "the target does not permit it"),
        _ => (Connect, "the target has closed the connection"),
    };
    let said: String = frame.reason.chars().filter(|char| !char.is_control()).take(123).collect();
    match said.is_empty() {
        true => DeliverError::new(kind, format!("{host}: {text} (code {code})")),
        false => DeliverError::new(kind, format!("{host}: {text} (code {code}: {said})")),
    }
}

/// The connection was lost before the message was known to have arrived.
pub(super) fn lost(host: &str, cause: &str) -> DeliverError {
    DeliverError::new(
        Connect,
        format!("{host}: the connection was lost before the event was known to have arrived: {cause}"),
    )
}

pub(super) fn of(host: &str, kind: DeliverErrorKind, text: &str) -> DeliverError {
    DeliverError::new(kind, format!("{host}: {text}"))
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    #[test]
    fn each_status_and_each_code_has_its_kind() {
        for (status, expected) in [
            (401, Auth),
            (403, Auth),
            (404, Config),
            (301, Config),
            (400, Config),
            (200, Config),
            (429, Throttled),
            (500, Unavailable),
            (503, Unavailable),
        ] {
            let response = http::Response::builder().status(status).body(None).unwrap();
            assert_eq!(not_connected("a:1", &Error::Http(Box::new(response))).kind(), expected, "{status}");
        }
        let frame = |code: u16| CloseFrame { code: CloseCode::from(code), reason: "s\naid".into() };
        for (code, is_only, expected) in [
            (1000, true, Connect),
            (1001, true, Unavailable),
            (1008, true, Config),
            (1008, false, Connect),
            (1009, true, Permanent),
            (1009, false, Connect),
            (1003, true, Permanent),
            (1011, true, Unavailable),
            (1012, true, Unavailable),
            (1013, true, Throttled),
            (3000, true, Auth),
            (4001, true, Connect),
        ] {
            let error = closed("a:1", Some(&frame(code)), is_only);
            assert_eq!(error.kind(), expected, "{code}");
            assert!(error.to_string().contains(&format!("(code {code}: said)")), "{error}");
        }
        assert_eq!(closed("a:1", None, true).kind(), Connect);
    }
}
