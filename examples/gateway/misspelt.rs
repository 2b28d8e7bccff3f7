//! Finds variables whose name resembles one of the gateway's.

/// The least similarity, from 0 to 1, at which one name is suggested for another.
const ALIKE: f64 = 0.75;

/// A name that is not a variable of the gateway, and the nearest one that is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misspelt {
    pub(crate) name: String,
    pub(crate) nearest: Option<&'static str>,
}

/// Finds misspelt names in an environment. `known` holds all variables of the gateway.
///
/// A name counts as misspelt if it has the first word of a known one, up to the underscore, or is very similar to one.
/// Variables that Kubernetes sets in every pod for its Services never count, whatever the name of the Service.
pub(crate) fn misspelt<'a>(
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    known: &[&'static str],
) -> Vec<Misspelt> {
    let is_ours = |name: &str| {
        let first = |name: &str| name.split_once('_').map(|(first, _)| first.to_owned());
        // Other programs use `RUST_` too.
        first(name).is_some_and(|word| word != "RUST" && known.iter().any(|known| first(known).as_ref() == Some(&word)))
    };
    let mut found = Vec::new();
    for (name, value) in environment {
        if known.contains(&name) || is_of_service_link(name, value) {
            continue;
        }
        let upper = name.to_uppercase();
        let nearest = nearest(&upper, known);
        // A short name resembles many others.
        let is_very_near = nearest
            .is_some_and(|near| upper == near || near.len() >= 8 && strsim::damerau_levenshtein(&upper, near) <= 2);
        if is_ours(&upper) || is_very_near {
            found.push(Misspelt { name: name.to_owned(), nearest });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// The name among `known` that is most similar to `name`, if any is similar enough.
pub(crate) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &str| {
        // `HEADER_TIMEOUT` for `HEADER_TIMEOUT_SECONDS`, `TLS_CERT_FILE` for `TLS_CERT`.
        let begins = known.strip_prefix(name).or(name.strip_prefix(known)).is_some_and(|rest| rest.starts_with('_'));
        if begins { 0.95 } else { strsim::normalized_damerau_levenshtein(name, known) }
    };
    let (likeness, nearest) =
        known.iter().map(|known| (likeness(known), *known)).max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness >= ALIKE).then_some(nearest)
}

/// Whether a variable looks like those that Kubernetes sets for a Service, or Docker for a link.
pub(crate) fn is_of_service_link(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    // `X_PORT_2379_TCP`, also followed by `_PROTO`, `_PORT` or `_ADDR`.
    let is_port_of = |rest: &str| {
        let mut words = rest.split('_');
        let is_number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let is_protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
        is_number && is_protocol && words.next().is_none_or(|word| ["PROTO", "PORT", "ADDR"].contains(&word))
    };
    name.ends_with("_PORT") && link(value).is_some()
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_port_of(rest))
}

/// The `host:port` of `tcp://host:port`.
pub(crate) fn link(value: &str) -> Option<&str> {
    let (scheme, address) = value.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let is_link = ["tcp", "udp", "sctp"].contains(&scheme) && !host.is_empty() && port.parse::<u16>().is_ok();
    is_link.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &[
        "ETCD_PREFIX",
        "ETCD_PORT",
        "SPOOL_DIR",
        "MAX_BODY_BYTES",
        "HEADER_TIMEOUT_SECONDS",
        "TLS_CERT",
        "TLS_KEY",
        "HOST",
        "PORT",
        "RUST_LOG",
        "LOG_FORMAT",
        "ADMIN_TOKEN",
        "EGRESS_ALLOW",
    ];

    #[test]
    fn a_misspelt_name_has_a_nearest_one() {
        for (name, near) in [
            ("MAX_BODY_BYTE", "MAX_BODY_BYTES"),
            ("ETCD_PREFX", "ETCD_PREFIX"),
            ("SPOOL_DIRS", "SPOOL_DIR"),
            ("HEADER_TIMEOUT", "HEADER_TIMEOUT_SECONDS"),
            ("TLS_CERT_FILE", "TLS_CERT"),
            ("spool_dir", "SPOOL_DIR"),
            ("SPOOLDIR", "SPOOL_DIR"),
            ("EGRES_ALLOW", "EGRESS_ALLOW"),
        ] {
            let expected = [Misspelt { name: name.to_owned(), nearest: Some(near) }];
            assert_eq!(misspelt([(name, "x")], KNOWN), expected, "{name}");
        }
        assert_eq!(misspelt([("ETCD_DATA_DIR", "x")], KNOWN)[0].nearest, None);
    }

    #[test]
    fn what_belongs_to_others_is_not_misspelt() {
        for name in [
            "PATH",
            "HOME",
            "HOSTNAME",
            "RUST_BACKTRACE",
            "ETCDCTL_API",
            "LOGNAME",
            "SHELL",
            "POD_IP",
            "MAXIMUM",
            "MY_TOKEN",
            "REPORT",
            "GHOST",
        ] {
            assert_eq!(misspelt([(name, "x")], KNOWN), [], "{name}");
        }
        for name in KNOWN {
            assert_eq!(misspelt([(*name, "x")], KNOWN), []);
        }
    }

    #[test]
    fn what_a_service_sets_is_not_misspelt() {
        for service in ["ETCD", "SPOOL", "MAX", "TLS", "ADMIN", "SPOOL_DIR", "MAX_PORT", "ETCD_PORT_1_TCP"] {
            for (end, value) in [
                ("_SERVICE_HOST", "10.96.0.10"),
                ("_SERVICE_PORT", "2379"),
                ("_SERVICE_PORT_CLIENT", "2379"),
                ("_SERVICE_PORT_HTTP_METRICS", "2379"),
                ("_PORT", "tcp://10.96.0.10:2379"),
                ("_PORT", "udp://[fd00::1]:53"),
                ("_PORT_2379_TCP", "tcp://10.96.0.10:2379"),
                ("_PORT_2379_TCP_PROTO", "tcp"),
                ("_PORT_2379_TCP_PORT", "2379"),
                ("_PORT_2379_TCP_ADDR", "10.96.0.10"),
                ("_PORT_53_UDP_ADDR", "10.96.0.10"),
            ] {
                assert_eq!(misspelt([(format!("{service}{end}").as_str(), value)], KNOWN), [], "{service}{end}");
            }
        }
        assert!(!is_of_service_link("SPOOL_PORT", "2379"));
        assert!(!is_of_service_link("SPOOL_PORT_X", "2379"));
    }

    #[test]
    fn a_link_has_a_protocol_a_host_and_a_port() {
        assert_eq!(link("tcp://10.96.0.10:2379"), Some("10.96.0.10:2379"));
        assert_eq!(link("tcp://[fd00::1]:80"), Some("[fd00::1]:80"));
        for text in ["", "8000", "tcp://", "tcp://:80", "tcp://a:b", "tcp://a:70000", "http://a:80", "a:80"] {
            assert_eq!(link(text), None, "{text}");
        }
    }
}
