//! Classifies the errors of etcd and its client, and suggests how to correct them.

use std::error::Error as _;
use std::fmt::Write as _;

use etcd_client::{Error, WatchResponse};

use super::probe;
use super::probe::Speaks;
use crate::source::etcd::machine::Fault;
use crate::store::ErrorKind;

pub(super) fn refused(response: &WatchResponse) -> Fault {
    let reason = response.cancel_reason();
    let kind = if response.compact_revision() > 0 { ErrorKind::Compacted } else { kind_of(reason) };
    Fault { kind, reason: format!("etcd canceled the watch: {reason}") }
}

/// Adds to a failed connection attempt its probable cause and how to correct it.
pub(super) async fn explained(endpoint: &str, fault: Fault) -> Fault {
    let is_odd = matches!(fault.kind, ErrorKind::Other | ErrorKind::Protocol | ErrorKind::Tls);
    let speaks = match is_odd && hint(&fault.reason).is_none() {
        true => probe::ask(endpoint).await,
        false => None,
    };
    with_hint(endpoint.starts_with("https://"), speaks, fault)
}

fn with_hint(https: bool, speaks: Option<Speaks>, mut fault: Fault) -> Fault {
    let (kind, reason) = match (https, speaks) {
        (false, Some(Speaks::Tls)) => (
            ErrorKind::Tls,
            "the server speaks TLS and the endpoint is http://; use https://, and name the authority that signed the \
             server's certificate unless it is a public one (the gateway's ETCD_CA_CERT)",
        ),
        (true, Some(Speaks::Http1 | Speaks::Http2)) => (
            ErrorKind::Tls,
            "the server does not speak TLS and the endpoint is https://; use http:// (in the gateway without \
             ETCD_CA_CERT and ETCD_CLIENT_CERT), or switch TLS on in etcd",
        ),
        (false, Some(Speaks::Http1)) => (
            ErrorKind::Protocol,
            "the server speaks HTTP/1, which no etcd does on its port for clients; check host and port: etcd listens \
             for clients on port 2379 if nothing else is configured",
        ),
        _ => {
            // With TLS 1.3 etcd may close the connection before its alert can be read.
            let unread = "etcd may want a client certificate, or another one";
            let hint = hint(&fault.reason).or((fault.kind == ErrorKind::Other).then_some(unread));
            if let Some(hint) = hint.filter(|_| https) {
                let _ = write!(fault.reason, " ({hint})");
            }
            return fault;
        }
    };
    Fault { kind, reason: reason.to_owned() }
}

/// How to correct a problem with a certificate.
fn hint(reason: &str) -> Option<&'static str> {
    const HINTS: [(&str, &str); 4] = [
        (
            "unknownissuer",
            "etcd's certificate is not signed by an authority that is trusted here; the gateway trusts those in ETCD_CA_CERT, or \
             the system's",
        ),
        ("expired", "etcd's certificate must be renewed, or the clock here is wrong"),
        ("not valid for name", "use an endpoint by a name or address that etcd's certificate holds"),
        (
            "received fatal alert",
            "etcd wants a client certificate, or another one; the gateway's are ETCD_CLIENT_CERT and ETCD_CLIENT_KEY",
        ),
    ];
    let reason = reason.to_ascii_lowercase();
    HINTS.iter().find(|(words, _)| reason.contains(words)).map(|(_, hint)| *hint)
}

pub(super) fn fault(error: Error) -> Fault {
    let mut reason = match &error {
        Error::GRpcStatus(status) if !status.message().is_empty() => status.message().to_owned(),
        other => other.to_string(),
    };
    // etcd-client's own message hides the cause.
    let mut cause = match &error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        other => other.source(),
    };
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) && text != "transport error" {
            let _ = write!(reason, ": {text}");
        }
        cause = error.source();
    }
    Fault { kind: kind_of(&reason), reason }
}

/// Classifies an error by its message. gRPC's codes are ambiguous: `OutOfRange` means a compaction or a message that is
/// too large, `Unavailable` a missing leader, a wrong certificate or a dead server.
fn kind_of(reason: &str) -> ErrorKind {
    const WORDS: [(&str, ErrorKind); 20] = [
        ("required revision has been compacted", ErrorKind::Compacted),
        ("required revision is a future revision", ErrorKind::HistoryChanged),
        ("decoded message length too large", ErrorKind::TooLarge),
        ("no leader", ErrorKind::NoLeader),
        ("leader changed", ErrorKind::NoLeader),
        ("not supported for learner", ErrorKind::Learner),
        ("permission denied", ErrorKind::PermissionDenied),
        ("authentication failed", ErrorKind::Unauthenticated),
        ("invalid auth token", ErrorKind::Unauthenticated),
        ("user name is empty", ErrorKind::Unauthenticated),
        ("user name not found", ErrorKind::Unauthenticated),
        ("authentication is not enabled", ErrorKind::Unauthenticated),
        ("auth store", ErrorKind::Unauthenticated),
        ("certificate", ErrorKind::Tls),
        ("tls", ErrorKind::Tls),
        ("request timed out", ErrorKind::Timeout),
        ("frame with invalid size", ErrorKind::Protocol),
        ("tcp connect error", ErrorKind::Unreachable),
        ("dns error", ErrorKind::Unreachable),
        ("error reading a body from connection", ErrorKind::Unreachable),
    ];
    let reason = reason.to_ascii_lowercase();
    WORDS.iter().find(|(words, _)| reason.contains(words)).map_or(ErrorKind::Other, |(_, kind)| *kind)
}

pub(super) fn broken(reason: &str) -> Fault {
    Fault { kind: ErrorKind::Protocol, reason: reason.to_owned() }
}

pub(super) fn no_header() -> Fault {
    broken("etcd's answer has no header")
}

pub(super) fn ended() -> Fault {
    broken("etcd ended the watch")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: ErrorKind, reason: &str) -> Fault {
        Fault { kind, reason: reason.to_owned() }
    }

    #[test]
    fn each_connection_error_says_how_to_correct_it() {
        let canceled = || fault(ErrorKind::Other, "operation was canceled");
        for (https, speaks, found, kind, words) in [
            (false, Some(Speaks::Tls), canceled(), ErrorKind::Tls, "use https://"),
            (true, Some(Speaks::Http2), canceled(), ErrorKind::Tls, "use http://"),
            (true, Some(Speaks::Http1), canceled(), ErrorKind::Tls, "use http://"),
            (false, Some(Speaks::Http1), canceled(), ErrorKind::Protocol, "port 2379"),
            (true, None, canceled(), ErrorKind::Other, "client certificate"),
            (
                true,
                None,
                fault(ErrorKind::Tls, "invalid peer certificate: UnknownIssuer"),
                ErrorKind::Tls,
                "ETCD_CA_CERT",
            ),
            (true, None, fault(ErrorKind::Tls, "certificate expired"), ErrorKind::Tls, "renewed"),
            (
                true,
                None,
                fault(ErrorKind::Tls, "certificate not valid for name \"a\""),
                ErrorKind::Tls,
                "use an endpoint",
            ),
            (true, None, fault(ErrorKind::Tls, "received fatal alert: UnknownCA"), ErrorKind::Tls, "ETCD_CLIENT_CERT"),
        ] {
            let told = with_hint(https, speaks, found);
            assert!(told.kind == kind && told.reason.contains(words), "{told:?}");
        }
        // Without a known cause nothing is added.
        assert_eq!(with_hint(false, None, canceled()), canceled());
        assert_eq!(with_hint(false, Some(Speaks::Http2), canceled()), canceled());
    }

    #[test]
    fn each_message_has_the_right_kind() {
        for (reason, kind) in [
            ("etcdserver: authentication failed, invalid user ID or password", ErrorKind::Unauthenticated),
            ("etcdserver: revision of auth store is old", ErrorKind::Unauthenticated),
            ("tls: certificate signed by unknown authority", ErrorKind::Tls),
            ("dns error: failed to lookup address information", ErrorKind::Unreachable),
            ("the authority of a URL", ErrorKind::Other),
        ] {
            assert_eq!(kind_of(reason), kind, "{reason}");
        }
    }
}
