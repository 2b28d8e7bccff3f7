//! The client of HTTP, and its connector: HTTP/1.1, or the protocol that TLS negotiates.

use std::error::Error;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::flood::MAX_HEAD;
use super::life::Watched;
use crate::egress::connect::{CONNECT_TIMEOUT, ConnectError, Guard};
use crate::egress::resolve::namespace;

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

/// The clients that send requests.
pub(crate) struct Clients {
    /// Over connections that all webhooks share.
    pub(crate) pooled: HttpClient,
    /// Over a new connection for each request, so that other requests cannot affect it.
    pub(crate) alone: HttpClient,
}

pub(crate) type HttpClient = Client<Connector, Full<Bytes>>;

impl Clients {
    pub(in crate::egress) fn new(guard: Guard, tls: ClientConfig) -> Self {
        let connector = Connector::new(guard, tls);
        Self { alone: client(connector.clone(), 0), pooled: client(connector, MAX_IDLE_PER_HOST) }
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

/// Makes connections: HTTP/1.1, or the protocol that TLS has negotiated.
#[derive(Clone)]
pub(crate) struct Connector(HttpsConnector<Tcp>);

impl Connector {
    fn new(guard: Guard, tls: ClientConfig) -> Self {
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        Self(https.wrap_connector(Tcp(guard)))
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        // A time limit of its own: the client keeps connecting after the request's deadline has passed.
        Box::pin(async move {
            let stream = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(ConnectError::Timeout.into()))?;
            let is_http2 = stream.connected().is_negotiated_h2();
            Ok(TokioIo::new(Watched::new(TokioIo::new(stream), is_http2)))
        })
    }
}

/// Makes TCP connections to the host of a URL.
#[derive(Clone)]
struct Tcp(Guard);

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let guard = self.0.clone();
        // Read now: the client may continue to connect in a task of its own.
        let namespace = namespace();
        Box::pin(async move {
            let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
            guard.connect(uri.host().unwrap_or_default(), port, namespace).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;

    use super::*;
    use crate::egress::resolve::{Resolver, on_behalf_of};

    /// With a mock of the resolver, because no real name hangs on demand.
    #[tokio::test]
    async fn a_name_without_an_answer_counts_against_the_sending_namespace() {
        let resolver = Resolver::new(|_| {
            std::thread::sleep(Duration::from_millis(500));
            Err(io::Error::other("no answer"))
        });
        let tls = crate::egress::verify::Verifier::new(&[]).client().unwrap();
        let guard = Guard { policy: Arc::default(), resolver: resolver.clone() };
        let client = client(Connector::new(guard, tls), 1);
        let mut requests = FuturesUnordered::new();
        for number in 0..5 {
            let uri: Uri = format!("http://{number}.hangs/").parse().unwrap();
            let request = http::Request::post(uri).body(http_body_util::Full::default()).unwrap();
            let webhook = crate::config::WebhookKey::new(if number < 3 { "many" } else { "few" }, "hook").unwrap();
            requests.push(on_behalf_of(webhook, client.request(request)));
        }
        assert!(timeout(Duration::from_millis(200), requests.next()).await.is_err());
        assert_eq!((resolver.under_way("many"), resolver.under_way("few")), (3, 2));
    }
}
