//! HTTP/1.1 with keep-alive and pipelining, HTTP/2 by prior knowledge, and TLS.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::{Raw, text};
use crate::support::{Answer, post, within};

const OPEN: &str = "POST /webhook/open HTTP/1.1";

#[tokio::test]
async fn one_connection_serves_one_request_after_another() {
    let gateway = Gateway::start(&[]).await;
    let mut raw = gateway.connect().await;
    for body in ["{}", "{", "[1]"] {
        raw.send(text(&[OPEN], body)).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status == 200, body != "{", "{answer:?}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::start(&[]).await;
    let mut raw = gateway.connect().await;
    let guarded = ["POST /webhook/guarded HTTP/1.1", AUTHORIZATION];
    let all = [
        text(&[OPEN], "{}"),
        text(&guarded, "{}"),
        text(&["POST /webhook/nothing HTTP/1.1"], "{}"),
        text(&["GET / HTTP/1.1"], ""),
        text(&[OPEN], "{"),
        text(&[OPEN], "{}"),
    ];
    raw.send(all.concat()).await;
    for status in [200, 200, 404, 200, 400, 200] {
        assert_eq!(raw.answer().await.unwrap().status, status);
    }
}

/// The body of a request that was refused unread must not be read as the next request.
#[tokio::test]
async fn the_body_of_a_refused_request_is_not_the_next_request() {
    let gateway = Gateway::start(&[]).await;
    let smuggled = String::from_utf8(text(&["POST /webhook/guarded HTTP/1.1", AUTHORIZATION], "{}")).unwrap();
    let mut raw = gateway.connect().await;
    raw.send(text(&["POST /webhook/guarded HTTP/1.1"], &smuggled)).await;
    assert_eq!(raw.answer().await.unwrap().status, 401);
    raw.send(text(&["GET / HTTP/1.1"], "")).await;
    // Either the next request is answered or the connection ends; nothing in the body is answered.
    if let Some(answer) = raw.answer().await {
        assert!(!answer.headers.contains_key("x-event-id"), "{answer:?}");
    }
}

#[tokio::test]
async fn http2_by_prior_knowledge_serves_many_at_once() {
    let gateway = Gateway::start(&[]).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) =
        within("a handshake", hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)))
            .await
            .unwrap();
    tokio::spawn(connection);
    // From the first answer the client knows the limit of concurrent streams.
    within("an answer", sender.clone().send_request(post("http://localhost/webhook/guarded", "{}"))).await.unwrap();
    let answers = (0..150).map(|n| {
        let mut sender = sender.clone();
        async move {
            let (path, status) = match n % 3 {
                0 => ("http://localhost/webhook/guarded", 200),
                1 => ("http://localhost/webhook/nothing", 404),
                _ => ("http://localhost/webhook/a%2Fb", 400),
            };
            let answer = Answer::of(sender.send_request(post(path, "{}")).await.unwrap()).await;
            assert_eq!(answer.status, status);
        }
    });
    within("all answers", futures_util::future::join_all(answers)).await;
    let mut sender = sender;
    let stranger = Request::post("http://localhost/webhook/guarded").body(Full::<Bytes>::from("{}")).unwrap();
    let answer = Answer::of(within("an answer", sender.send_request(stranger)).await.unwrap()).await;
    assert_eq!(answer.problem(401), "Unauthorized");
}

pub(super) fn fixture(name: &str) -> String {
    format!("{}/tests/it/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A TLS client that trusts the certificate of the test and offers these protocols.
fn client(protocols: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("localhost.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// A connection over TLS.
pub(super) fn tls(
    address: SocketAddr,
    protocols: &[&[u8]],
) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(client(protocols), name).unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    rustls::StreamOwned::new(connection, stream)
}

#[tokio::test]
async fn with_certificates_it_speaks_tls() {
    let (cert, key) = (fixture("localhost.pem"), fixture("localhost.key"));
    let gateway = Gateway::start_in(
        {
            let directory = tempfile::tempdir().unwrap();
            let webhooks = crate::support::process::webhooks().to_string();
            std::fs::write(directory.path().join("webhooks.json"), webhooks).unwrap();
            directory
        },
        &[("TLS_CERT", &cert), ("TLS_KEY", &key), ("HEADER_TIMEOUT_SECONDS", "1")],
    )
    .await;
    let address = gateway.address;

    // A client that does not speak TLS is disconnected.
    let mut plain = Raw::connect(address).await;
    plain.send(text(&[OPEN], "{}")).await;
    // It may get an alert first.
    plain.drain().await;
    // So is a client that sends nothing.
    let mut silent = Raw::connect(address).await;
    assert!(silent.is_closed_by_peer().await);

    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = tls(address, &[b"http/1.1"]);
        stream.write_all(&text(&[OPEN, "Connection: close"], "{}")).unwrap();
        let mut answer = String::new();
        // The peer may close the connection without a TLS alert.
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(r#"{"message":"200 OK"}"#), "{answer}");

        let mut stream = tls(address, &[b"h2", b"http/1.1"]);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    });
    within("the exchange over TLS", exchange).await.unwrap();
}
