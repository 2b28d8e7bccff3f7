//! TLS of clients that do not speak HTTP: the options of a connection, and a stream over them.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Egress;
use super::connect::{CONNECT_TIMEOUT, ConnectError};
use super::host::literal;
use super::verify::certificates;
use crate::config::BuildError;

/// How a connection uses TLS. A server is trusted as [`Egress`] describes it.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// Certificates in PEM, of authorities or of servers, that are trusted in addition to those of the [`Egress`].
    pub ca: Option<String>,
    /// The client's certificate in PEM, with its chain. Needs `client_key`.
    pub client_cert: Option<String>,
    /// The private key of `client_cert` in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub client_key: Option<String>,
    /// The name that the server's certificate must have, which is also sent to the server (SNI). By default the host
    /// that is connected to.
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// Reads the value of a key `tls`: `false`, `true` or an object with these options. For `deserialize_with`.
    pub(crate) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        deserializer.deserialize_any(Switch)
    }
}

struct Switch;

impl<'de> Visitor<'de> for Switch {
    type Value = Option<TlsOptions>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`true`, `false` or an object with the options of TLS")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.then(TlsOptions::default))
    }

    /// The text of a variable.
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            "true" => Ok(Some(TlsOptions::default())),
            "false" => Ok(None),
            _ => Err(E::custom("expected `true`, `false` or an object with the options of TLS")),
        }
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        TlsOptions::deserialize(MapAccessDeserializer::new(map)).map(Some).map_err(A::Error::custom)
    }
}

/// TLS for the clients of one connection.
pub(crate) struct ClientTls {
    /// Trusts the connection's own certificates as well.
    egress: Egress,
    identity: Option<Arc<CertifiedKey>>,
    server_name: Option<ServerName<'static>>,
}

impl Egress {
    /// TLS with these options. Pure: reads nothing from disk.
    ///
    /// # Errors
    ///
    /// When a certificate or key cannot be used, or one of the two is missing. The text names the option, and quotes
    /// nothing.
    pub(crate) fn client_tls(&self, options: &TlsOptions) -> Result<ClientTls, BuildError> {
        let egress = match &options.ca {
            Some(pem) => self.with_own(certificates(pem.as_bytes()).map_err(|error| format!("`ca`: {error}"))?.into()),
            None => self.clone(),
        };
        let identity = match (&options.client_cert, &options.client_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some(Arc::new(identity(chain, key)?)),
            (Some(_), None) => return Err("`client_cert` needs `client_key`".into()),
            (None, Some(_)) => return Err("`client_key` needs `client_cert`".into()),
        };
        let named = |name: &String| {
            server_name(name).ok_or("`server_name` must be a host name, or an address in its usual form")
        };
        let server_name = options.server_name.as_ref().map(named).transpose()?;
        Ok(ClientTls { egress, identity, server_name })
    }
}

impl ClientTls {
    /// Connects to `host`, a name or an address, and makes the TLS session, within 10 s.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, ConnectError> {
        let connecting = async {
            let stream = self.egress.connect(host, port).await?;
            let connector = TlsConnector::from(self.config().await?);
            connector.connect(self.server_name(host)?, stream).await.map_err(ConnectError::Tls)
        };
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(ConnectError::Timeout))
    }

    /// The configuration of a new session: it trusts the certificates that are trusted now.
    pub(crate) async fn config(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        let verifier = self.egress.verifier().await.map_err(tls)?;
        let builder = verifier.builder().map_err(tls)?;
        Ok(Arc::new(match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity)))),
            None => builder.with_no_client_auth(),
        }))
    }

    /// The name that the certificate of `host` must have.
    pub(crate) fn server_name(&self, host: &str) -> Result<ServerName<'static>, ConnectError> {
        let name = self.server_name.clone().or_else(|| server_name(host));
        name.ok_or_else(|| ConnectError::Tls(std::io::Error::other("the host is not a name for a certificate")))
    }
}

fn tls(error: rustls::Error) -> ConnectError {
    ConnectError::Tls(std::io::Error::other(error))
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    match literal(host) {
        Some(address) => Some(ServerName::IpAddress(address.into())),
        None => ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned()).ok(),
    }
}

fn identity(chain: &str, key: &str) -> Result<CertifiedKey, BuildError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or("`client_cert` has no certificate in PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "`client_key` has no private key in PEM, or an encrypted one")?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "`client_key` does not belong to `client_cert`".into(),
        _ => "`client_key` or `client_cert` cannot be used".into(),
    })
}

/// Omits the key.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedKey, KeyPair, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn egress() -> Egress {
        Egress::new("127.0.0.0/8".parse().unwrap())
    }

    fn options(json: &str) -> Result<Option<TlsOptions>, String> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default, deserialize_with = "TlsOptions::switch")]
            tls: Option<TlsOptions>,
        }
        let config: Result<Config, _> = serde_json::from_str(json);
        config.map(|config| config.tls).map_err(|error| error.to_string())
    }

    #[test]
    fn tls_is_a_switch_or_options() {
        for (json, is_on) in [
            ("{}", false),
            (r#"{"tls": false}"#, false),
            (r#"{"tls": true}"#, true),
            (r#"{"tls": "true"}"#, true),
            (r#"{"tls": null}"#, false),
            (r#"{"tls": {}}"#, true),
            (r#"{"tls": {"server_name": "a"}}"#, true),
        ] {
            assert_eq!(options(json).unwrap().is_some(), is_on, "{json}");
        }
        for json in [r#"{"tls": 1}"#, r#"{"tls": "yes"}"#, r#"{"tls": {"verify": false}}"#, r#"{"tls": []}"#] {
            assert!(options(json).is_err(), "{json}");
        }
    }

    #[test]
    fn unusable_options_are_refused_and_not_quoted() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (Some(cert.pem()), Some(signing_key.serialize_pem()));
        let other = Some(KeyPair::generate().unwrap().serialize_pem());
        let none = TlsOptions::default;
        let check = |options: TlsOptions| egress().client_tls(&options).map(|_| ()).map_err(|error| error.to_string());
        check(TlsOptions { client_cert: cert.clone(), client_key: key.clone(), ..none() }).unwrap();
        for (options, words) in [
            (TlsOptions { ca: Some("s3cret".into()), ..none() }, "`ca`: there is no certificate"),
            (TlsOptions { client_cert: cert.clone(), ..none() }, "`client_cert` needs `client_key`"),
            (TlsOptions { client_key: key.clone(), ..none() }, "`client_key` needs `client_cert`"),
            (TlsOptions { client_cert: cert.clone(), client_key: other, ..none() }, "does not belong to"),
            (
                TlsOptions { client_cert: cert, client_key: Some("s3cret".into()), ..none() },
                "`client_key` has no private",
            ),
            (TlsOptions { client_cert: Some("s3cret".into()), client_key: key, ..none() }, "`client_cert` has no"),
            (TlsOptions { server_name: Some("s3cret name".into()), ..none() }, "`server_name` must be"),
        ] {
            let error = check(options).unwrap_err();
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
    }

    /// A server of rustls that asks for a client's certificate, and answers one byte.
    #[tokio::test]
    async fn a_session_needs_a_trusted_server_the_right_name_and_the_clients_certificate() {
        let server = generate_simple_self_signed(["broker.example".to_owned()]).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority_cert = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, &authority_key);
        let client_key = KeyPair::generate().unwrap();
        let client = CertificateParams::new(["client".to_owned()]).unwrap().signed_by(&client_key, &issuer).unwrap();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority_cert.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![server.cert.der().clone()],
                PrivateKeyDer::try_from(server.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"x").await;
                }
            }
        });

        let good = TlsOptions {
            ca: Some(server.cert.pem()),
            client_cert: Some(client.pem()),
            client_key: Some(client_key.serialize_pem()),
            server_name: Some("broker.example".to_owned()),
        };
        let read = async |options: TlsOptions| {
            let mut stream = egress().client_tls(&options).unwrap().connect("127.0.0.1", port).await?;
            // In TLS 1.3 the server judges the client's certificate after the session was made for the client.
            stream.read_u8().await.map_err(ConnectError::Tls)
        };
        assert_eq!(read(good.clone()).await.unwrap(), b'x');
        for wrong in [
            TlsOptions { ca: None, ..good.clone() },
            TlsOptions { server_name: None, ..good.clone() },
            TlsOptions { client_cert: None, client_key: None, ..good.clone() },
        ] {
            assert!(matches!(read(wrong.clone()).await, Err(ConnectError::Tls(_))), "{wrong:?}");
        }
        let refused = Egress::default().client_tls(&good).unwrap().connect("127.0.0.1", port).await;
        assert!(matches!(refused, Err(ConnectError::Forbidden(..))));
    }
}
