//! The way out: one client for all webhooks, and a guard over where it connects to.

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

/// How events leave over HTTP: the connections that webhooks share, and the [`EgressPolicy`] over where they lead.
///
/// Clones share the connections. Nothing is opened before the first delivery; all deliveries must be made on one tokio
/// runtime with its I/O and time drivers enabled. HTTP/1.1 and, where TLS agrees on it, HTTP/2. Servers are
/// believed if one of the system's certificate authorities vouches for them, or a certificate given to
/// [`trust`](Self::trust). Names are looked up by the system, 64 at a time, of which a namespace may have as many as are
/// still free; an answer is used for 5 s, and a failure for 2 s. No proxy is used, whatever the environment says.
#[derive(Clone)]
pub struct Egress {
    policy: Arc<EgressPolicy>,
    resolver: Resolver,
    trust: Arc<Trust<Clients>>,
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
        let trust = Arc::new(Trust::new(Arc::default(), None));
        Self { policy: Arc::new(policy), resolver: Resolver::system(), trust }
    }

    /// Trusts the certificates in `pem` as well: of authorities, and of servers, each for the names in it. The result
    /// shares nothing with the clones of before.
    ///
    /// # Errors
    ///
    /// When it is not PEM, holds no certificate, or one that cannot be read.
    pub fn trust(self, pem: &[u8]) -> Result<Self, InvalidEgress> {
        let certificates = self.trust.certificates().into_iter().chain(certificates(pem)?).collect();
        Ok(Self { trust: Arc::new(Trust::new(certificates, None)), ..self })
    }

    /// Trusts `own` as well, and whatever this one trusts, also when that changes later.
    pub(super) fn with_own(&self, own: Certificates) -> Self {
        let trust = Arc::new(Trust::new(own, Some(Arc::clone(&self.trust))));
        Self { policy: Arc::clone(&self.policy), resolver: self.resolver.clone(), trust }
    }

    /// From now on trusts the certificates in `pem` in place of all that were given before, and reads those of the
    /// system again. It holds for each clone, and for each module and connection that was made with one. A connection
    /// with `ca` goes on trusting that as well.
    ///
    /// Requests that are under way go on. Later ones use new connections; the old ones are closed when their last answer
    /// has come.
    ///
    /// # Errors
    ///
    /// As for [`trust`](Self::trust). Nothing has changed then.
    pub fn trust_instead(&self, pem: &[u8]) -> Result<(), InvalidEgress> {
        self.trust.replace(certificates(pem)?.into());
        Ok(())
    }

    pub(super) fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// The clients that believe what is trusted now.
    pub(super) async fn clients(&self) -> Result<Arc<Clients>, rustls::Error> {
        let clients = self.trust.clients();
        let made = clients
            .get_or_try_init(async || {
                let certificates = self.trust.certificates();
                // The system's certificates are files.
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
