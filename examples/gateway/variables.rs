//! Every variable of the gateway: the one place for its name, its default, and what `--help` says of it.

pub(crate) struct Variable {
    pub(crate) name: &'static str,
    /// As it would be set; empty if there is none.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    /// Holds a secret, or names a file that does: no webhook may read it.
    is_secret: bool,
}

const fn variable(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default, help, is_secret: false }
}

const fn secret(name: &'static str, help: &'static str) -> Variable {
    Variable { name, default: "", help, is_secret: true }
}

/// In the order of the README's table, which a test holds against this one.
pub(crate) const VARIABLES: &[Variable] = &[
    variable("CONFIG_BACKEND", "file", "where webhooks are configured: file or etcd"),
    variable("CONFIG_ON_INVALID", "keep", "what a bad value does: keep the last good one, or fence with 503"),
    variable("WEBHOOKS_CONFIG_FILE", "webhooks.json", "for file: the webhooks"),
    variable("CONNECTIONS_CONFIG_FILE", "connections.json", "for file: the connections"),
    variable("ETCD_HOST", "localhost", "one endpoint"),
    variable("ETCD_PORT", "2379", "its port"),
    variable("ETCD_ENDPOINTS", "", "several endpoints, as comma-separated URLs; wins over the two above"),
    variable("ETCD_PREFIX", "/cwm/", "what every key begins with; ends with a slash"),
    variable("ETCD_NAMESPACE", "default", "the namespace of /webhook/{id}, and of a file that names none"),
    variable("ETCD_USERNAME", "", "needs ETCD_PASSWORD"),
    secret("ETCD_PASSWORD", "needs ETCD_USERNAME"),
    variable("ETCD_CA_CERT", "", "PEM file: whom to trust, in place of the system's authorities"),
    variable("ETCD_CLIENT_CERT", "", "PEM file; needs ETCD_CLIENT_KEY"),
    secret("ETCD_CLIENT_KEY", "PEM file; needs ETCD_CLIENT_CERT"),
    variable("HOST", "0.0.0.0", "the address to listen on"),
    variable("PORT", "8000", "the port to listen on; 0 lets the system choose"),
    variable("ADMIN_HOST", "", "the address of the operator's own listener; without it that of HOST"),
    variable("ADMIN_PORT", "", "opens a listener of its own, in plain HTTP, for /admin, /metrics, /health and /ready"),
    variable("TLS_CERT", "", "PEM file for HTTPS, read again when it changes; needs TLS_KEY"),
    secret("TLS_KEY", "PEM file for HTTPS, read again when it changes; needs TLS_CERT"),
    variable(
        "TRUSTED_PROXIES",
        "",
        "networks of proxies that name the client, comma-separated; needs CLIENT_ADDRESS_HEADER",
    ),
    variable("CLIENT_ADDRESS_HEADER", "", "the one field in which they do: X-Forwarded-For, Forwarded or another one"),
    variable("MAX_CONNECTIONS", "10000", "more connections are closed at once"),
    variable("MAX_BODY_BYTES", "25MiB", "the largest body"),
    variable("BODY_MEMORY_BYTES", "", "for all bodies in memory; not set, an eighth of the memory"),
    variable("HEADER_TIMEOUT_SECONDS", "10", "for the whole head of a request, and for the TLS handshake"),
    variable("IDLE_TIMEOUT_SECONDS", "75", "how long a connection may be idle between two requests"),
    variable("BODY_TIMEOUT_SECONDS", "30", "for the whole body"),
    variable("DELIVERY_TIMEOUT_SECONDS", "30", "for the module; of an accepted event, for each attempt"),
    variable("SHUTDOWN_GRACE_SECONDS", "30", "for what runs at the stop"),
    variable("CONFIG_CACHE_DIR", "", "directory for a copy of what etcd holds, for a start without etcd"),
    variable("SAVE_TO_DISK_ROOT", "./data", "directory below which save_to_disk writes"),
    variable("SPOOL_DIR", "", "directory for accepted events and the ids of dedup; neither works without it"),
    variable("SPOOL_MAX_BYTES", "1GiB", "how large the accepted events may become on disk"),
    variable("DEAD_LETTER_DAYS", "14", "how long dead letters are kept"),
    variable("EGRESS_ALLOW", "", "networks that http_webhook may reach besides public addresses"),
    variable("EGRESS_NAT64", "", "IPv6 prefixes from which a translator leads to IPv4: 2001:db8:64::/96"),
    variable("EGRESS_CA_CERT", "", "PEM file: whom http_webhook trusts as well, read again when it changes"),
    secret("ADMIN_TOKEN", "the token that opens /admin, without `Bearer`"),
    variable("RUST_LOG", "info", "the log's filter"),
    variable("LOG_FORMAT", "text", "text or json"),
];

/// What counts while the variable is not set.
pub(crate) fn default(name: &str) -> Option<&'static str> {
    VARIABLES
        .iter()
        .find(|variable| variable.name == name)
        .map(|variable| variable.default)
        .filter(|text| !text.is_empty())
}

/// Whether a variable holds a secret of the gateway.
pub(crate) fn is_secret(name: &str) -> bool {
    VARIABLES.iter().any(|variable| variable.is_secret && variable.name == name)
}

/// Whether a webhook may read a variable through a placeholder: not the gateway's secrets, and nothing of its etcd.
pub(crate) fn may_be_read(name: &str) -> bool {
    !is_secret(name) && !name.starts_with("ETCD_")
}

#[cfg(test)]
mod tests {
    use super::{VARIABLES, may_be_read};

    #[test]
    fn no_webhook_reads_a_variable_whose_name_says_secret() {
        let words = ["PASSWORD", "SECRET", "TOKEN", "KEY"];
        let secret = |name: &str| name.rsplit('_').next().is_some_and(|last| words.contains(&last));
        let names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).filter(|name| secret(name)).collect();
        assert_eq!(names, ["ETCD_PASSWORD", "ETCD_CLIENT_KEY", "TLS_KEY", "ADMIN_TOKEN"]);
        assert!(names.iter().all(|name| !may_be_read(name)), "{names:?}");
        assert!(may_be_read("PORT") && may_be_read("ACME_TOKEN") && !may_be_read("ETCD_HOST"));
    }
}
