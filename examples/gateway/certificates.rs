//! The certificate that the server shows, which can be replaced while it serves.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::Error;
use crate::reload::{NamedFile, Watch};

/// The certificate and the key that are served. Clones share them.
#[derive(Clone)]
pub(crate) struct Certificates {
    cert: NamedFile,
    key: NamedFile,
    served: Arc<Served>,
}

/// Nothing until the first pair has been read.
#[derive(Debug, Default)]
struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Certificates {
    /// Of the files of `TLS_CERT` and `TLS_KEY`. Nothing is read yet.
    pub(crate) fn new(cert: PathBuf, key: PathBuf) -> Self {
        let (cert, key) = (NamedFile::new("TLS_CERT", cert), NamedFile::new("TLS_KEY", key));
        Self { cert, key, served: Arc::default() }
    }

    /// Reads the files, now and whenever they change.
    ///
    /// # Errors
    ///
    /// Which file is wrong now, and why.
    pub(crate) fn watch(&self) -> Result<Watch, String> {
        let certificates = self.clone();
        Watch::begin([self.cert.clone(), self.key.clone()], move |contents| match contents {
            [cert, key] => certificates.replace(cert, key),
            _ => Err("a certificate and a key are two files".to_owned()),
        })
    }

    /// Shows another certificate from the next handshake on; the one of before if it cannot be used.
    fn replace(&self, cert: &[u8], key: &[u8]) -> Result<(), String> {
        let pair = pair((&self.cert, cert), (&self.key, key))?;
        report(&self.cert, &pair);
        *self.served.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(pair));
        Ok(())
    }

    /// Warns if the certificate that is shown has expired since `before`.
    pub(crate) fn warn_of_expiry(&self, before: Timestamp) {
        let expiry = self.served.current().and_then(|pair| expiry(&pair));
        if let Some(until) = expiry.filter(|until| (before..Timestamp::now()).contains(until)) {
            tracing::warn!(file = %self.cert.path().display(), %until, "the certificate has expired");
        }
    }

    /// Speaks TLS with the certificate that is served at each handshake.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let resolver = Arc::clone(&self.served) as Arc<dyn ResolvesServerCert>;
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Served {
    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// More than one provider may be linked in; rustls must be told.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn pair((cert, chain): (&NamedFile, &[u8]), (key, secret): (&NamedFile, &[u8])) -> Result<CertifiedKey, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let found = found.map_err(|error| cert.wrong(format_args!("the file is no PEM file: {error}")))?;
    if found.is_empty() {
        let is_key = PrivateKeyDer::from_pem_slice(chain).is_ok();
        let hint = if is_key { ", but a key; TLS_CERT and TLS_KEY may be the wrong way round" } else { "" };
        return Err(cert.wrong(format_args!("the file holds no certificate in PEM form{hint}")));
    }
    if is_encrypted(secret) {
        let path = key.path().display();
        let decrypt = format!("`openssl pkey -in {path} -out DECRYPTED` decrypts it");
        return Err(
            key.wrong(format_args!("the key is encrypted, and nobody is there to enter its passphrase; {decrypt}"))
        );
    }
    // rustls' own words may quote the file.
    let secret =
        PrivateKeyDer::from_pem_slice(secret).map_err(|_| key.wrong("the file holds no private key in PEM form"))?;
    CertifiedKey::from_der(found, secret, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.wrong(format_args!("the key does not belong to the certificate in {}", cert.path().display()))
        }
        rustls::Error::InvalidCertificate(error) => cert.wrong(format_args!("the certificate cannot be used: {error}")),
        error => key.wrong(format_args!("the key cannot be used: {error}")),
    })
}

/// Whether a PEM file holds a key that needs a passphrase: PKCS #8, or OpenSSL's form of old.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn report(cert: &NamedFile, pair: &CertifiedKey) {
    let file = cert.path().display();
    match expiry(pair) {
        Some(until) if until <= Timestamp::now() => tracing::warn!(%file, %until, "the certificate has expired"),
        Some(until) => tracing::info!(%file, %until, "the certificate is in use"),
        None => tracing::info!(%file, "the certificate is in use"),
    }
}

/// When the certificate expires. Only a check of it, at a time long after, tells.
fn expiry(pair: &CertifiedKey) -> Option<Timestamp> {
    let cert = ParsedCertificate::try_from(pair.end_entity_cert().ok()?).ok()?;
    let long_after = UnixTime::since_unix_epoch(Duration::from_secs(u64::from(u32::MAX) << 16));
    let algorithms = provider().signature_verification_algorithms.all;
    let checked =
        verify_server_cert_signed_by_trust_anchor(&cert, &RootCertStore::empty(), &[], long_after, algorithms);
    match checked {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Timestamp::from_second(i64::try_from(not_after.as_secs()).ok()?).ok()
        }
        _ => None,
    }
}
