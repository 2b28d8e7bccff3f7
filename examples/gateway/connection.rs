//! One connection, from its first byte to its last.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{self, StatusCode, Version};
use http_body_util::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tower::Service;
use tower_webhook::Peer;

use crate::activity::{Activity, Limits, Running};
use crate::certificates::TlsAcceptor;
use crate::exchange::{Answering, RequestBody};
use crate::guests::Place;
use crate::linger::{Lent, Lingering, lend};
use crate::routes::{App, AppBody, detail};
use crate::server::Shutdown;
use crate::streams::Streams;

/// The largest head of a request; more is answered 431.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(20);

/// How long a peer that does nothing has for its goodbye.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// How connections are served.
#[derive(Clone)]
pub(crate) struct Connections {
    app: App,
    tls: Option<TlsAcceptor>,
    protocols: Arc<Builder<Streams>>,
    limits: Limits,
    lingering: Arc<Lingering>,
    shutdown: Shutdown,
}

impl Connections {
    pub(crate) fn new(
        app: App,
        tls: Option<TlsAcceptor>,
        limits: Limits,
        lingering: Arc<Lingering>,
        streams: Streams,
        shutdown: Shutdown,
    ) -> Self {
        let mut protocols = Builder::new(streams);
        // Hyper's own limit costs a timer for each head, and counts idle time as part of the head's time. A sender that
        // has sent its whole request is answered, though it has closed its half of the connection.
        protocols.http1().half_close(true).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        protocols
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        Self { app, tls, protocols: Arc::new(protocols), limits, lingering, shutdown }
    }

    /// Serves `stream` until its end.
    pub(crate) async fn serve(self, stream: TcpStream, peer: SocketAddr, activity: Arc<Activity>, _place: Place) {
        let (lent, mut returned) = lend(stream, Arc::clone(&activity));
        let more_expected = self.talk(lent, peer, &activity).await;
        // All that its requests held has been dropped, and the stream with it.
        if let Ok(stream) = returned.try_recv() {
            if activity.has_stalled() {
                // Else the system would go on offering the rest to the peer for minutes.
                return drop(stream.set_zero_linger());
            }
            self.lingering.close(stream, more_expected, &self.shutdown).await;
        }
    }

    /// Speaks TLS or not. Returns whether the peer may still be sending.
    async fn talk(&self, stream: Lent, peer: SocketAddr, activity: &Arc<Activity>) -> bool {
        let Some(tls) = &self.tls else { return self.talk_http(stream, peer, activity).await };
        match timeout(self.limits.head, tls.accept(stream)).await {
            Ok(Ok(stream)) => return self.talk_http(stream, peer, activity).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        }
        false
    }

    async fn talk_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        activity: &Arc<Activity>,
    ) -> bool {
        // Asked by one request after the other, so that no request needs a clone.
        let app = RefCell::new(self.app.clone());
        let service = {
            let activity = Arc::clone(activity);
            service_fn(move |mut req: Request<Incoming>| {
                if activity.refuses_more() && req.version() == Version::HTTP_2 {
                    return Answering::refused(closing());
                }
                req.extensions_mut().insert(Peer::new(peer));
                let running = Running::begin(&activity);
                Answering::new(app.borrow_mut().call(RequestBody::of(req, &activity)), running)
            })
        };
        let mut connection = pin!(self.protocols.serve_connection(TokioIo::new(stream), service));
        let (close, closing) = oneshot::channel();
        // In a task of its own: every request polls all that is waited for here.
        let watch = tokio::spawn(watch(Arc::clone(activity), self.limits, self.shutdown.clone(), close));
        let reason = tokio::select! {
            biased;
            outcome = connection.as_mut() => {
                watch.abort();
                // An error is the peer's fault: it may go on sending bytes that were not understood.
                return outcome.is_err() || activity.is_unread();
            }
            reason = closing => reason.unwrap_or(Closing::Expired),
        };
        connection.as_mut().graceful_shutdown();
        let patience = async {
            // What was on its way when the peer was told is served. In HTTP/2 hyper takes more until the peer has
            // answered a PING, which it may never do.
            sleep(GOODBYE).await;
            activity.refuse_more();
            match reason {
                Closing::Expired if activity.has_stalled() => {}
                Closing::Expired => activity.quiet(GOODBYE).await,
                Closing::Stopping => {
                    let idle = if activity.is_http2() { GOODBYE } else { self.limits.head };
                    activity.expired(Limits { idle, ..self.limits }).await;
                }
            }
        };
        tokio::select! {
            biased;
            outcome = connection => outcome.is_err() || activity.is_unread(),
            () = patience => false,
        }
    }
}

fn closing() -> http::Response<AppBody> {
    let again = "this connection is being closed; send the request again on another one";
    detail(StatusCode::SERVICE_UNAVAILABLE, again).map(Either::Right)
}

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug)]
enum Closing {
    /// The peer has kept the server waiting for too long.
    Expired,
    /// The process stops.
    Stopping,
}

async fn watch(activity: Arc<Activity>, limits: Limits, shutdown: Shutdown, mut close: oneshot::Sender<Closing>) {
    let reason = tokio::select! {
        () = shutdown.begun() => Closing::Stopping,
        () = activity.expired(limits) => Closing::Expired,
        // Another connection has taken its place.
        () = close.closed() => return,
    };
    let _ = close.send(reason);
}
