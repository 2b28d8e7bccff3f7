//! The server's certificate, which can be replaced while the server runs.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use crate::reload::{NamedFile, Watch};

/// The files of a certificate and its key, and the TLS configuration that follows them.
pub(crate) struct Certificates {
    cert: NamedFile,
    key: NamedFile,
    in_use: Arc<RwLock<Option<InUse>>>,
}

/// A certificate with its key. A new pair gets a new configuration, and with it a new cache of sessions: a session that is
/// resumed would continue with the old certificate.
struct InUse {
    config: Arc<ServerConfig>,
    expiry: Option<Timestamp>,
}

impl Certificates {
    /// The files of `TLS_CERT` and `TLS_KEY`. Nothing is read yet.
    pub(crate) fn new(cert: PathBuf, key: PathBuf) -> Self {
        let (cert, key) = (NamedFile::new("TLS_CERT", cert), NamedFile::new("TLS_KEY", key));
        Self { cert, key, in_use: Arc::default() }
    }

    /// Reads the files, now and whenever they change.
    ///
    /// # Errors
    ///
    /// When the files cannot be used now. The error names the file and the reason.
    pub(crate) fn watch(&self) -> Result<Watch, String> {
        let (cert, key, in_use) = (self.cert.clone(), self.key.clone(), Arc::clone(&self.in_use));
        Watch::begin([self.cert.clone(), self.key.clone()], move |contents| {
            let [chain, secret] = contents else { return Err("a certificate and its key are two files".to_owned()) };
            let new = read((&cert, chain), (&key, secret))?;
            new.report(&cert);
            *in_use.write().unwrap_or_else(PoisonError::into_inner) = Some(new);
            Ok(())
        })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor(Arc::clone(&self.in_use))
    }

    /// Warns if the certificate in use has expired since `before`.
    pub(crate) fn warn_of_expiry(&self, before: Timestamp) {
        let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        let Some(in_use) = in_use.as_ref() else { return };
        if in_use.expiry.is_some_and(|until| (before..Timestamp::now()).contains(&until)) {
            in_use.report(&self.cert);
        }
    }
}

/// Performs the TLS handshake with the certificate that is in use.
#[derive(Clone)]
pub(crate) struct TlsAcceptor(Arc<RwLock<Option<InUse>>>);

impl TlsAcceptor {
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = {
            let in_use = self.0.read().unwrap_or_else(PoisonError::into_inner);
            in_use.as_ref().map(|in_use| Arc::clone(&in_use.config))
        };
        let config = config.ok_or_else(|| io::Error::other("no certificate has been read"))?;
        tokio_rustls::TlsAcceptor::from(config).accept(stream).await
    }
}

impl InUse {
    fn report(&self, cert: &NamedFile) {
        let file = cert.path().display();
        match self.expiry {
            Some(until) if until <= Timestamp::now() => tracing::warn!(%file, %until, "the certificate has expired"),
            Some(until) => tracing::info!(%file, %until, "the certificate is in use"),
            None => tracing::info!(%file, "the certificate is in use"),
        }
    }
}

fn read(cert: (&NamedFile, &[u8]), key: (&NamedFile, &[u8])) -> Result<InUse, String> {
    let pair = pair(cert, key)?;
    let expiry = expiry(&pair);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(InUse { config: Arc::new(config), expiry })
}

/// Named explicitly: the process may have more than one provider.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn pair((cert, chain): (&NamedFile, &[u8]), (key, secret): (&NamedFile, &[u8])) -> Result<CertifiedKey, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let found = found
        .map_err(|error| cert.wrong(format_args!("found a file that is not PEM, expected a certificate: {error}")))?;
    if found.is_empty() {
        let is_key = PrivateKeyDer::from_pem_slice(chain).is_ok();
        let hint = if is_key { ", but a key; TLS_CERT and TLS_KEY may be swapped" } else { "" };
        return Err(cert.wrong(format_args!("the file holds no certificate in PEM form{hint}")));
    }
    if is_encrypted(secret) {
        let path = key.path().display();
        let decrypt = format!("`openssl pkey -in {path} -out DECRYPTED` decrypts it");
        return Err(key.wrong(format_args!("found an encrypted key, expected one without a passphrase; {decrypt}")));
    }
    // rustls' own error may quote the file.
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

/// Whether a PEM file holds a key with a passphrase, as PKCS #8 or in OpenSSL's older format.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// The time at which the certificate expires. rustls tells it only in the error of a check at a later time.
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
