//! `gateway healthcheck`, for containers without any other HTTP client.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::Error;
use crate::settings::Settings;

/// The time limit of each step.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the gateway that runs with the same environment for `/health`: on the operator's listener by plain HTTP if there is
/// one, otherwise by HTTPS if the gateway has a certificate.
pub(crate) fn run() -> Result<(), Error> {
    let settings = Settings::from_env()?;
    let (host, port, tls) = match &settings.admin_address {
        Some((host, port)) => (host, *port, false),
        None => (&settings.host, settings.port, settings.tls.is_some()),
    };
    let host = match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.clone(),
    };
    let wrong = |error: io::Error| format!("no answer from {host}:{port}: {error}");
    let stream = connect(&host, port).map_err(wrong)?;
    let status = match tls {
        true => status(StreamOwned::new(tls_session()?, stream)),
        false => status(stream),
    };
    match &status.map_err(wrong)? {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err("/health did not answer 200; the gateway's log may say why".into()),
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for address in (host, port).to_socket_addrs()? {
        // Without a limit it takes minutes to give up on a process that is frozen and whose backlog is full.
        outcome = TcpStream::connect_timeout(&address, PATIENCE);
        if outcome.is_ok() {
            break;
        }
    }
    let stream = outcome?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The first bytes of the answer to `GET /health`.
fn status(mut stream: impl Read + Write) -> io::Result<[u8; 12]> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head)
}

fn tls_session() -> Result<ClientConnection, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?)
}

/// Accepts any certificate of which the server has the key.
///
/// The check runs on the same machine, sends no secret and uses nothing of the answer but its status. The certificate is
/// for the names that senders use, and this machine need not trust its authority. It is not compared with the file of
/// `TLS_CERT` either: while a pair is being replaced, the gateway rightly shows the old one.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
