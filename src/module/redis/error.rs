//! Errors of the server and of the connection, as errors of a delivery.

use redis::{ErrorKind, RedisError, ServerError};

use crate::event::{DeliverError, DeliverErrorKind};

/// The error of a command that `server`, a host and a port, did not carry out.
pub(super) fn failure(server: &str, error: RedisError) -> DeliverError {
    let failed = |kind, reason: &str| DeliverError::new(kind, format!("{server}: {reason}"));
    match error.kind() {
        ErrorKind::Io => {
            let kind = if error.is_timeout() { DeliverErrorKind::Timeout } else { DeliverErrorKind::Connect };
            return failed(kind, &format!("the connection broke: {error}"));
        }
        ErrorKind::Parse => {
            return failed(DeliverErrorKind::Connect, "the server does not speak the protocol of Redis");
        }
        _ => {}
    }
    let text = error.to_string();
    let Some(errors) = error.into_server_errors() else { return failed(DeliverErrorKind::Permanent, &text) };
    // A transaction that was given up has an error for each command at fault, and one that says only that.
    let first = errors.iter().map(|(_, error)| error).find(|error| error.code() != "EXECABORT");
    match first.or_else(|| errors.first().map(|(_, error)| error)) {
        Some(error) => refusal(server, error),
        None => failed(DeliverErrorKind::Permanent, &text),
    }
}

fn refusal(server: &str, error: &ServerError) -> DeliverError {
    let (code, details) = (error.code(), error.details().unwrap_or_default());
    let (kind, hint) = judge(code, details);
    // For an unknown command the server quotes the arguments, and the body is one of them.
    let said = match details.split_once(", with args") {
        Some((said, _)) => said,
        None => details,
    };
    let said: String = said.chars().take(300).collect();
    DeliverError::new(kind, format!("{server} answered {code}: {said}{hint}"))
}

/// The kind of an error that the server answered with, and what an operator can do.
fn judge(code: &str, details: &str) -> (DeliverErrorKind, &'static str) {
    use DeliverErrorKind as Kind;
    let details = details.to_ascii_lowercase();
    match code {
        "NOAUTH" | "WRONGPASS" => (Kind::Auth, ""),
        "NOPERM" => {
            (Kind::Config, "; an ACL of the server must allow the command and the key to the connection's user")
        }
        "WRONGTYPE" => (Kind::Config, "; another name is needed, because something else is stored under this one"),
        "MOVED" | "ASK" => {
            (Kind::Config, "; the server belongs to a cluster, and this module does not follow to another one")
        }
        "CROSSSLOT" => (Kind::Config, "; this module does not support a cluster"),
        "DENIED" | "NOPROTO" => (Kind::Config, ""),
        // A server that starts, has lost its primary, is a replica, has no memory or disk left, or runs a script.
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "READONLY" | "OOM" | "MISCONF" | "BUSY"
        | "NOREPLICAS" | "UNBLOCKED" => (Kind::Unavailable, ""),
        _ if details.contains("unknown command") => {
            (Kind::Config, "; the server is too old for the command, or is no Redis server but a Sentinel")
        }
        _ if details.contains("max number of clients") => (Kind::Unavailable, ""),
        _ if details.contains("auth") || details.contains("password") => (Kind::Auth, ""),
        _ if details.contains("invalid bulk length") => {
            (Kind::Permanent, "; the event is larger than the server's `proto-max-bulk-len`")
        }
        _ if details.contains("db index") || details.contains("waitaof") || details.contains("wait cannot") => {
            (Kind::Config, "")
        }
        _ => (Kind::Permanent, ""),
    }
}

/// Whether the connection leads to a server that takes no events, and another attempt to connect may find one that does:
/// a name may lead to the new primary by then.
pub(super) fn is_of_a_replica(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_server_have_their_kinds() {
        for (code, details, kind) in [
            ("NOAUTH", "Authentication required.", "auth"),
            ("WRONGPASS", "invalid username-password pair or user is disabled.", "auth"),
            ("ERR", "AUTH <password> called without any password configured for the default user.", "auth"),
            ("NOPERM", "this user has no permissions to run the 'xadd' command", "config"),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", "config"),
            ("MOVED", "3999 127.0.0.1:6381", "config"),
            ("ERR", "unknown command 'WAITAOF', with args beginning with: '1' ", "config"),
            ("ERR", "DB index is out of range", "config"),
            ("ERR", "max number of clients reached", "unavailable"),
            ("LOADING", "Redis is loading the dataset in memory", "unavailable"),
            ("MASTERDOWN", "Link with MASTER is down", "unavailable"),
            ("READONLY", "You can't write against a read only replica.", "unavailable"),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", "unavailable"),
            ("MISCONF", "Errors writing to the AOF file: No space left on device", "unavailable"),
            ("ERR", "Protocol error: invalid bulk length", "permanent"),
            ("ERR", "something else", "permanent"),
        ] {
            let error = redis::make_extension_error(code.to_owned(), Some(details.to_owned()));
            let error = failure("a:1", error);
            assert_eq!(error.kind().label(), kind, "{code} {details}");
            assert!(!error.to_string().contains("with args"), "{error}");
        }
    }
}
