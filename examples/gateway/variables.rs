//! The table of the gateway's variables, with their defaults and their lines of `--help`.

pub(crate) struct Variable {
    pub(crate) name: &'static str,
    /// As one would set it; empty if there is none.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    /// Whether the value is a secret or the path of a secret file: no webhook may read it.
    is_secret: bool,
}

const fn variable(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default, help, is_secret: false }
}

const fn secret(name: &'static str, help: &'static str) -> Variable {
    Variable { name, default: "", help, is_secret: true }
}

/// In the order of the table in README.md, which a test compares with this one.
pub(crate) const VARIABLES: &[Variable] = &[
    variable("CONFIG_BACKEND", "file", "where webhooks are configured: file or etcd"),
    variable(
        "CONFIG_ON_INVALID",
        "keep",
        "after an invalid value of a webhook: keep the last good one, or fence the webhook with 503",
    ),
    variable("WEBHOOKS_CONFIG_FILE", "webhooks.json", "for CONFIG_BACKEND=file: the webhooks"),
    variable("CONNECTIONS_CONFIG_FILE", "connections.json", "for CONFIG_BACKEND=file: the connections"),
    variable("ETCD_HOST", "localhost", "the host of the only endpoint"),
    variable("ETCD_PORT", "2379", "the port of the only endpoint"),
    variable("ETCD_ENDPOINTS", "", "several endpoints, as comma-separated URLs; replaces ETCD_HOST and ETCD_PORT"),
    variable("ETCD_PREFIX", "/cwm/", "the beginning of every key"),
    variable("ETCD_NAMESPACE", "default", "the namespace of /webhook/{id}, and of a file that names none"),
    variable("ETCD_USERNAME", "", "the user; requires ETCD_PASSWORD"),
    secret("ETCD_PASSWORD", "the user's password; requires ETCD_USERNAME"),
    variable("ETCD_CA_CERT", "", "PEM file: the authorities of etcd's certificate; not set, those of the system"),
    variable("ETCD_CLIENT_CERT", "", "PEM file: the certificate for etcd; requires ETCD_CLIENT_KEY"),
    secret("ETCD_CLIENT_KEY", "PEM file: its key; requires ETCD_CLIENT_CERT"),
    variable("HOST", "0.0.0.0", "the address to listen on"),
    variable("PORT", "8000", "the port to listen on; 0 lets the system choose"),
    variable("ADMIN_HOST", "", "the address of the operator's listener; not set, that of HOST"),
    variable("ADMIN_PORT", "", "opens a separate plain HTTP listener for /admin, /metrics, /health and /ready"),
    variable("TLS_CERT", "", "PEM file: the certificate for HTTPS; requires TLS_KEY"),
    secret("TLS_KEY", "PEM file: its key; requires TLS_CERT"),
    variable("TRUSTED_PROXIES", "", "networks of your proxies, comma-separated; requires CLIENT_ADDRESS_HEADER"),
    variable(
        "CLIENT_ADDRESS_HEADER",
        "",
        "the header field in which your proxies name the client, such as X-Forwarded-For",
    ),
    variable("PUBLIC_URL", "", "the gateway's address as senders have it, for those who sign it"),
    variable("MAX_CONNECTIONS", "10000", "connections that are served at a time"),
    variable("MAX_BODY_BYTES", "25MiB", "the largest body"),
    variable("BODY_MEMORY_BYTES", "", "memory for all bodies together; not set, an eighth of the machine's"),
    variable("HEADER_TIMEOUT_SECONDS", "10", "time for the head of a request and for the TLS handshake"),
    variable("IDLE_TIMEOUT_SECONDS", "75", "how long a connection may be idle between two requests"),
    variable("BODY_TIMEOUT_SECONDS", "30", "time for the whole body"),
    variable("DELIVERY_TIMEOUT_SECONDS", "30", "time for the delivery; for an accepted event, for each attempt"),
    variable("SHUTDOWN_GRACE_SECONDS", "30", "time for running requests and deliveries when the gateway stops"),
    variable("CONFIG_CACHE_DIR", "", "directory for a copy of the configuration in etcd, for a start without etcd"),
    variable("SAVE_TO_DISK_ROOT", "./data", "directory below which save_to_disk writes"),
    variable("SPOOL_DIR", "", "directory for accepted events and the ids of dedup; required by both"),
    variable("SPOOL_MAX_BYTES", "1GiB", "the most that accepted events may occupy on disk"),
    variable("DEAD_LETTER_DAYS", "14", "how long dead letters are kept"),
    variable("HISTORY_DIR", "", "directory for the history of events; not set, there is none"),
    variable("HISTORY_MAX_BYTES", "2GiB", "the most that the history may occupy on disk"),
    variable("HISTORY_DAYS", "14", "how long events are kept in the history"),
    variable("HISTORY_BODY_DAYS", "", "how long their bodies are kept; not set, as long as the events"),
    variable("HISTORY_FULL_TEXT", "true", "whether the beginnings of bodies can be searched: true or false"),
    variable(
        "EGRESS_ALLOW",
        "",
        "networks that http_webhook and connections to brokers may connect to besides public addresses",
    ),
    variable("EGRESS_NAT64", "", "IPv6 prefixes of NAT64 translators, such as 2001:db8:64::/96"),
    variable(
        "EGRESS_CA_CERT",
        "",
        "PEM file: certificates that http_webhook and connections to brokers trust besides the system's authorities",
    ),
    variable("SECRETS_DIR", "", "directory of secrets, one per file, for {$file:name}"),
    variable("PLACEHOLDER_ALLOW", "", "environment variables that webhooks may name: ACME_TOKEN, STRIPE_*"),
    secret("ADMIN_TOKEN", "the token for /admin, without the word Bearer"),
    secret("ADMIN_READ_TOKEN", "a token for /admin that may only read"),
    secret("ADMIN_TOKENS_FILE", "JSON file: more tokens for /admin, as digests, each with its namespaces and rights"),
    variable("RUST_LOG", "info", "the log's filter"),
    variable("LOG_FORMAT", "text", "text or json"),
    variable("LOG_ACCESS", "none", "the form of the access log: none, json or common (Apache's)"),
    variable("METRICS_LABELS", "none", "counts also by webhook or by namespace: none, namespace or webhook"),
    variable("METRICS_MAX_SERIES", "1000", "the most series that METRICS_LABELS may add"),
];

/// The value while the variable is not set.
pub(crate) fn default(name: &str) -> Option<&'static str> {
    VARIABLES
        .iter()
        .find(|variable| variable.name == name)
        .map(|variable| variable.default)
        .filter(|text| !text.is_empty())
}

/// Whether a variable holds one of the gateway's secrets.
pub(crate) fn is_secret(name: &str) -> bool {
    VARIABLES.iter().any(|variable| variable.is_secret && variable.name == name)
}

/// Whether a webhook may read a variable through a placeholder: neither the gateway's secrets nor its variables of etcd.
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
        assert_eq!(names, ["ETCD_PASSWORD", "ETCD_CLIENT_KEY", "TLS_KEY", "ADMIN_TOKEN", "ADMIN_READ_TOKEN"]);
        assert!(names.iter().all(|name| !may_be_read(name)), "{names:?}");
        assert!(may_be_read("PORT") && may_be_read("ACME_TOKEN") && !may_be_read("ETCD_HOST"));
    }
}
