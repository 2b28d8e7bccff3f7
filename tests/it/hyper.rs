//! Each layer, and the receiver, under hyper over a socket, with HTTP/1.1 and HTTP/2.

mod guards;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::{Service, ServiceBuilder, service_fn};
use tower_webhook::auth::Bearer;
use tower_webhook::config::DataType;
use tower_webhook::dedup::{Claims, DedupRule};
use tower_webhook::event::EventId;
use tower_webhook::layers::{
    CheckPayloadLayer, CollectBodyLayer, DedupLayer, Dispatch, FinishLayer, LookupWebhookLayer, ObserveLayer,
    ProblemJsonLayer, RequireAuthLayer, RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::receiver;
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;

use crate::support::schemes::Checksum;
use crate::support::{Answer, eventually, post, store, within};

/// Serves `service` on a socket, as one does with bare hyper.
pub(crate) async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<tower::BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    address
}

pub(crate) async fn http1<B>(address: SocketAddr, request: Request<B>) -> Answer
where
    B: Body<Data: Send, Error: Into<tower::BoxError>> + Send + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        within("a handshake", hyper::client::conn::http1::handshake(TokioIo::new(stream))).await.unwrap();
    tokio::spawn(connection);
    Answer::of(within("an answer", sender.send_request(request)).await.unwrap()).await
}

pub(crate) async fn http2<B>(address: SocketAddr, request: Request<B>) -> Answer
where
    B: Body<Data: Send, Error: Into<tower::BoxError>> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        within("a handshake", hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)))
            .await
            .unwrap();
    tokio::spawn(connection);
    Answer::of(within("an answer", sender.send_request(request)).await.unwrap()).await
}

/// The answers to one request by both protocols; `path` begins with a slash.
async fn both(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &'static str) -> [Answer; 2] {
    let request = |host: &str| {
        let mut request = Request::post(format!("http://{host}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::from(body))).unwrap()
    };
    [http1(address, request("localhost")).await, http2(address, request("localhost")).await]
}

async fn assert_status(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &'static str, status: u16) {
    for answer in both(address, path, headers, body).await {
        assert_eq!(answer.status, status, "{path} {headers:?} {body}: {answer:?}");
    }
}

async fn ok<B>(_: Request<B>) -> Result<Response<ResponseBody>, Infallible> {
    Ok(Response::default())
}

const TOKEN: (&str, &str) = ("authorization", crate::support::CREDENTIAL);

#[tokio::test]
async fn route_namespace() {
    let address = serve(ServiceBuilder::new().layer(RouteNamespaceLayer::from_path()).service(service_fn(ok))).await;
    assert_status(address, "/a/b", &[], "", 200).await;
    assert_status(address, "/a/b?c=d", &[], "", 200).await;
    assert_status(address, "/a/b/c", &[], "", 404).await;
    assert_status(address, "/a/%62", &[], "", 400).await;
}

#[tokio::test]
async fn lookup_webhook() {
    let service = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store().await))
        .service(service_fn(ok));
    let address = serve(service).await;
    assert_status(address, "/shop/open", &[], "", 200).await;
    assert_status(address, "/shop/nothing", &[], "", 404).await;
    assert_status(address, "/shop/broken", &[], "", 503).await;
}

#[tokio::test]
async fn require_auth() {
    let guard = RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap());
    let address = serve(ServiceBuilder::new().layer(guard).service(service_fn(ok))).await;
    assert_status(address, "/", &[TOKEN], "", 200).await;
    assert_status(address, "/", &[], "", 401).await;
    assert_status(address, "/", &[TOKEN, TOKEN], "", 401).await;
}

#[tokio::test]
async fn collect_body() {
    let echo = service_fn(|request: Request<Collected>| async move {
        Ok::<_, Infallible>(Response::new(ResponseBody::from(request.body().bytes().clone())))
    });
    let address = serve(ServiceBuilder::new().layer(CollectBodyLayer::new().max_bytes(5)).service(echo)).await;
    for answer in both(address, "/", &[], "hello").await {
        assert_eq!(answer.body, "hello");
    }
    assert_status(address, "/", &[], "hello!", 413).await;

    // Of unknown size, in many frames.
    let chunks = |text: &'static str| {
        let frames = text.split(' ').map(|word| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(word))));
        Request::post("http://localhost/").body(StreamBody::new(futures_util::stream::iter(frames))).unwrap()
    };
    assert_eq!(http1(address, chunks("he l lo")).await.body, "hello");
    assert_eq!(http2(address, chunks("he l lo")).await.body, "hello");
    assert_eq!(http1(address, chunks("he l lo !")).await.status, 413);
    assert_eq!(http2(address, chunks("he l lo !")).await.status, 413);
}

#[tokio::test]
async fn verify_body() {
    let service = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Checksum::new(7)).verify_body_follows())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new())
        .service(service_fn(ok));
    let address = serve(service).await;
    let right = Checksum::sign(7, b"abc");
    assert_status(address, "/", &[("x-checksum", &right)], "abc", 200).await;
    assert_status(address, "/", &[("x-checksum", &right)], "abd", 401).await;
    assert_status(address, "/", &[], "abc", 401).await;
}

#[tokio::test]
async fn check_payload() {
    let service = ServiceBuilder::new()
        .layer(CollectBodyLayer::new())
        .layer(CheckPayloadLayer::new(DataType::Json))
        .service(service_fn(ok));
    let address = serve(service).await;
    assert_status(address, "/", &[], "[]", 200).await;
    assert_status(address, "/", &[], "[", 400).await;
    assert_status(address, "/", &[], "", 400).await;
}

#[tokio::test]
async fn dedup() {
    let service = ServiceBuilder::new()
        .layer(CollectBodyLayer::new())
        .layer(DedupLayer::new(Claims::in_memory()).rule("orders", DedupRule::pointer("/id").unwrap()))
        .service(service_fn(ok));
    let address = serve(service).await;
    let [first, second] = both(address, "/", &[], r#"{"id": 1}"#).await;
    assert_eq!((first.status.as_u16(), first.text()), (200, ""));
    assert!(!first.headers.contains_key("x-duplicate"));
    assert_eq!((second.status.as_u16(), second.text()), (200, ""));
    assert_eq!(second.header("x-duplicate"), "true");
    assert_status(address, "/", &[], "{}", 400).await;
}

#[tokio::test]
async fn a_service_behind_dedup_reads_the_id_of_the_event() {
    let own = service_fn(|request: Request<Collected>| async move {
        let id = EventId::of(request.extensions()).unwrap().to_string();
        Ok::<_, Infallible>(Response::new(ResponseBody::from(Bytes::from(id))))
    });
    let service = ServiceBuilder::new()
        .layer(CollectBodyLayer::new())
        .layer(DedupLayer::new(Claims::in_memory()).rule("orders", DedupRule::header("x-id").unwrap()))
        .service(own);
    let address = serve(service).await;
    let [first, second] = both(address, "/", &[("x-id", "1")], "").await;
    assert_eq!((first.text().len(), first.text()), (36, first.header("x-event-id")));
    assert_eq!((second.text(), second.header("x-event-id")), ("", first.text()));
}

/// hyper drops the answer that nobody waits for: with HTTP/1.1 when the connection ends, with HTTP/2 also when the
/// stream is reset.
#[tokio::test]
async fn finish() {
    let layer = FinishLayer::new();
    let (remainders, may_end) = (layer.remainders(), Arc::new(Semaphore::new(0)));
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = {
        let (may_end, begun, ended) = (Arc::clone(&may_end), Arc::clone(&begun), Arc::clone(&ended));
        service_fn(move |request: Request<Collected>| {
            let (may_end, begun, ended) = (Arc::clone(&may_end), Arc::clone(&begun), Arc::clone(&ended));
            async move {
                assert_eq!(request.body().bytes().len(), 5);
                begun.fetch_add(1, Ordering::SeqCst);
                may_end.acquire().await.unwrap().forget();
                ended.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Response::<ResponseBody>::default())
            }
        })
    };
    let service = ServiceBuilder::new().layer(CollectBodyLayer::new()).layer(layer).map_future(Box::pin).service(slow);
    let address = serve(service).await;
    let request = || Request::post("http://localhost/").body(Full::new(Bytes::from("hello"))).unwrap();
    let reset = tokio::spawn(http2(address, request()));
    let closed = tokio::spawn(http1(address, request()));
    eventually("both to begin", async || begun.load(Ordering::SeqCst) == 2).await;
    reset.abort();
    closed.abort();
    eventually("both to be without a sender", async || remainders.count() == 2).await;
    may_end.add_permits(2);
    within("their end", remainders.ended()).await;
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn observe_and_problem_json() {
    let service = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(ObserveLayer::new())
        .layer(RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap()))
        .service(service_fn(ok));
    let address = serve(service).await;
    for answer in both(address, "/", &[], "").await {
        assert_eq!(answer.problem(401), "Unauthorized");
    }
    assert_status(address, "/", &[TOKEN], "", 200).await;
}

#[tokio::test]
async fn dispatch() {
    let service = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store().await))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new())
        .layer(CheckPayloadLayer::from_webhook())
        .service(Dispatch::new());
    let address = serve(service).await;
    for answer in both(address, "/shop/guarded", &[TOKEN], "{}").await {
        answer.assert_accepted();
    }
}

#[tokio::test]
async fn the_receiver() {
    let address = serve(receiver(store().await)).await;
    for answer in both(address, "/shop/guarded", &[TOKEN], "{}").await {
        answer.assert_accepted();
        assert_eq!(answer.header("x-event-id").len(), 36);
    }
    for answer in both(address, "/shop/guarded", &[], "{}").await {
        assert_eq!(answer.problem(401), "Unauthorized");
    }
    assert_status(address, "/shop/guarded", &[TOKEN], "{", 400).await;
}

#[tokio::test]
async fn many_requests_of_one_http2_connection_are_served_at_once() {
    let address = serve(receiver(store().await)).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        within("a handshake", hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)))
            .await
            .unwrap();
    tokio::spawn(connection);
    let answers = (0..100).map(|n| {
        let mut sender = sender.clone();
        async move {
            let (path, expected) = match n % 2 {
                0 => ("http://localhost/shop/guarded", 200),
                _ => ("http://localhost/shop/nothing", 404),
            };
            let answer = sender.send_request(post(path, "{}")).await.unwrap();
            assert_eq!(answer.status(), expected);
            answer.into_body().collect().await.unwrap();
        }
    });
    within("all answers", futures_util::future::join_all(answers)).await;
}
