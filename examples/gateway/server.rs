//! The edge: sockets, deadlines, and a graceful stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tower::Service;

use crate::Error;
use crate::settings::Settings;

/// The largest head of a request; more is answered 431.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;

/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(20);

pub(crate) fn bind(settings: &Settings) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind((settings.host.as_str(), settings.port))
        .map_err(|error| format!("HOST, PORT: cannot listen on {}:{}: {error}", settings.host, settings.port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Raises the number of open files that the process may have as far as it is allowed to: each connection is one, and a
/// server that has run out of them accepts nobody.
fn raise_file_limit(max_connections: usize) {
    /// For everything that is no connection.
    const OTHERS: u64 = 128;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files >= max_connections as u64 + OTHERS => {}
        Ok(files) => {
            tracing::warn!(files, max_connections, "MAX_CONNECTIONS is more than the limit of open files allows")
        }
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Serves until SIGTERM or SIGINT, then finishes the requests that run within the grace time.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    settings: &Settings,
    shutdown: Shutdown,
) -> Result<(), Error> {
    raise_file_limit(settings.max_connections);
    let handle = Handle::new();
    let cap = Cap(Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))));
    let address = listener.local_addr()?;
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle.clone())
        .first_request_timeout(settings.header_timeout)
        .accept_error_handler(|peer, error| tracing::debug!(?peer, %error, "connection not accepted"));
    let http = server.http_builder();
    http.http1().header_read_timeout(settings.header_timeout).max_buf_size(MAX_HEAD_BYTES);
    http.http2()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);

    let signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    tokio::spawn(stop_on_signal(signals, handle, settings.shutdown_grace, shutdown));
    let service = app.into_make_service();
    match &settings.tls {
        Some((cert, key)) => {
            // More than one provider may be linked in; rustls must be told.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let config =
                RustlsConfig::from_pem_file(cert, key).await.map_err(|error| format!("TLS_CERT, TLS_KEY: {error}"))?;
            tracing::info!(%address, tls = true, "listening");
            server.acceptor(RustlsAcceptor::new(config).acceptor(cap)).serve(service).await?;
        }
        None => {
            tracing::info!(%address, tls = false, "listening");
            server.acceptor(cap).serve(service).await?;
        }
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn stop_on_signal(mut signals: Signals, handle: Handle<SocketAddr>, grace: Duration, shutdown: Shutdown) {
    signals.next().await;
    shutdown.begin(grace);
    tracing::info!(connections = handle.connection_count(), ?grace, "stopping: finishing what runs");
    handle.graceful_shutdown(Some(grace));
    signals.next().await;
    tracing::warn!("asked again: stopping at once");
    shutdown.hurry();
    handle.shutdown();
}

/// When everything has to have ended, once the stop has begun. The server is then no longer ready.
#[derive(Clone, Default)]
pub(crate) struct Shutdown(Arc<watch::Sender<Option<Instant>>>);

impl Shutdown {
    pub(crate) fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves when the stop begins.
    pub(crate) async fn begun(self) {
        let mut until = self.0.subscribe();
        // The sender is right here.
        let _ = until.wait_for(Option::is_some).await;
    }

    /// Resolves when the grace time is over.
    pub(crate) async fn over(&self) {
        let mut until = self.0.subscribe();
        loop {
            let now = *until.borrow_and_update();
            match now {
                None => drop(until.changed().await),
                Some(end) => {
                    if tokio::time::timeout_at(end, until.changed()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn begin(&self, grace: Duration) {
        self.0.send_replace(Some(Instant::now() + grace));
    }

    fn hurry(&self) {
        self.0.send_replace(Some(Instant::now()));
    }
}

/// Closes connections beyond a number of them as soon as they are accepted.
#[derive(Clone)]
struct Cap(Arc<Semaphore>);

impl<S> Accept<TcpStream, S> for Cap {
    type Stream = TcpStream;
    type Service = Counted<S>;
    type Future = std::future::Ready<io::Result<(TcpStream, Counted<S>)>>;

    fn accept(&self, stream: TcpStream, inner: S) -> Self::Future {
        std::future::ready(match Arc::clone(&self.0).try_acquire_owned() {
            Ok(permit) => stream.set_nodelay(true).map(|()| (stream, Counted { inner, _permit: Arc::new(permit) })),
            Err(_) => Err(io::Error::other("there are MAX_CONNECTIONS connections already")),
        })
    }
}

/// A connection's service. It is counted until the connection is gone.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Request<B>) -> S::Future {
        self.inner.call(req)
    }
}
