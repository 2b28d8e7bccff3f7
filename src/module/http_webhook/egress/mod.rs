//! The egress: the client that all webhooks share, and the policy over the addresses that it connects to.

mod connect;
mod error;
mod flood;
mod life;
mod nat64;
mod policy;
mod prefix;
mod resolve;
mod tls;
mod trust;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use self::connect::Connector;
pub(super) use self::connect::{ConnectError, literal};
pub use self::error::InvalidEgress;
use self::flood::MAX_HEAD;
pub(super) use self::life::Life;
pub use self::policy::EgressPolicy;
pub(super) use self::policy::OPENED_BY;
pub(super) use self::resolve::ON_BEHALF_OF;
use self::resolve::Resolver;
pub(super) use self::tls::certificates;
pub(super) use self::trust::Certificates;
use self::trust::Trust;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// The most idle connections to one host.
const MAX_IDLE_PER_HOST: usize = 32;

/// The interval and the timeout of pings over HTTP/2. Without them every event would go into a dead connection until
/// the system gives it up.
const PING: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// The most bytes of an answer that an HTTP/2 peer may send before any are read.
const STREAM_WINDOW: u32 = 64 << 10;

/// The most fields in the head of an answer over HTTP/1.1. Each answer allocates room for all of them.
const MAX_FIELDS: usize = 4096;

/// How events leave over HTTP: the connections that webhooks share, and the [`EgressPolicy`] over where they lead.
///
/// Clones share the connections. Nothing is opened before the first delivery; all deliveries must run on one tokio
/// runtime with its I/O and time drivers enabled. The protocol is HTTP/1.1 or, where TLS negotiates it, HTTP/2. A
/// server is trusted if one of the system's certificate authorities, or a certificate given to [`trust`](Self::trust),
/// vouches for it. The system looks up names, 64 at a time, of which one namespace may use as many as are still free;
/// an answer is cached for 5 s, and a failure for 2 s. No proxy is used, whatever the environment variables say.
#[derive(Clone)]
pub struct Egress {
    policy: Arc<EgressPolicy>,
    resolver: Resolver,
    trust: Arc<Trust<Clients>>,
}

/// The clients that send requests.
pub(super) struct Clients {
    /// Over connections that all webhooks share.
    pub(super) pooled: HttpClient,
    /// Over a new connection for each request, so that other requests cannot affect it.
    pub(super) alone: HttpClient,
}

pub(super) type HttpClient = Client<Connector, Full<Bytes>>;

impl Egress {
    /// Connects only to addresses that `policy` allows.
    pub fn new(policy: EgressPolicy) -> Self {
        let trust = Arc::new(Trust::new(Arc::default(), None));
        Self { policy: Arc::new(policy), resolver: Resolver::system(), trust }
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
    pub(super) fn with_own(&self, own: Certificates) -> Self {
        let trust = Arc::new(Trust::new(own, Some(Arc::clone(&self.trust))));
        Self { policy: Arc::clone(&self.policy), resolver: self.resolver.clone(), trust }
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

    pub(super) fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// The clients that trust the current certificates.
    pub(super) async fn clients(&self) -> Result<Arc<Clients>, rustls::Error> {
        let clients = self.trust.clients();
        let made = clients
            .get_or_try_init(async || {
                let certificates = self.trust.certificates();
                // Reading the system's certificates blocks.
                let tls = tokio::task::spawn_blocking(move || tls::config(&certificates)).await;
                let tls = tls.unwrap_or_else(|_| Err(rustls::Error::General("cannot be set up".into())))?;
                let connector = Connector::new(Arc::clone(&self.policy), self.resolver.clone(), tls);
                let alone = client(connector.clone(), 0);
                Ok::<_, rustls::Error>(Arc::new(Clients { alone, pooled: client(connector, MAX_IDLE_PER_HOST) }))
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
        f.debug_struct("Egress").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A client that keeps at most `idle` idle connections to a host. With 0 it makes a connection for each request.
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
