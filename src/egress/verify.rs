//! Verifies the certificates of servers.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::error::InvalidEgress;

/// Parses the certificates in `pem`.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidEgress> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| InvalidEgress("the certificates are not PEM"))?;
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|_| InvalidEgress("a certificate is not one of an authority or a server"))?;
        certificates.push(certificate);
    }
    match certificates.is_empty() {
        true => Err(InvalidEgress("there is no certificate")),
        false => Ok(certificates),
    }
}

/// Verifies a server as rustls does, and also trusts one whose own certificate is among the given ones. rustls alone
/// refuses a self-signed certificate from `openssl req -x509`, because it claims to be an authority's.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    own: Arc<[CertificateDer<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Trusts the system's authorities, and `certificates`. Reading the system's blocks.
    pub(super) fn new(certificates: &[CertificateDer<'static>]) -> Self {
        let native = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(native.certs.into_iter().chain(certificates.iter().cloned()));
        if roots.is_empty() {
            // A machine without certificate authorities can still do without TLS.
            tracing::warn!(errors = ?native.errors, "no certificate authority is known: no server can be reached over TLS");
        }
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { roots: Arc::new(roots), own: certificates.into(), algorithms }
    }

    /// A client that shows no certificate of its own.
    #[cfg(feature = "http-webhook")]
    pub(super) fn client(&self) -> Result<ClientConfig, Error> {
        Ok(self.builder()?.with_no_client_auth())
    }

    /// A client whose own certificate is still to be set.
    pub(super) fn builder(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
        // Explicit, because the process may have another default provider, or none.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(self.clone())))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        match self.own.contains(certificate) {
            true => self.is_valid_at(&parsed, now)?,
            false => verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?,
        }
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A time at which no certificate is valid: the last year of a certificate is 9999.
const TOO_LATE: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));

impl Verifier {
    /// Checks the validity period of `certificate`, and nothing else.
    ///
    /// No available crate parses the two dates. But the verification of a chain checks the dates first: any other error
    /// means that the dates are valid. Each call also verifies that the dates really are checked first.
    fn is_valid_at(&self, certificate: &ParsedCertificate<'_>, now: UnixTime) -> Result<(), Error> {
        let verify = |time| {
            let none = RootCertStore::empty();
            verify_server_cert_signed_by_trust_anchor(certificate, &none, &[], time, self.algorithms.all)
        };
        if !verify(TOO_LATE).is_err_and(|error| is_of_time(&error)) {
            return Err(CertificateError::Expired.into());
        }
        match verify(now) {
            Err(error) if is_of_time(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_of_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let Error::InvalidCertificate(error) = error else { return false };
    matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}
