//! The kinds of errors that the answers of a server mean.

use std::error::Error;

use async_nats::jetstream::Error as StreamError;
use async_nats::jetstream::ErrorCode;
use async_nats::{ConnectError, ConnectErrorKind};

use crate::egress;
use crate::event::DeliverError;
use crate::event::DeliverErrorKind::{self, Auth, Config, Connect, Permanent, Throttled, Timeout, Unavailable};
use crate::module::broker::Server;

/// No session with `server`: the egress allows no address, or none was found.
pub(super) fn unreachable(server: &Server, error: &egress::ConnectError) -> DeliverError {
    let kind = match error {
        egress::ConnectError::Forbidden(..) => Config,
        egress::ConnectError::Timeout => Timeout,
        _ => Connect,
    };
    DeliverError::new(kind, format!("{server}: {error}"))
}

/// No session with `server`. `is_tls` says whether the connection asks for TLS.
pub(super) fn not_connected(server: &Server, error: &ConnectError, is_tls: bool) -> DeliverError {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    let said = cause.to_ascii_lowercase();
    let (kind, text) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            (Auth, "the server refuses the login; check the connection's credentials".to_owned())
        }
        ConnectErrorKind::TimedOut => (Timeout, "the server did not answer in time".to_owned()),
        _ if is_of_tls(&said) && !is_tls => {
            (Config, "the server requires TLS; set `tls` of the connection, or `tls://` in its `url`".to_owned())
        }
        // An alert of the server is about the client's certificate: this side judges the server's.
        _ if said.contains("fatal alert") && (said.contains("certificate") || said.contains("unknownca")) => (
            Auth,
            format!("the server refuses the client certificate, or requires one; see `client_cert` in `tls`{cause}"),
        ),
        _ if said.contains("authentication") || said.contains("authorization") => {
            (Auth, format!("the server refuses the login{cause}"))
        }
        _ if said.contains("maximum") => (Unavailable, format!("the server takes no more connections{cause}")),
        _ => (Connect, format!("no connection{cause}")),
    };
    DeliverError::new(kind, format!("{server}: {text}"))
}

fn is_of_tls(said: &str) -> bool {
    ["certificate", "tls", "alert", "handshake"].iter().any(|word| said.contains(word))
}

/// A stream did not store the event.
pub(super) fn not_stored(error: &StreamError) -> DeliverError {
    let text = error.to_string();
    // The same code means a full stream and a broken disk.
    let kind = match kind(error.error_code(), error.code()) {
        Throttled if error.error_code() == ErrorCode::STREAM_STORE_FAILED && !text.contains("maximum") => Unavailable,
        kind => kind,
    };
    DeliverError::new(kind, format!("no stream stored the event: {text}"))
}

/// The kind for an error of JetStream: by its own code, or else by its status.
fn kind(ErrorCode(code): ErrorCode, status: usize) -> DeliverErrorKind {
    match code {
        // The limits of the account, the server or the stream (`discard: new`).
        10002 | 10023 | 10028 | 10047 | 10077 => Throttled,
        // The message or its headers are too large for the stream.
        10054 | 10097 => Permanent,
        // Another stream than the expected one, no JetStream, no account, a sealed stream.
        10035 | 10039 | 10056 | 10059 | 10060 | 10076 | 10109 => Config,
        // Another copy of the event is being stored.
        10158 => Unavailable,
        _ => match status {
            400 => Permanent,
            404 => Config,
            _ => Unavailable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_kind() {
        for (code, status, expected) in [
            (10077, 503, Throttled),
            (10047, 500, Throttled),
            (10023, 503, Throttled),
            (10002, 400, Throttled),
            (10054, 400, Permanent),
            (10060, 400, Config),
            (10039, 503, Config),
            (10008, 503, Unavailable),
            (10158, 409, Unavailable),
            (10071, 400, Permanent),
            (0, 500, Unavailable),
            (0, 404, Config),
        ] {
            assert_eq!(kind(ErrorCode(code), status), expected, "{code}");
        }
    }
}
