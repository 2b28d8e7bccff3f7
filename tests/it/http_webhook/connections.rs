//! The network connections that the module makes.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::routing::post;
use http::{HeaderMap, HeaderName, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_webhook::event::DeliverErrorKind;
use tower_webhook::module::Egress;

use super::target::{Connection, OK, Target};
use super::{Hook, event, loopback};

/// Long enough for the rest of an answer to be read.
const BREATH: Duration = Duration::from_millis(50);

#[tokio::test]
async fn one_connection_takes_one_event_after_another() {
    let target = Target::answering(OK).await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    for _ in 0..10 {
        hook.deliver(event("{}")).await;
        tokio::time::sleep(BREATH).await;
    }
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn webhooks_share_connections_also_after_an_error() {
    let target = Target::answering("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno").await;
    let egress = loopback();
    for _ in 0..3 {
        let mut hook = Hook::by(egress.clone(), json!({"url": target.url()})).await;
        hook.fail(DeliverErrorKind::Unavailable).await;
        tokio::time::sleep(BREATH).await;
    }
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_event() {
    let target = Target::serving(async |mut connection: Connection| {
        connection.request().await;
        connection.send(OK).await;
    })
    .await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    for _ in 0..5 {
        hook.deliver(event("{}")).await;
        tokio::time::sleep(BREATH).await;
    }
    assert_eq!(target.connections(), 5);
}

#[tokio::test]
async fn a_slow_target_holds_up_no_other() {
    let slow = Target::serving(async |mut connection: Connection| {
        connection.request().await;
        connection.hung_up().await;
    })
    .await;
    let target = Target::answering(OK).await;
    let egress = loopback();
    let hook = Hook::by(egress.clone(), json!({"url": slow.url(), "timeout": 60})).await;
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let service = hook.service.clone();
            tokio::spawn(async move { tower::ServiceExt::oneshot(service, event("{}")).await })
        })
        .collect();
    crate::support::eventually("all of them to wait", || async { slow.connections() == 200 }).await;
    Hook::by(egress, json!({"url": target.url()})).await.deliver(event("{}")).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A TLS server.
pub(super) struct Tls {
    address: SocketAddr,
    authority: String,
    seen: Seen,
}

type Seen = Arc<Mutex<Vec<(SocketAddr, Version)>>>;

impl Tls {
    /// A server whose certificate is for `localhost` and signed by its own authority.
    pub(super) async fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        Self::with(&own, &key, authority.pem()).await
    }

    /// A server with this certificate, which `authority` has signed.
    pub(super) async fn with(certificate: &Certificate, key: &KeyPair, authority: String) -> Self {
        let seen = Seen::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = acceptor(certificate, key, &["h2", "http/1.1"]);
        tokio::spawn(serve(listener, tls, Arc::clone(&seen)));
        Self { address, authority, seen }
    }

    pub(super) fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    pub(super) fn trusted(&self) -> Egress {
        loopback().trust(self.authority()).unwrap()
    }

    pub(super) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/s3cret", self.address.port())
    }

    /// Asserts that the server received nothing.
    pub(super) fn assert_untouched(&self) {
        assert!(self.seen.lock().unwrap().is_empty());
    }
}

/// The server's side of TLS, which negotiates one of `protocols`.
pub(super) fn acceptor(certificate: &Certificate, key: &KeyPair, protocols: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let key = provider.key_provider.load_private_key(key).unwrap();
    // Does not check that the key belongs to the certificate.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, seen: Seen) {
    while let Ok((stream, peer)) = listener.accept().await {
        let tls = tls.clone();
        let service = TowerToHyperService::new(post(take).with_state((peer, Arc::clone(&seen))));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers with as many fields as the query demands.
async fn take(State((peer, seen)): State<(SocketAddr, Seen)>, request: Request) -> HeaderMap {
    seen.lock().unwrap().push((peer, request.version()));
    let fields = request.uri().query().and_then(|query| query.strip_prefix("fields="));
    let fields = fields.map_or(0, |count| count.parse().unwrap());
    (0..fields).map(|at| (HeaderName::try_from(format!("x-field-{at}")).unwrap(), at.into())).collect()
}

#[tokio::test]
async fn over_tls_one_http_2_connection_takes_many_events_at_a_time() {
    let target = Tls::new().await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url("localhost")})).await;
    hook.deliver(event("{}")).await;
    let service = hook.service.clone();
    let sending = (0..50).map(|_| tower::ServiceExt::oneshot(service.clone(), event("{}")));
    for answer in futures_util::future::join_all(sending).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let seen = target.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 51);
    assert!(seen.iter().all(|(_, version)| *version == Version::HTTP_2));
    assert_eq!(seen.iter().map(|(peer, _)| peer).collect::<HashSet<_>>().len(), 1);
}

#[tokio::test]
async fn a_server_with_an_untrusted_certificate_gets_nothing() {
    let target = Tls::new().await;
    let another = Tls::new().await;
    for egress in [loopback(), another.trusted()] {
        let mut hook = Hook::by(egress, json!({"url": target.url("localhost")})).await;
        let error = hook.fail(DeliverErrorKind::Connect).await;
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    target.assert_untouched();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let target = Tls::new().await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url("127.0.0.1")})).await;
    let error = hook.fail(DeliverErrorKind::Connect).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    target.assert_untouched();
}

#[tokio::test]
async fn plain_http_and_tls_are_not_taken_for_each_other() {
    let tls = Tls::new().await;
    let url = tls.url("localhost").replacen("https:", "http:", 1);
    let mut hook = Hook::by(tls.trusted(), json!({"url": url})).await;
    let (_, outcome) = hook.send(event("{}")).await;
    outcome.unwrap_err();
    tls.assert_untouched();

    let plain = Target::serving(async |mut connection: Connection| {
        connection.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let url = plain.url().replacen("http:", "https:", 1);
    Hook::new(json!({"url": url})).await.fail(DeliverErrorKind::Connect).await;
}

#[test]
fn invalid_authorities_are_refused() {
    for pem in
        ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"]
    {
        assert!(Egress::default().trust(pem.as_bytes()).is_err(), "{pem}");
    }
}
