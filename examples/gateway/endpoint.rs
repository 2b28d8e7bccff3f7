//! The endpoint of etcd that `ETCD_HOST` and `ETCD_PORT` name.

use std::net::Ipv6Addr;

/// A wrong variable: its name and the reason.
pub(crate) type Wrong = (&'static str, String);

/// The endpoint as a URL. `port` may be a number or `tcp://host:port`, which Kubernetes sets in each pod for a Service
/// `etcd`, and Docker for a link of this name. The host of that value is used if `host` is not set.
pub(crate) fn endpoint(host: Option<&str>, port: Option<&str>, tls: bool) -> Result<String, Wrong> {
    let (linked_host, port) = match port.map(str::trim) {
        None => (None, 2379),
        Some(text) => match text.split_once("://") {
            None => (None, number(text)?),
            Some(("tcp", address)) => {
                let (host, port) = address.trim_end_matches('/').rsplit_once(':').ok_or_else(|| wrong_port(text))?;
                (Some(host).filter(|host| !host.is_empty()), number(port).map_err(|_| wrong_port(text))?)
            }
            Some(_) => return Err(wrong_port(text)),
        },
    };
    let (name, host) = match (host, linked_host) {
        (Some(host), _) => ("ETCD_HOST", host.trim()),
        (None, Some(host)) => ("ETCD_PORT", host),
        (None, None) => ("ETCD_HOST", "localhost"),
    };
    let scheme = if tls { "https" } else { "http" };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // An IPv6 address needs brackets.
    match bare.parse::<Ipv6Addr>() {
        Ok(address) => Ok(format!("{scheme}://[{address}]:{port}")),
        Err(_) if is_name(host) => Ok(format!("{scheme}://{host}:{port}")),
        Err(_) => {
            let expected = "expected the name or address of a host alone; its port belongs to ETCD_PORT";
            Err((name, format!("found `{}`, {expected}", shown(host))))
        }
    }
}

fn number(text: &str) -> Result<u16, Wrong> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port > 0 && digits).ok_or_else(|| wrong_port(text))
}

fn wrong_port(text: &str) -> Wrong {
    let expected = "expected a port from 1 to 65535, or tcp://host:port, which Kubernetes sets for a Service `etcd`";
    ("ETCD_PORT", format!("found `{}`, {expected}", shown(text)))
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// The beginning of a text, with control characters escaped: it fits on one line.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_link_is_understood() {
        for (host, port, endpoint_) in [
            (None, None, "localhost:2379"),
            (None, Some("2380"), "localhost:2380"),
            (Some("etcd"), None, "etcd:2379"),
            (None, Some("tcp://10.96.0.10:2379"), "10.96.0.10:2379"),
            (None, Some("tcp://10.96.0.10:12379"), "10.96.0.10:12379"),
            (None, Some("tcp://[fd00::1]:2379"), "[fd00::1]:2379"),
            (None, Some("tcp://fd00::1:2379"), "[fd00::1]:2379"),
            (None, Some("tcp://etcd.example:2379/"), "etcd.example:2379"),
            (Some("etcd.db.svc"), Some("tcp://10.96.0.10:1234"), "etcd.db.svc:1234"),
            (Some("fd00::2"), Some("tcp://10.96.0.10:1234"), "[fd00::2]:1234"),
            (Some("[::1]"), Some("2379"), "[::1]:2379"),
            (Some(" etcd "), Some(" 2379 "), "etcd:2379"),
        ] {
            assert_eq!(endpoint(host, port, false), Ok(format!("http://{endpoint_}")), "{host:?} {port:?}");
            assert_eq!(endpoint(host, port, true), Ok(format!("https://{endpoint_}")), "{host:?} {port:?}");
        }
    }

    #[test]
    fn the_wrong_one_of_the_two_is_named() {
        for port in [
            "x",
            "0",
            "65536",
            "-1",
            "+2379",
            "2379 2380",
            "udp://10.96.0.10:2379",
            "sctp://10.96.0.10:2379",
            "http://10.96.0.10:2379",
            "tcp://10.96.0.10",
            "tcp://10.96.0.10:0",
            "tcp://10.96.0.10:x",
            "tcp://a b:2379",
            "tcp://a/b:2379",
            "tcp://u@a:2379",
            "tcp://",
        ] {
            assert_eq!(endpoint(None, Some(port), false).unwrap_err().0, "ETCD_PORT", "{port}");
        }
        for host in ["a b", "h:99", "http://a", "a/b", "u@a", "", "[etcd]", "a\nb"] {
            let (name, reason) = endpoint(Some(host), Some("tcp://10.96.0.10:2379"), false).unwrap_err();
            assert_eq!(name, "ETCD_HOST", "{host}");
            assert!(!reason.contains('\n'));
        }
    }
}
