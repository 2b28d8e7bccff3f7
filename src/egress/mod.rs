//! The egress: where connections may lead, whom they trust, and the connections themselves.

mod connect;
mod error;
mod host;
#[cfg(feature = "http-webhook")]
mod http;
mod nat64;
mod policy;
mod prefix;
mod resolve;
mod tls;
mod trust;
mod verify;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::connect::ConnectError;
use self::connect::{CONNECT_TIMEOUT, Guard};
pub use self::error::InvalidEgress;
pub(crate) use self::host::{check as check_host, literal};
#[cfg(feature = "http-webhook")]
pub(crate) use self::http::{Clients, Life};
pub use self::policy::EgressPolicy;
pub(crate) use self::resolve::on_behalf_of;
use self::resolve::{Resolver, namespace};
pub(crate) use self::tls::ClientTls;
pub use self::tls::TlsOptions;
pub(crate) use self::trust::Certificates;
use self::trust::Trust;
use self::verify::Verifier;
pub(crate) use self::verify::certificates;

/// How events leave: the [`EgressPolicy`] over where connections lead, the certificates that they trust, and for
/// `http_webhook` the connections that webhooks share.
///
/// Clones share the connections. Nothing is opened before the first delivery; all deliveries must run on one tokio
/// runtime with its I/O and time drivers enabled. The protocol of `http_webhook` is HTTP/1.1 or, where TLS negotiates
/// it, HTTP/2. A server is trusted if one of the system's certificate authorities, or a certificate given to [`trust`](Self::trust),
/// vouches for it. The system looks up names, 64 at a time, of which one namespace may use as many as are still free;
/// an answer is cached for 5 s, and a failure for 2 s. No proxy is used, whatever the environment variables say.
#[derive(Clone)]
pub struct Egress {
    guard: Guard,
    trust: Arc<Trust<Made>>,
}

/// What is made once for the current certificates.
struct Made {
    verifier: Verifier,
    #[cfg(feature = "http-webhook")]
    clients: Arc<Clients>,
}

impl Egress {
    /// Connects only to addresses that `policy` allows.
    pub fn new(policy: EgressPolicy) -> Self {
        let guard = Guard { policy: Arc::new(policy), resolver: Resolver::system() };
        Self { guard, trust: Arc::new(Trust::new(Arc::default(), None)) }
    }

    /// Also trusts the certificates in `pem`: of authorities, and of servers, each for the names in it. The result
    /// shares no connections with existing clones.
    ///
    /// # Errors
    ///
    /// When it is not PEM, holds no certificate, or one that cannot be read.
    pub fn trust(self, pem: &[u8]) -> Result<Self, InvalidEgress> {
        let certificates = self.trust.certificates().into_iter().chain(certificates(pem)?).collect();
        Ok(Self { trust: Arc::new(Trust::new(certificates, None)), ..self })
    }

    /// Also trusts `own`, in addition to whatever this egress trusts, now and after later changes.
    pub(crate) fn with_own(&self, own: Certificates) -> Self {
        Self { guard: self.guard.clone(), trust: Arc::new(Trust::new(own, Some(Arc::clone(&self.trust)))) }
    }

    /// Replaces all certificates that were given before with those in `pem`, and reads those of the system again. This
    /// applies to each clone, and to each module and connection that was made with one. A connection with `ca`
    /// continues to trust that as well.
    ///
    /// Requests in flight continue. Later ones use new connections; each old one is closed after its last answer.
    ///
    /// # Errors
    ///
    /// Like [`trust`](Self::trust); nothing changes then.
    pub fn trust_instead(&self, pem: &[u8]) -> Result<(), InvalidEgress> {
        self.trust.replace(certificates(pem)?.into());
        Ok(())
    }

    pub(crate) fn policy(&self) -> &EgressPolicy {
        &self.guard.policy
    }

    /// Connects to `host`, a name or an address, within 10 s, in the share of the namespace that
    /// [`on_behalf_of`] names.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let connecting = self.guard.connect(host, port, namespace());
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(ConnectError::Timeout))
    }

    /// The certificates that are trusted now in addition to the system's.
    #[cfg(feature = "kafka")]
    pub(crate) fn certificates(&self) -> Vec<rustls::pki_types::CertificateDer<'static>> {
        self.trust.certificates()
    }

    /// The addresses of `host`, a name or an address, that the policy allows: at least one, found within 10 s. For clients
    /// that take no connection of ours.
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let finding = self.guard.addresses(host, port, namespace());
        timeout(CONNECT_TIMEOUT, finding).await.unwrap_or(Err(ConnectError::Timeout))
    }

    /// The clients that trust the current certificates.
    #[cfg(feature = "http-webhook")]
    pub(crate) async fn clients(&self) -> Result<Arc<Clients>, rustls::Error> {
        Ok(Arc::clone(&self.made().await?.clients))
    }

    /// The verifier that trusts the current certificates.
    async fn verifier(&self) -> Result<Verifier, rustls::Error> {
        Ok(self.made().await?.verifier.clone())
    }

    async fn made(&self) -> Result<Arc<Made>, rustls::Error> {
        let cell = self.trust.made();
        let made = cell
            .get_or_try_init(async || {
                let certificates = self.trust.certificates();
                // Reading the system's certificates blocks.
                let verifier = tokio::task::spawn_blocking(move || Verifier::new(&certificates)).await;
                let verifier = verifier.map_err(|_| rustls::Error::General("cannot be set up".into()))?;
                Ok::<_, rustls::Error>(Arc::new(Made {
                    #[cfg(feature = "http-webhook")]
                    clients: Arc::new(Clients::new(self.guard.clone(), verifier.client()?)),
                    verifier,
                }))
            })
            .await?;
        Ok(Arc::clone(made))
    }
}

/// Allows public addresses only.
impl Default for Egress {
    fn default() -> Self {
        Self::new(EgressPolicy::default())
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", &self.guard.policy).finish_non_exhaustive()
    }
}
