//! The certificate files for the connection to etcd.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

/// Certificates for the connection to etcd, as PEM files. They are read for each connection, so a rotated certificate
/// is used from the next one on.
///
/// An endpoint that begins with `https://` switches TLS on.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// The trusted authorities; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// The client certificate, if etcd asks for one.
    pub cert: Option<PathBuf>,
    /// The private key of the client certificate. It must not be encrypted.
    pub key: Option<PathBuf>,
}

/// The contents of the files.
pub(super) struct Contents {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) own: Option<(Vec<u8>, Vec<u8>)>,
}

/// A file of [`EtcdTls`] that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTlsFile {
    file: TlsFile,
    path: PathBuf,
    reason: String,
}

/// One of the files of [`EtcdTls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// [`EtcdTls::ca`].
    Ca,
    /// [`EtcdTls::cert`].
    Cert,
    /// [`EtcdTls::key`].
    Key,
}

impl EtcdTls {
    /// Reads the files and checks that they can be used, as each connection attempt does.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or has the wrong content, when the key is encrypted, or when the key does not belong
    /// to the certificate.
    pub fn check(&self) -> Result<(), BadTlsFile> {
        self.read().map(|_| ())
    }

    pub(super) fn read(&self) -> Result<Contents, BadTlsFile> {
        let ca = self.ca.as_deref().map(|ca| File::read(TlsFile::Ca, ca)).transpose()?;
        if let Some(ca) = &ca {
            check_authorities(ca)?;
        }
        let own = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (File::read(TlsFile::Cert, cert)?, File::read(TlsFile::Key, key)?);
                check_pair(&cert, &key)?;
                Some((cert.pem, key.pem))
            }
            _ => None,
        };
        Ok(Contents { ca: ca.map(|ca| ca.pem), own })
    }
}

struct File<'a> {
    file: TlsFile,
    path: &'a Path,
    pem: Vec<u8>,
}

impl<'a> File<'a> {
    fn read(file: TlsFile, path: &'a Path) -> Result<Self, BadTlsFile> {
        let bad = |error: std::io::Error| BadTlsFile { file, path: path.to_owned(), reason: error.to_string() };
        Ok(Self { file, path, pem: std::fs::read(path).map_err(bad)? })
    }

    fn bad(&self, reason: impl Into<String>) -> BadTlsFile {
        BadTlsFile { file: self.file, path: self.path.to_owned(), reason: reason.into() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, BadTlsFile> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.pem).collect();
        let certificates = certificates.map_err(|_| self.bad("it is not a PEM file, or it is truncated"))?;
        if certificates.is_empty() {
            let is_key = contains(&self.pem, "PRIVATE KEY-----");
            let hint = if is_key { ", but a private key; it may be the wrong file" } else { "" };
            return Err(self.bad(format!("it holds no certificate in PEM form{hint}")));
        }
        Ok(certificates)
    }
}

fn check_authorities(ca: &File<'_>) -> Result<(), BadTlsFile> {
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(ca.certificates()?);
    if usable == 0 { Err(ca.bad("none of its certificates can be used")) } else { Ok(()) }
}

fn check_pair(cert: &File<'_>, key: &File<'_>) -> Result<(), BadTlsFile> {
    let certificates = cert.certificates()?;
    if contains(&key.pem, "BEGIN ENCRYPTED PRIVATE KEY") || contains(&key.pem, "Proc-Type: 4,ENCRYPTED") {
        let decrypt = format!("`openssl pkey -in {} -out DECRYPTED` decrypts it", key.path.display());
        return Err(key.bad(format!("found an encrypted key, expected one without a passphrase; {decrypt}")));
    }
    // rustls's message may quote the file.
    let secret = PrivateKeyDer::from_pem_slice(&key.pem).map_err(|_| {
        let is_certificate = contains(&key.pem, "BEGIN CERTIFICATE");
        let hint = if is_certificate { ", but a certificate; it may be the wrong file" } else { "" };
        key.bad(format!("it holds no private key in PEM form{hint}"))
    })?;
    match CertifiedKey::from_der(certificates, secret, &aws_lc_rs::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(key.bad(format!("the key does not belong to the certificate in {}", cert.path.display())))
        }
        Err(rustls::Error::InvalidCertificate(error)) => Err(cert.bad(format!("it cannot be used: {error}"))),
        Err(error) => Err(key.bad(format!("it cannot be used: {error}"))),
    }
}

fn contains(pem: &[u8], words: &str) -> bool {
    pem.windows(words.len()).any(|window| window == words.as_bytes())
}

impl BadTlsFile {
    /// The file that cannot be used.
    pub fn file(&self) -> TlsFile {
        self.file
    }
}

impl fmt::Display for BadTlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match self.file {
            TlsFile::Ca => "the file of authorities for etcd",
            TlsFile::Cert => "the file of the client certificate for etcd",
            TlsFile::Key => "the file of the client key for etcd",
        };
        write!(f, "{file}, {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for BadTlsFile {}
