//! What an error of etcd's means.

use std::error::Error as _;
use std::fmt::Write as _;

use etcd_client::{Error, WatchResponse};

use crate::source::etcd::machine::Fault;
use crate::store::ErrorKind;

pub(super) fn refused(response: &WatchResponse) -> Fault {
    let reason = response.cancel_reason();
    let kind = if response.compact_revision() > 0 { ErrorKind::Compacted } else { kind_of(reason) };
    Fault { kind, reason: format!("etcd canceled the watch: {reason}") }
}

/// A server that does not take our certificate may close the connection before its alert can be read (TLS 1.3).
pub(super) fn over_tls(endpoint: &str, mut fault: Fault) -> Fault {
    if endpoint.starts_with("https://") && fault.kind == ErrorKind::Other {
        fault.reason.push_str(" (it may be that etcd wants a client certificate, or another one)");
    }
    fault
}

pub(super) fn fault(error: Error) -> Fault {
    let mut reason = match &error {
        Error::GRpcStatus(status) if !status.message().is_empty() => status.message().to_owned(),
        other => other.to_string(),
    };
    // etcd-client's own words hide the cause.
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            let _ = write!(reason, ": {text}");
        }
        cause = error.source();
    }
    Fault { kind: kind_of(&reason), reason }
}

/// What an error's words mean. gRPC's codes do not tell: `OutOfRange` is a compaction and a message that is too large,
/// `Unavailable` a missing leader, a wrong certificate and a dead server.
fn kind_of(reason: &str) -> ErrorKind {
    const WORDS: [(&str, ErrorKind); 18] = [
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
        ("auth", ErrorKind::Unauthenticated),
        ("certificate", ErrorKind::Tls),
        ("tls", ErrorKind::Tls),
        ("request timed out", ErrorKind::Timeout),
        ("frame with invalid size", ErrorKind::Protocol),
        ("tcp connect error", ErrorKind::Unreachable),
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
