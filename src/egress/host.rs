//! Checks the host of a target, before anything is looked up.

use std::net::IpAddr;

use super::policy::{EgressPolicy, OPENED_BY};
use crate::base::host::is_name;

/// Checks that `host` is a name, or an address in its usual form that `policy` allows. The addresses of a name are
/// checked when a connection is made.
///
/// # Errors
///
/// The rest of a sentence that begins with the key of the host.
pub(crate) fn check(host: &str, policy: &EgressPolicy) -> Result<(), String> {
    match literal(host) {
        Some(address) => match policy.refusal(address) {
            None => Ok(()),
            Some(class) => Err(format!("names {class}: {OPENED_BY}")),
        },
        None if is_name(host) => Ok(()),
        None => Err("must name a host, or an address in its usual form".to_owned()),
    }
}

/// The address that `host` is, if it is not a name. An IPv6 address may stand in brackets.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_allowed_address() {
        let policy = "127.0.0.0/8, fd00::/8".parse().unwrap();
        for host in ["example.com", "some_service", "127.0.0.1", "8.8.8.8", "fd00::1", "[fd00::1]", "localhost"] {
            assert_eq!(check(host, &policy), Ok(()), "{host}");
        }
        for host in
            ["", "127.1", "0x7f.1", "a b", "a/b", "a:1", "user@a", "[example.com]", "[127.0.0.1]", "fd00::1%eth0"]
        {
            assert!(check(host, &policy).unwrap_err().starts_with("must name a host"), "{host}");
        }
        let error = check("10.0.0.1", &policy).unwrap_err();
        assert!(error.starts_with("names a private address: ") && error.contains("EGRESS_ALLOW"), "{error}");
        assert!(check("::1", &policy).unwrap_err().starts_with("names a loopback address"));
    }
}
