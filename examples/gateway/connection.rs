//! One connection, from its first byte to its last.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service;

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
    /// A connection on which nothing is asked for so long is closed: also one whose head does not end, or which does not
    /// come to speak TLS.
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
    pub(crate) async fn serve(self, stream: TcpStream) {
        let Some(tls) = &self.tls else { return self.serve_http(stream).await };
        match timeout(self.max_idle, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        }
    }

    async fn serve_http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let activity = Arc::new(Activity::new());
        // Asked by one request after the other, so that no request needs a clone.
        let app = RefCell::new(self.app.clone());
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |req| Answering { answer: app.borrow_mut().call(req), _running: Running::begin(&activity) })
        };
        let mut connection = pin!(self.protocols.serve_connection(TokioIo::new(stream), service));
        let patience = tokio::select! {
            biased;
            // What went wrong was the peer's doing.
            _ = connection.as_mut() => return,
            () = self.shutdown.clone().begun() => self.max_idle,
            () = activity.idle(self.max_idle) => Duration::ZERO,
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ = connection => {}
            () = async { sleep(GOODBYE).await; activity.idle(patience).await } => {}
        }
    }
}

/// What is being answered on a connection.
struct Activity {
    began: Instant,
    running: AtomicUsize,
    /// In milliseconds since the beginning.
    last_end: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { began: Instant::now(), running: AtomicUsize::new(0), last_end: AtomicU64::new(0) }
    }

    /// Resolves when nothing has been answered for so long, nor is.
    async fn idle(&self, limit: Duration) {
        loop {
            let last_end = self.began + Duration::from_millis(self.last_end.load(Ordering::Relaxed));
            let left = match self.running.load(Ordering::Relaxed) {
                0 => limit.saturating_sub(last_end.elapsed()),
                _ => limit.max(GOODBYE),
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
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
        self.0.last_end.store(self.0.began.elapsed().as_millis() as u64, Ordering::Relaxed);
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
