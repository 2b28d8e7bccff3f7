//! One connection, from its first byte to its last.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::http::{self, StatusCode, Version};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tower::Service as _;
use tower_webhook::request::{ClientCertificate, Peer};

use crate::activity::{Activity, Limits, Running};
use crate::certificates::TlsAcceptor;
use crate::exchange::{AnswerBody, Answering, RequestBody};
use crate::http2_memory::{Http2Memory, Place};
use crate::linger::{Lent, Lingering, lend};
use crate::opening::{Opening, Protocol};
use crate::routes::{App, AppBody, AppFuture, detail};
use crate::server::Shutdown;
use crate::streams::Streams;

type Answer = Response<AnswerBody<AppBody>>;

/// The largest head of a request. A larger one gets 431.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// How often a silent HTTP/2 connection gets a PING.
const PING: Duration = Duration::from_secs(20);

/// How long a peer that does nothing may take to close its connection.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// How many HTTP/1 connections keep their buffers, about 20 KiB each, while they wait for a request. Each further one
/// allocates new buffers when its next request arrives. Of 512 connections under load, that costs about 5 % of the rate.
const KEPT: usize = 128;

/// A connection's byte stream, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// How connections are served.
pub(crate) struct Connections {
    app: App,
    tls: Option<TlsAcceptor>,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    streams: Streams,
    http2_memory: Arc<Http2Memory>,
    limits: Limits,
    lingering: Arc<Lingering>,
    shutdown: Shutdown,
    /// HTTP/1 connections that have buffers.
    buffered: AtomicUsize,
}

impl Connections {
    pub(crate) fn new(
        app: App,
        tls: Option<TlsAcceptor>,
        limits: Limits,
        lingering: Arc<Lingering>,
        streams: Streams,
        http2_memory: Arc<Http2Memory>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        // hyper's own limit needs a timer for each head and counts idle time as time of the head. With `half_close` a
        // sender that has closed its half of the connection after its request still gets its answer.
        http1.half_close(true).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        let mut http2 = http2::Builder::new(streams.clone());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let buffered = AtomicUsize::new(0);
        Arc::new(Self { app, tls, http1, http2, streams, http2_memory, limits, lingering, shutdown, buffered })
    }

    /// Serves `stream` until its end.
    // Not an `async fn`, whose future would hold each argument twice.
    pub(crate) fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        activity: Arc<Activity>,
        places: impl Send,
    ) -> impl Future<Output = ()> + Send {
        let (lent, mut returned) = lend(stream, Arc::clone(&activity), self.tls.is_some());
        let (lent, mut peer) = (Box::new(lent), Peer::new(peer));
        async move {
            let more_expected = self.talk(lent, &mut peer, &activity).await;
            // Everything that its requests held has been dropped, and so the stream has come back.
            if let Ok(stream) = returned.try_recv()
                && !activity.has_stalled()
            {
                self.lingering.close(stream, more_expected, &self.shutdown).await;
            }
            drop(places);
        }
    }

    /// Returns whether the peer may still be sending.
    async fn talk(&self, stream: Box<Lent>, peer: &mut Peer, activity: &Arc<Activity>) -> bool {
        let mut opening = match self.secure(stream, peer).await {
            Some(stream) => Opening::new(stream),
            None => return false,
        };
        let protocol = tokio::select! {
            biased;
            protocol = opening.protocol() => protocol,
            () = self.waited_enough(activity) => return opening.has_begun(),
        };
        // Boxed: a connection that waits for a request does not need the memory.
        match protocol {
            Ok(Some(Protocol::Http1)) => {}
            Ok(Some(Protocol::Http2)) => return Box::pin(self.talk_http2(opening, peer, activity)).await,
            Ok(None) => return false,
            // A fault of the peer, which may go on sending.
            Err(_) => return true,
        }
        loop {
            match Box::pin(self.talk_http1(opening, peer, activity)).await {
                Talked::Over { more_expected } => return more_expected,
                Talked::GivesBack(stream) => opening = stream,
            }
            if opening.has_begun() {
                // The beginning of the next request, which arrived with the last one.
                activity.heard();
                continue;
            }
            tokio::select! {
                biased;
                more = opening.wait_for_more() => match more {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(_) => return true,
                },
                () = self.waited_enough(activity) => return false,
            }
        }
    }

    /// Begins TLS if the server speaks TLS; `None` if the peer does not.
    async fn secure(&self, stream: Box<Lent>, peer: &mut Peer) -> Option<Box<dyn Stream>> {
        let Some(tls) = &self.tls else { return Some(stream) };
        // Boxed: a connection without TLS does not need the memory, nor does one after the handshake.
        let stream = Box::pin(self.handshake(tls, *stream)).await?;
        identify(peer, stream.get_ref().1);
        Some(stream)
    }

    async fn handshake(&self, tls: &TlsAcceptor, stream: Lent) -> Option<Box<TlsStream<Lent>>> {
        match timeout(self.limits.head, tls.accept(stream)).await {
            Ok(Ok(stream)) => return Some(Box::new(stream)),
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        }
        None
    }

    async fn talk_http2(&self, opening: Opening<Box<dyn Stream>>, peer: &Peer, activity: &Arc<Activity>) -> bool {
        let connection = self.http2.serve_connection(TokioIo::new(opening), self.service(peer, activity));
        let end = http2::Connection::graceful_shutdown;
        let place = self.http2_memory.enter(activity);
        let attended = self.attend(pin!(connection), end, Some(&place), activity).await;
        matches!(attended, Attended::Over { more_expected: true })
    }

    async fn talk_http1(&self, opening: Opening<Box<dyn Stream>>, peer: &Peer, activity: &Arc<Activity>) -> Talked {
        let _buffered = Counted::new(&self.buffered);
        let mut connection = self.http1.serve_connection(TokioIo::new(opening), self.service(peer, activity));
        let end = http1::Connection::graceful_shutdown;
        match self.attend(Pin::new(&mut connection), end, None, activity).await {
            Attended::Over { more_expected } => Talked::Over { more_expected },
            Attended::GivesBack => {
                let Parts { io, read_buf, .. } = connection.into_parts();
                let mut opening = io.into_inner();
                opening.put_back(read_buf);
                Talked::GivesBack(opening)
            }
        }
    }

    /// Answers the requests of a connection: one after the other, in HTTP/2 concurrently.
    fn service(
        &self,
        peer: &Peer,
        activity: &Arc<Activity>,
    ) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future = Answering<AppFuture>> + use<>
    {
        // Requests call it one after the other, so no request needs a clone.
        let app = RefCell::new(self.app.clone());
        let (peer, activity) = (peer.clone(), Arc::clone(activity));
        service_fn(move |mut req: Request<Incoming>| {
            req.extensions_mut().insert(peer.clone());
            let entry = app.borrow().access(&req);
            if activity.refuses_more() && req.version() == Version::HTTP_2 {
                return Answering::refused(closing(), entry);
            }
            let running = Running::begin(&activity);
            Answering::new(app.borrow_mut().call(RequestBody::of(req, &activity)), running, entry)
        })
    }

    /// Resolves when a connection without a running request must end.
    async fn waited_enough(&self, activity: &Activity) {
        tokio::select! {
            () = self.shutdown.clone().begun() => {}
            () = activity.expired(&self.limits) => {}
        }
    }

    /// Polls `connection` until it has ended or gives back its buffers. `end` begins a graceful end. An HTTP/2 connection has
    /// a place in the memory of all of them.
    async fn attend<C: Future<Output = hyper::Result<()>>>(
        &self,
        mut connection: Pin<&mut C>,
        end: impl Fn(Pin<&mut C>),
        http2: Option<&Place>,
        activity: &Arc<Activity>,
    ) -> Attended {
        let (close, closing) = oneshot::channel();
        // In its own task: each request polls everything that this function waits for.
        let watch = tokio::spawn(watch(Arc::clone(activity), self.limits, self.shutdown.clone(), close));
        let over = |outcome: hyper::Result<()>| {
            // An error is a fault of the peer, which may go on sending bytes that nobody understands.
            Attended::Over { more_expected: outcome.is_err() || activity.is_unread() }
        };
        let gives_back = || {
            let is_one_of_many = self.buffered.load(Ordering::Relaxed) > KEPT;
            http2.is_none() && is_one_of_many && activity.is_at_rest()
        };
        let talk = poll_fn(|cx| {
            if http2.is_some() && self.streams.are_crowded() {
                // The tasks that wait for their first run get it before this is polled again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let polled = connection.as_mut().poll(cx);
            http2.inspect(|place| place.count());
            match polled {
                Poll::Ready(outcome) => Poll::Ready(over(outcome)),
                Poll::Pending if gives_back() => Poll::Ready(Attended::GivesBack),
                Poll::Pending => Poll::Pending,
            }
        });
        let reason = tokio::select! {
            biased;
            attended = talk => {
                watch.abort();
                return attended;
            }
            reason = closing => reason.unwrap_or(Closing::Expired),
        };
        end(connection.as_mut());
        let patience = async {
            // Requests that were on their way when the server announced the end are served. In HTTP/2 hyper accepts more
            // until the peer has answered a PING, which may never happen.
            sleep(GOODBYE).await;
            activity.refuse_more();
            match reason {
                Closing::Expired if activity.has_stalled() => {}
                Closing::Expired => activity.quiet(GOODBYE).await,
                Closing::Stopping => {
                    let idle = if activity.is_http2() { GOODBYE } else { self.limits.head };
                    activity.expired(&Limits { idle, ..self.limits }).await;
                }
            }
        };
        tokio::select! {
            biased;
            outcome = connection => over(outcome),
            () = patience => Attended::Over { more_expected: false },
        }
    }
}

/// Why a connection needs no more attention.
enum Attended {
    /// It has ended.
    Over { more_expected: bool },
    /// It waits for a request and gives back its buffers.
    GivesBack,
}

/// The outcome of serving an HTTP/1 connection.
enum Talked {
    /// It has ended.
    Over { more_expected: bool },
    /// It waits for a request without buffers.
    GivesBack(Opening<Box<dyn Stream>>),
}

/// Adds one to a counter until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds the peer's certificate if TLS has verified one.
fn identify(peer: &mut Peer, tls: &rustls::ServerConnection) {
    if let Some(certificate) = tls.peer_certificates().and_then(<[_]>::first) {
        *peer = peer.clone().with_certificate(ClientCertificate::new(certificate.as_ref()));
    }
}

fn closing() -> http::Response<AppBody> {
    let again = "this connection is being closed; send the request again on another one";
    detail(StatusCode::SERVICE_UNAVAILABLE, again).map(Either::Right)
}

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug)]
enum Closing {
    /// The peer has kept the server waiting too long, or the connection makes room for others.
    Expired,
    /// The process stops.
    Stopping,
}

async fn watch(activity: Arc<Activity>, limits: Limits, shutdown: Shutdown, mut close: oneshot::Sender<Closing>) {
    let reason = tokio::select! {
        () = shutdown.begun() => Closing::Stopping,
        () = activity.expired(&limits) => Closing::Expired,
        () = activity.asked_to_leave() => Closing::Expired,
        // Another connection has taken its place.
        () = close.closed() => return,
    };
    let _ = close.send(reason);
}
