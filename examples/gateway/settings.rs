//! The environment variables. A wrong value is an error that names its variable; an empty one counts as not set.

use std::fmt::Display;
use std::fs::File;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tower_webhook::OnInvalid;
use tower_webhook::auth::Bearer;
use tower_webhook::module::{Egress, EgressPolicy};
use tower_webhook::source::{EtcdOptions, EtcdSource, EtcdTls};

use crate::Error;

pub(crate) struct Settings {
    pub(crate) backend: Backend,
    /// Of a path that names none.
    pub(crate) namespace: String,
    pub(crate) on_invalid: OnInvalid,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) max_connections: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) save_to_disk_root: PathBuf,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) spool_max_bytes: u64,
    pub(crate) dead_letter_age: Duration,
    pub(crate) egress: Egress,
    pub(crate) admin: Option<Bearer>,
    pub(crate) log_filter: String,
    pub(crate) log_json: bool,
}

pub(crate) enum Backend {
    Etcd(EtcdOptions),
    File { webhooks: PathBuf, connections: PathBuf },
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, Error> {
        let backend = match choice("CONFIG_BACKEND", &["file", "etcd"])? {
            "etcd" => Backend::Etcd(etcd_options()?),
            _ => Backend::File {
                webhooks: parsed("WEBHOOKS_CONFIG_FILE", "webhooks.json".into())?,
                connections: parsed("CONNECTIONS_CONFIG_FILE", "connections.json".into())?,
            },
        };
        let tls = match (var("TLS_CERT")?, var("TLS_KEY")?) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err("TLS_CERT and TLS_KEY: one needs the other".into()),
        };
        let namespace = var("ETCD_NAMESPACE")?.unwrap_or_else(|| "default".to_owned());
        tower_webhook::Target::new(&namespace, "a").map_err(|error| wrong("ETCD_NAMESPACE", error))?;
        let save_to_disk_root: PathBuf = parsed("SAVE_TO_DISK_ROOT", "./data".into())?;
        let spool = var("SPOOL_DIR")?.map(PathBuf::from);
        if spool.as_ref().is_some_and(|spool| is_below(spool, &save_to_disk_root)) {
            return Err(wrong("SPOOL_DIR", "it is below SAVE_TO_DISK_ROOT, where webhooks may write"));
        }
        let admin = var("ADMIN_TOKEN")?.map(|token| Bearer::new(&token)).transpose();
        Ok(Self {
            backend,
            namespace,
            on_invalid: match choice("CONFIG_ON_INVALID", &["keep", "fence"])? {
                "fence" => OnInvalid::Fence,
                _ => OnInvalid::Keep,
            },
            host: var("HOST")?.unwrap_or_else(|| "0.0.0.0".to_owned()),
            port: parsed("PORT", 8000)?,
            tls,
            max_connections: at_least_one("MAX_CONNECTIONS", 10_000)?,
            max_body_bytes: parsed("MAX_BODY_BYTES", tower_webhook::body::DEFAULT_MAX_BYTES)?,
            header_timeout: seconds("HEADER_TIMEOUT_SECONDS", 10)?,
            body_timeout: seconds("BODY_TIMEOUT_SECONDS", 30)?,
            delivery_timeout: seconds("DELIVERY_TIMEOUT_SECONDS", 30)?,
            shutdown_grace: seconds("SHUTDOWN_GRACE_SECONDS", 30)?,
            save_to_disk_root,
            spool,
            spool_max_bytes: spool_max_bytes()?,
            dead_letter_age: days("DEAD_LETTER_DAYS", 14)?,
            egress: egress()?,
            admin: admin.map_err(|error| wrong("ADMIN_TOKEN", error))?,
            log_filter: var("RUST_LOG")?.unwrap_or_else(|| "info".to_owned()),
            log_json: choice("LOG_FORMAT", &["text", "json"])? == "json",
        })
    }
}

/// Whether a variable is the gateway's own secret, which no webhook may read.
pub(crate) fn is_own(name: &str) -> bool {
    name.starts_with("ETCD_") || name == "ADMIN_TOKEN" || name == "TLS_KEY"
}

fn etcd_options() -> Result<EtcdOptions, Error> {
    let tls = EtcdTls {
        ca: readable("ETCD_CA_CERT")?,
        cert: readable("ETCD_CLIENT_CERT")?,
        key: readable("ETCD_CLIENT_KEY")?,
    };
    if tls.cert.is_some() != tls.key.is_some() {
        return Err("ETCD_CLIENT_CERT and ETCD_CLIENT_KEY: one needs the other".into());
    }
    let (endpoints, named) = match var("ETCD_ENDPOINTS")? {
        Some(list) => (list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(), "ETCD_ENDPOINTS"),
        None => (vec![one_endpoint(&tls)?], "ETCD_HOST, ETCD_PORT"),
    };
    let mut options =
        EtcdOptions::new(endpoints).prefix(&var("ETCD_PREFIX")?.unwrap_or_else(|| "/cwm/".to_owned())).tls(tls);
    if let Some(directory) = var("CONFIG_CACHE_DIR")? {
        options = options.saved_copy(directory);
    }
    options = match (var("ETCD_USERNAME")?, var("ETCD_PASSWORD")?) {
        (Some(name), Some(password)) => options.user(name, password),
        (None, None) => options,
        _ => return Err("ETCD_USERNAME and ETCD_PASSWORD: one needs the other".into()),
    };
    EtcdSource::new(options.clone()).map_err(|error| wrong(named, error))?;
    Ok(options)
}

fn one_endpoint(tls: &EtcdTls) -> Result<String, Error> {
    let host = var("ETCD_HOST")?.unwrap_or_else(|| "localhost".to_owned());
    let port: u16 = parsed("ETCD_PORT", 2379)?;
    if port == 0 {
        return Err(wrong("ETCD_PORT", "nobody listens on port 0"));
    }
    let scheme = if tls.ca.is_some() || tls.cert.is_some() { "https" } else { "http" };
    // An IPv6 address needs its brackets.
    match host.parse::<Ipv6Addr>() {
        Ok(_) => Ok(format!("{scheme}://[{host}]:{port}")),
        Err(_) if host.contains(':') => Err(wrong("ETCD_HOST", "it is neither a name nor an address; see ETCD_PORT")),
        Err(_) => Ok(format!("{scheme}://{host}:{port}")),
    }
}

/// How `http_webhook` leaves.
fn egress() -> Result<Egress, Error> {
    let egress = Egress::new(parsed("EGRESS_ALLOW", EgressPolicy::default())?);
    let Some(path) = var("EGRESS_CA_CERT")? else { return Ok(egress) };
    let pem = std::fs::read(&path).map_err(|error| wrong("EGRESS_CA_CERT", format!("{path}: {error}")))?;
    egress.trust(&pem).map_err(|error| wrong("EGRESS_CA_CERT", format!("{path}: {error}")))
}

fn var(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(wrong(name, "it is not UTF-8")),
    }
}

fn parsed<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, Error> {
    match var(name)? {
        Some(value) => value.parse().map_err(|error| wrong(name, error)),
        None => Ok(default),
    }
}

/// A file that is read later, each time a connection is made.
fn readable(name: &str) -> Result<Option<PathBuf>, Error> {
    let path = var(name)?.map(PathBuf::from);
    if let Some(path) = &path {
        File::open(path).map_err(|error| wrong(name, format!("{}: {error}", path.display())))?;
    }
    Ok(path)
}

fn at_least_one(name: &str, default: usize) -> Result<usize, Error> {
    match parsed(name, default)? {
        0 => Err(wrong(name, "it must be at least 1")),
        number => Ok(number),
    }
}

fn seconds(name: &str, default: u64) -> Result<Duration, Error> {
    match parsed(name, default)? {
        number @ 1..=86_400 => Ok(Duration::from_secs(number)),
        _ => Err(wrong(name, "it must be from 1 to 86400 seconds")),
    }
}

fn is_below(path: &Path, root: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute(path).starts_with(absolute(root))
}

fn days(name: &str, default: u64) -> Result<Duration, Error> {
    match parsed(name, default)? {
        number @ 1..=3650 => Ok(Duration::from_secs(number * 24 * 3600)),
        _ => Err(wrong(name, "it must be from 1 to 3650 days")),
    }
}

fn spool_max_bytes() -> Result<u64, Error> {
    match parsed("SPOOL_MAX_BYTES", tower_webhook::spool::DEFAULT_MAX_BYTES)? {
        number if number < 1 << 20 => Err(wrong("SPOOL_MAX_BYTES", "it must be at least 1 MiB (1048576)")),
        number => Ok(number),
    }
}

/// One of `choices`; the first is the default.
fn choice(name: &str, choices: &[&'static str]) -> Result<&'static str, Error> {
    match var(name)? {
        None => Ok(choices[0]),
        Some(value) => choices
            .iter()
            .copied()
            .find(|choice| *choice == value)
            .ok_or_else(|| wrong(name, format!("it must be one of {}", choices.join(", ")))),
    }
}

fn wrong(name: &str, error: impl Display) -> Error {
    format!("{name}: {error}").into()
}
