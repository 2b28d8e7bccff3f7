//! The way out: one client for all webhooks, and a guard over where it connects to.

mod connect;
mod life;
mod policy;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use self::connect::Connector;
pub(super) use self::connect::{ConnectError, literal};
pub(super) use self::life::Life;
pub use self::policy::EgressPolicy;

/// How an operator opens a refused address.
pub(super) const OPENED_BY: &str =
    "only public addresses are connected to, and the networks that the operator lists in EGRESS_ALLOW";

/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Connections to one host that are kept while nobody uses them.
const MAX_IDLE_PER_HOST: usize = 32;

/// How often an HTTP/2 connection is asked whether it lives, and how long it may take to say so. Else every event would
/// go into a dead one until the system gives it up.
const PING: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// How much of an answer an HTTP/2 peer may send before any of it is asked for.
const STREAM_WINDOW: u32 = 64 << 10;

/// The most fields that the head of an answer may have over HTTP/1.1, where room for this many is taken for each answer.
const MAX_FIELDS: usize = 4096;

/// The most bytes that the head of an answer may have.
const MAX_HEAD: usize = 400 << 10;

/// How events leave over HTTP: the connections that webhooks share, and the [`EgressPolicy`] over where they lead.
///
/// Clones share the connections. Nothing is opened before the first delivery; all deliveries must be made on one tokio
/// runtime with its I/O and time drivers enabled. HTTP/1.1 and, where TLS agrees on it, HTTP/2. Servers are
/// believed if one of the system's certificate authorities vouches for them, or one given to
/// [`trust`](Self::trust). No proxy is used, whatever the environment says.
#[derive(Clone)]
pub struct Egress {
    policy: Arc<EgressPolicy>,
    authorities: Arc<[CertificateDer<'static>]>,
    clients: Arc<OnceCell<Clients>>,
}

/// The ways to send a request.
pub(super) struct Clients {
    /// Over connections that all webhooks share.
    pub(super) pooled: HttpClient,
    /// Over a connection of its own, so that nothing which happens to another request happens to this one.
    pub(super) alone: HttpClient,
}

pub(super) type HttpClient = Client<Connector, Full<Bytes>>;

impl Egress {
    /// Connects to where `policy` allows.
    pub fn new(policy: EgressPolicy) -> Self {
        Self { policy: Arc::new(policy), authorities: Arc::default(), clients: Arc::default() }
    }

    /// Trusts the certificate authorities in `pem` as well.
    ///
    /// # Errors
    ///
    /// When it is not PEM, holds no certificate, or one that cannot be an authority's.
    pub fn trust(self, pem: &[u8]) -> Result<Self, InvalidEgress> {
        let mut authorities = self.authorities.to_vec();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| InvalidEgress("the certificates are not PEM"))?;
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|_| InvalidEgress("a certificate is not one of an authority"))?;
            authorities.push(certificate);
        }
        if authorities.len() == self.authorities.len() {
            return Err(InvalidEgress("there is no certificate"));
        }
        Ok(Self { authorities: authorities.into(), clients: Arc::default(), ..self })
    }

    pub(super) fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// The clients, made when they are first asked for.
    pub(super) async fn clients(&self) -> Result<&Clients, rustls::Error> {
        self.clients
            .get_or_try_init(async || {
                let authorities = Arc::clone(&self.authorities);
                // The system's certificates are files.
                let tls = tokio::task::spawn_blocking(move || tls(&authorities)).await;
                let tls = tls.unwrap_or_else(|_| Err(rustls::Error::General("cannot be set up".into())))?;
                let connector = Connector::new(Arc::clone(&self.policy), tls);
                Ok(Clients { alone: client(connector.clone(), 0), pooled: client(connector, MAX_IDLE_PER_HOST) })
            })
            .await
    }
}

/// Public addresses only.
impl Default for Egress {
    fn default() -> Self {
        Self::new(EgressPolicy::default())
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A list of networks, or certificates, that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEgress(&'static str);

impl fmt::Display for InvalidEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidEgress {}

/// A client that keeps at most `idle` unused connections to a host. With 0 it makes a connection for each request.
fn client(connector: Connector, idle: usize) -> HttpClient {
    let (interval, patience) = PING;
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle)
        .http1_max_headers(MAX_FIELDS)
        .http1_max_buf_size(MAX_HEAD)
        .http2_max_header_list_size(MAX_HEAD as u32)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_keep_alive_interval(interval)
        .http2_keep_alive_timeout(patience)
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

/// A machine without any authority can still speak plain HTTP.
fn tls(authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let native = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(native.certs.into_iter().chain(authorities.iter().cloned()));
    if roots.is_empty() {
        tracing::warn!(errors = ?native.errors, "no certificate authority is known: no https URL can be reached");
    }
    // Named, as the process may have another provider, or none.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
