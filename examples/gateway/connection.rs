//! One connection, from its first byte to its last.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tower_webhook::Peer;

use crate::routes::App;
use crate::server::Shutdown;

/// The largest head of a request; more is answered 431.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;

/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(20);

/// How long a peer that does nothing has for its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How connections are served.
#[derive(Clone)]
pub(crate) struct Connections {
    app: App,
    tls: Option<TlsAcceptor>,
    protocols: Arc<Builder<TokioExecutor>>,
    /// A connection on which nothing is asked for so long, or up to twice that, is closed: also one whose head does not
    /// end, or which does not come to speak TLS.
    max_idle: Duration,
    shutdown: Shutdown,
}

impl Connections {
    pub(crate) fn new(app: App, tls: Option<TlsAcceptor>, max_idle: Duration, shutdown: Shutdown) -> Self {
        let mut protocols = Builder::new(TokioExecutor::new());
        // What hyper would do about slow heads costs a timer for each of them.
        protocols.http1().header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        protocols
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        Self { app, tls, protocols: Arc::new(protocols), max_idle, shutdown }
    }

    /// Serves `stream` until its end.
    pub(crate) async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let Some(tls) = &self.tls else { return self.serve_http(stream, peer).await };
        match timeout(self.max_idle, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        }
    }

    async fn serve_http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        let activity = Arc::<Activity>::default();
        // Asked by one request after the other, so that no request needs a clone.
        let app = RefCell::new(self.app.clone());
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |mut req: Request<Incoming>| {
                req.extensions_mut().insert(Peer::new(peer));
                Answering { answer: app.borrow_mut().call(req), _running: Running::begin(&activity) }
            })
        };
        let mut connection = pin!(self.protocols.serve_connection(TokioIo::new(stream), service));
        let (close, closing) = oneshot::channel();
        // In a task of its own: what is waited for here is looked at with every request.
        let watch = tokio::spawn(self.clone().watch(Arc::clone(&activity), close));
        let patience = tokio::select! {
            biased;
            // What went wrong was the peer's doing.
            _ = connection.as_mut() => return watch.abort(),
            patience = closing => patience.unwrap_or_default(),
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ = connection => {}
            () = activity.idle(patience) => {}
        }
    }

    /// Says when the connection is to be closed, and how long its peer may then do nothing.
    async fn watch(self, activity: Arc<Activity>, close: oneshot::Sender<Duration>) {
        let patience = tokio::select! {
            () = self.shutdown.begun() => self.max_idle,
            () = activity.idle(self.max_idle) => GOODBYE,
        };
        let _ = close.send(patience);
    }
}

/// What is being answered on a connection.
#[derive(Default)]
struct Activity {
    running: AtomicUsize,
    ended: AtomicUsize,
}

impl Activity {
    /// Resolves when nothing has been answered for so long, or up to twice that.
    async fn idle(&self, limit: Duration) {
        let mut before = self.ended.load(Ordering::Relaxed);
        loop {
            sleep(limit).await;
            let ended = self.ended.load(Ordering::Relaxed);
            if self.running.load(Ordering::Relaxed) == 0 && ended == before {
                return;
            }
            before = ended;
        }
    }
}

struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[pin_project]
struct Answering<F> {
    #[pin]
    answer: F,
    _running: Running,
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().answer.poll(cx)
    }
}
