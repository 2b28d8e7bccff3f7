//! The variables of etcd.

use std::path::PathBuf;

use tower_webhook::auth::check_secret;
use tower_webhook::source::{EtcdOptions, EtcdSource, EtcdTls, TlsFile};

use super::values::{both, secret, setting, var, wrong};
use crate::Error;
use crate::endpoint::endpoint;

/// How etcd is reached, and which keys are read.
///
/// # Errors
///
/// When a variable is wrong, or a file that one names cannot be used.
pub(super) fn options() -> Result<EtcdOptions, Error> {
    let tls = tls()?;
    tls.check().map_err(|error| {
        let named = match error.file() {
            TlsFile::Ca => "ETCD_CA_CERT",
            TlsFile::Cert => "ETCD_CLIENT_CERT",
            TlsFile::Key => "ETCD_CLIENT_KEY",
        };
        wrong(named, error)
    })?;
    let (endpoints, named) = match var("ETCD_ENDPOINTS")? {
        Some(list) => (list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(), "ETCD_ENDPOINTS"),
        None => (vec![one_endpoint(&tls)?], "ETCD_HOST, ETCD_PORT"),
    };
    let mut options = EtcdOptions::new(endpoints).prefix(&setting("ETCD_PREFIX")?.unwrap_or_default()).tls(tls);
    if let Some(directory) = var("CONFIG_CACHE_DIR")? {
        options = options.saved_copy(directory);
    }
    if let Some((name, password)) =
        both(("ETCD_USERNAME", var("ETCD_USERNAME")?), ("ETCD_PASSWORD", secret("ETCD_PASSWORD")?))?
    {
        check_secret(&password).map_err(|error| wrong("ETCD_PASSWORD", error))?;
        options = options.user(name, password);
    }
    EtcdSource::new(options.clone()).map_err(|error| {
        let named = if error.is_of_prefix() { "ETCD_PREFIX" } else { named };
        wrong(named, error)
    })?;
    Ok(options)
}

fn tls() -> Result<EtcdTls, Error> {
    let pair = both(("ETCD_CLIENT_CERT", var("ETCD_CLIENT_CERT")?), ("ETCD_CLIENT_KEY", secret("ETCD_CLIENT_KEY")?))?;
    let (cert, key) = pair.map(|(cert, key)| (cert.into(), key.into())).unzip();
    Ok(EtcdTls { ca: var("ETCD_CA_CERT")?.map(PathBuf::from), cert, key })
}

fn one_endpoint(tls: &EtcdTls) -> Result<String, Error> {
    let (host, port) = (var("ETCD_HOST")?, var("ETCD_PORT")?);
    let tls = tls.ca.is_some() || tls.cert.is_some();
    endpoint(host.as_deref(), port.as_deref(), tls).map_err(|(name, reason)| wrong(name, reason))
}
