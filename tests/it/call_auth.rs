//! `CallAuth` with a scheme that asks a real HTTP server, in axum and under hyper.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_webhook::auth::{AuthError, ConfigScheme, Proof, Scheme};
use tower_webhook::config::{BuildContext, BuildError};
use tower_webhook::receiver::ReceiverBuilder;
use tower_webhook::request::Head;
use tower_webhook::{Receiver, Store};

use crate::hyper::serve;
use crate::support::body::Unread;
use crate::support::modules::Seen;
use crate::support::schemes::{Checksum, HeaderKey};
use crate::support::{Answer, ask, eventually, store_of, within};

/// Asks a server whether `x-token` is valid. The server's address is the configuration.
#[derive(Debug)]
struct Introspection {
    server: SocketAddr,
}

impl ConfigScheme for Introspection {
    const KEY: &'static str = "introspection";

    type Config = SocketAddr;

    fn build(server: SocketAddr, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self { server })
    }
}

impl Scheme for Introspection {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        match head.headers.contains_key("x-token") {
            true => Ok(Proof::NeedsCall),
            false => Err(AuthError::Missing),
        }
    }

    async fn check_call(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let token = head.headers["x-token"].clone();
        let (status, answer) = introspect(self.server, token).await.map_err(|_| AuthError::Unavailable)?;
        match (status, &answer[..]) {
            (StatusCode::OK, b"active") => Ok(Proof::Complete),
            (StatusCode::OK, b"active, if the body is signed") => Ok(Proof::NeedsBody),
            (StatusCode::OK, b"inactive") => Err(AuthError::Invalid),
            (StatusCode::OK, b"suspended") => Err(AuthError::Forbidden),
            _ => Err(AuthError::Unavailable),
        }
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        Checksum::new(7).check_body(head, body)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("Token")
    }
}

async fn introspect(server: SocketAddr, token: HeaderValue) -> Result<(StatusCode, Bytes), tower::BoxError> {
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/introspect").header("host", "auth").header("x-token", token);
    let ask = async {
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    // Not in a separate task, so that the connection ends with the call.
    tokio::select! {
        answer = ask => answer,
        outcome = connection => Err(outcome.err().map_or_else(|| "the connection ended".into(), Into::into)),
    }
}

/// A server that confirms tokens, and the number of its requests without an answer.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, asked: Arc::default(), waiting: Arc::default() };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                let service = service_fn(move |request| this.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        server
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        struct Waiting(Arc<AtomicUsize>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self.waiting);
        let (status, text) = match request.headers()["x-token"].to_str().unwrap() {
            "right" => (200, "active"),
            "signed" => (200, "active, if the body is signed"),
            "wrong" => (200, "inactive"),
            "suspended" => (200, "suspended"),
            "riddle" => (200, "{\"active\": perhaps"),
            "failing" => (500, "active"),
            "never" => std::future::pending().await,
            other => panic!("a token that no test sends: {other}"),
        };
        Ok(Response::builder().status(status).body(Full::from(text)).unwrap())
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A server whose answers are not HTTP.
async fn garbage() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"\x16\x03\x01 active active active\r\n\r\n").await;
        }
    });
    address
}

/// An address at which no server listens.
async fn away() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

type Builder = ReceiverBuilder<Store>;

type Settings = fn(Builder) -> Builder;

/// A receiver of the webhooks `shop/token`, and `shop/all`, which has a guard of each kind.
async fn receiver(server: SocketAddr, seen: &Seen, settings: impl FnOnce(Builder) -> Builder) -> Receiver {
    let registry = seen.registry().scheme::<HeaderKey>().scheme::<Checksum>().scheme::<Introspection>();
    let token = format!(r#"{{"module": "capture", "introspection": "{server}"}}"#);
    let all = format!(r#"{{"module": "capture", "introspection": "{server}", "header_key": "k", "checksum": 7}}"#);
    let open = r#"{"module": "capture"}"#;
    let webhooks = [("shop", "token", token.as_str()), ("shop", "all", &all), ("shop", "open", open)];
    settings(Receiver::of_store(store_of(registry, &webhooks).await)).build()
}

/// Sets limits that no test reaches: a call that hangs waits for ever.
fn patient(builder: Builder) -> Builder {
    builder.call_deadline(Duration::from_secs(3600))
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("http://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from("{}")).unwrap()
}

/// The answers in an axum application and under hyper.
async fn everywhere(receiver: &Receiver, path: &str, headers: &[(&str, &str)]) -> [Answer; 2] {
    let app = axum::Router::new().nest_service("/hooks", receiver.clone());
    let in_axum = ask(&app, request(&format!("/hooks{path}"), headers).map(axum::body::Body::new)).await;
    let address = serve(receiver.clone()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = request(path, headers);
    request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
    [in_axum, Answer::of(within("an answer", sender.send_request(request)).await.unwrap()).await]
}

async fn assert_refused(receiver: &Receiver, path: &str, headers: &[(&str, &str)], status: u16, detail: &str) {
    for answer in everywhere(receiver, path, headers).await {
        assert_eq!(answer.problem(status), detail, "{headers:?}");
        match status {
            401 => assert_eq!(answer.header("www-authenticate"), "Token", "{headers:?}"),
            503 => assert_eq!(answer.header("retry-after"), "5", "{headers:?}"),
            _ => {}
        }
    }
}

const UNVERIFIED: &str = "The credential cannot be verified now";

#[tokio::test]
async fn the_other_server_decides() {
    let (server, seen) = (Server::start().await, Seen::default());
    let receiver = receiver(server.address, &seen, patient).await;
    for answer in everywhere(&receiver, "/shop/token", &[("x-token", "right")]).await {
        answer.assert_accepted();
    }
    assert_eq!(seen.take().len(), 2);
    let refused = [
        ("wrong", 401, "Unauthorized"),
        ("suspended", 403, "Forbidden"),
        // An answer that cannot be understood is no confirmation.
        ("riddle", 503, UNVERIFIED),
        ("failing", 503, UNVERIFIED),
    ];
    for (token, status, detail) in refused {
        assert_refused(&receiver, "/shop/token", &[("x-token", token)], status, detail).await;
    }
    assert_eq!(server.asked(), 10);
    // The head alone is enough to refuse: no call is made.
    assert_refused(&receiver, "/shop/token", &[], 401, "Unauthorized").await;
    for answer in everywhere(&receiver, "/shop/open", &[("x-token", "right")]).await {
        answer.assert_accepted();
    }
    assert_eq!((server.asked(), seen.take().len()), (10, 2));
}

#[tokio::test]
async fn a_server_that_is_away_slow_or_confused_lets_nobody_in() {
    let seen = Seen::default();
    let slow = Server::start().await;
    let hasty: Settings = |builder| builder.call_deadline(Duration::from_millis(200));
    let patient: Settings = patient;
    for (server, token, settings) in
        [(away().await, "right", patient), (garbage().await, "right", patient), (slow.address, "never", hasty)]
    {
        let receiver = receiver(server, &seen, settings).await;
        assert_refused(&receiver, "/shop/token", &[("x-token", token)], 503, UNVERIFIED).await;
    }
    assert_eq!(seen.count(), 0);
    eventually("the late calls are dropped", async || slow.waiting() == 0).await;
}

#[tokio::test]
async fn a_call_that_wants_the_body_too_gets_it() {
    let (server, seen) = (Server::start().await, Seen::default());
    let receiver = receiver(server.address, &seen, patient).await;
    let (right, wrong) = (Checksum::sign(7, b"{}"), Checksum::sign(8, b"{}"));
    for answer in everywhere(&receiver, "/shop/token", &[("x-token", "signed"), ("x-checksum", &right)]).await {
        answer.assert_accepted();
    }
    assert_eq!(seen.take().len(), 2);
    let headers = [("x-token", "signed"), ("x-checksum", wrong.as_str())];
    assert_refused(&receiver, "/shop/token", &headers, 401, "Unauthorized").await;
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn guards_by_the_head_a_call_and_the_body_must_all_agree() {
    let (server, seen) = (Server::start().await, Seen::default());
    let receiver = receiver(server.address, &seen, patient).await;
    let (right, wrong) = (Checksum::sign(7, b"{}"), Checksum::sign(8, b"{}"));
    for key in ["k", "x"] {
        for token in ["right", "signed", "wrong"] {
            for checksum in [&right, &wrong] {
                let asked = server.asked();
                let headers = [("x-key", key), ("x-token", token), ("x-checksum", checksum)];
                let answers = everywhere(&receiver, "/shop/all", &headers).await;
                let is_right = key == "k" && token != "wrong" && *checksum == right;
                for answer in answers {
                    assert_eq!(answer.status, if is_right { 200 } else { 401 }, "{headers:?}");
                }
                assert_eq!(seen.take().len(), if is_right { 2 } else { 0 }, "{headers:?}");
                // No call is made for a sender whose other credential is wrong.
                assert_eq!(server.asked() - asked, if key == "k" { 2 } else { 0 }, "{headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_body_of_a_stranger_is_not_read() {
    let (server, seen) = (Server::start().await, Seen::default());
    let receiver = receiver(server.address, &seen, patient).await;
    for (token, status) in [("wrong", 401), ("suspended", 403), ("failing", 503)] {
        let request = Request::post("/shop/token").header("x-token", token).body(Unread { announced: None }).unwrap();
        assert_eq!(ask(&receiver, request).await.status, status);
    }
    assert_eq!(seen.count(), 0);
}

/// Sends a request over its own socket, and returns the socket.
async fn begin(address: SocketAddr, path: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Token: {token}\r\nContent-Length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_sender_that_hangs_up_ends_its_call_and_leaves_its_place() {
    let (server, seen) = (Server::start().await, Seen::default());
    let receiver = receiver(server.address, &seen, |builder| patient(builder).max_calls(1)).await;
    let address = serve(receiver.clone()).await;
    let axum = axum::Router::new().nest_service("/hooks", receiver.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let in_axum = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum).await });

    for (address, path) in [(address, "/shop/token"), (in_axum, "/hooks/shop/token")] {
        let hanging = begin(address, path, "never").await;
        eventually("the call", async || server.waiting() == 1).await;
        // The webhook has one permit. Other webhooks have their own.
        assert_refused(&receiver, "/shop/token", &[("x-token", "right")], 503, UNVERIFIED).await;
        let headers = [("x-key", "k"), ("x-token", "right"), ("x-checksum", &Checksum::sign(7, b"{}"))];
        for answer in everywhere(&receiver, "/shop/all", &headers).await {
            answer.assert_accepted();
        }
        drop(hanging);
        eventually("the call ends", async || server.waiting() == 0).await;
        eventually("its place is free", async || {
            ask(&receiver, request("/shop/token", &[("x-token", "right")])).await.status == 200
        })
        .await;
        assert!(seen.take().iter().all(|delivery| delivery.headers()["x-token"] == "right"));
    }
}
