//! The operator's own listener.

use std::net::SocketAddr;

use crate::support::frames::{END_STREAM, Frames};
use crate::support::process::{AUTHORIZATION, Gateway, command, free_address};
use crate::support::raw::{Raw, request, text};
use crate::support::{Answer, eventually, within};

const OPEN: &str = "POST /webhook/open HTTP/1.1";

struct Both {
    gateway: Gateway,
    admin: SocketAddr,
}

impl Both {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let admin = free_address();
        let port = admin.port().to_string();
        let variables: Vec<_> = [("ADMIN_PORT", port.as_str())].into_iter().chain(variables.iter().copied()).collect();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("webhooks.json"), crate::support::process::webhooks().to_string())
            .unwrap();
        let both = Self { gateway: Gateway::start_in(directory, &variables).await, admin };
        eventually("the gateway to be ready", async || both.get("/ready").await.status == 200).await;
        both
    }

    /// Sends a request to the operator's listener.
    async fn get(&self, path: &str) -> Answer {
        request(self.admin, &[&format!("GET {path} HTTP/1.1")], "").await
    }

    async fn healthcheck(&self, variables: &[(&str, &str)]) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command(directory.path());
        command.arg("healthcheck").env("ADMIN_PORT", self.admin.port().to_string()).envs(variables.iter().copied());
        within("the health check", command.spawn().unwrap().wait()).await.unwrap().success()
    }
}

#[tokio::test]
async fn each_route_is_answered_by_one_listener_only() {
    let both = Both::start(&[("ADMIN_TOKEN", "adm1n-token")]).await;
    for path in ["/health", "/ready", "/metrics", "/"] {
        assert_eq!(both.get(path).await.status, 200, "{path}");
    }
    both.get("/admin/config-status").await.problem(401);
    let head = ["GET /admin/config-status HTTP/1.1", "Authorization: Bearer adm1n-token"];
    assert_eq!(request(both.admin, &head, "").await.status, 200);
    for path in ["/health", "/ready", "/ready?min_revision=1", "/metrics", "/admin", "/admin/config-status", "/admin/x"]
    {
        assert_eq!(both.gateway.get(path).await.problem(404), "Not Found", "{path}");
    }
    assert_eq!(both.gateway.request(&head, "").await.status, 404);

    both.gateway.assert_serves().await;
    for head in [&[OPEN][..], &["POST /webhook/guarded HTTP/1.1", AUTHORIZATION], &["POST /webhook/nothing HTTP/1.1"]] {
        assert_eq!(request(both.admin, head, "{}").await.problem(404), "Not Found");
    }
    // The same rules of HTTP apply.
    let mut raw = Raw::connect(both.admin).await;
    raw.send("GET /health HTTP/1.1\r\n\r\n").await;
    raw.answer().await.unwrap().problem(400);
    let mut frames = Frames::connect(both.admin).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "a")];
    frames.request(1, &fields, END_STREAM).await;
    assert_eq!(frames.next().await.unwrap().status(), Some(200));
}

#[tokio::test]
async fn a_probe_is_answered_while_senders_take_all_connections() {
    let both = Both::start(&[("MAX_CONNECTIONS", "5")]).await;
    let mut kept = Vec::new();
    for _ in 0..50 {
        let mut raw = both.gateway.connect().await;
        raw.send("POST /webhook/open HTTP/1.1\r\n").await;
        kept.push(raw);
    }
    for _ in 0..20 {
        assert_eq!(both.get("/health").await.status, 200);
        assert_eq!(both.get("/ready").await.status, 200);
    }
    assert!(both.healthcheck(&[]).await);
}

#[tokio::test]
async fn refused_connections_are_counted_and_logged_once() {
    let both = Both::start(&[("MAX_CONNECTIONS", "2")]).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut raw = both.gateway.connect().await;
        raw.send(text(&[OPEN], "{}")).await;
        raw.answer().await.unwrap().assert_accepted();
        kept.push(raw);
    }
    for _ in 0..30 {
        assert!(both.gateway.connect().await.is_closed_by_peer().await);
    }
    let metrics = both.get("/metrics").await;
    let counted = |line: &str| metrics.text().lines().any(|other| other == line);
    assert!(counted(r#"tower_webhook_connections_refused_total{listener="webhooks"} 30"#), "{}", metrics.text());
    assert!(counted(r#"tower_webhook_connections_refused_total{listener="admin"} 0"#), "{}", metrics.text());
    let lines = || both.gateway.err().lines().filter(|line| line.contains("connections are refused")).count();
    assert_eq!(lines(), 1, "{}", both.gateway.err());
    // The next line has the number of all refused connections.
    let told = async || {
        let _ = both.gateway.connect().await.is_closed_by_peer().await;
        both.gateway.err().lines().any(|line| line.contains("connections are refused") && !line.contains("refused=1 "))
    };
    eventually("another line", told).await;
    assert!(both.gateway.err().contains("WARN"), "{}", both.gateway.err());
}

/// The listener has a limit of its own, and no TLS.
#[tokio::test]
async fn the_operators_listener_speaks_plain_http_and_is_bounded() {
    let (cert, key) = (super::protocols::fixture("localhost.pem"), super::protocols::fixture("localhost.key"));
    let tls = [("TLS_CERT", cert.as_str()), ("TLS_KEY", key.as_str())];
    let both = Both::start(&tls).await;
    assert_eq!(both.get("/health").await.status, 200);
    assert!(both.healthcheck(&tls).await);
    let mut kept = Vec::new();
    for _ in 0..300 {
        kept.push(Raw::connect(both.admin).await);
    }
    assert!(kept[0].is_closed_by_peer().await, "its connections are not bounded");
    let address = both.gateway.address;
    let greeting = tokio::task::spawn_blocking(move || {
        let mut stream = super::protocols::tls(address, &[b"http/1.1"]);
        stream.conn.complete_io(&mut stream.sock).map(drop)
    });
    within("a handshake", greeting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_probe_is_answered_while_the_gateway_stops() {
    let mut both = Both::start(&[]).await;
    let mut running = both.gateway.connect().await;
    running.send("POST /webhook/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{").await;
    both.gateway.assert_serves().await;
    let mut kept = Raw::connect(both.admin).await;
    kept.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(kept.answer().await.unwrap().status, 200);
    both.gateway.signal("TERM").await;
    eventually("the stop to begin", async || both.gateway.err().contains("stopping")).await;
    assert_eq!(both.get("/health").await.status, 200);
    assert_eq!(both.get("/ready").await.problem(503), "shutting down");
    running.send("}").await;
    running.answer().await.unwrap().assert_accepted();
    // The listener does not delay the stop, whatever connections it has.
    assert_eq!(both.gateway.ended().await.code(), Some(0));
    assert!(kept.is_closed_by_peer().await);
}

#[tokio::test]
async fn asked_again_it_stops_at_once_though_the_operators_listener_has_connections() {
    let mut both = Both::start(&[("SHUTDOWN_GRACE_SECONDS", "3600"), ("HEADER_TIMEOUT_SECONDS", "3600")]).await;
    let mut half = Raw::connect(both.admin).await;
    half.send("GET /health HTTP/1.1\r\n").await;
    assert_eq!(both.get("/health").await.status, 200);
    both.gateway.signal("TERM").await;
    eventually("the stop to begin", async || both.gateway.err().contains("stopping")).await;
    // The other listener has nothing to finish.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!both.gateway.has_ended(), "a head is on its way");
    both.gateway.signal("TERM").await;
    assert_eq!(both.gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_variable_of_the_operators_listener_that_is_wrong_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for variables in [
        &[("ADMIN_PORT", "x")][..],
        &[("ADMIN_PORT", "70000")],
        &[("ADMIN_PORT", &port)],
        &[("ADMIN_HOST", "127.0.0.1")],
        &[("ADMIN_HOST", "http://localhost"), ("ADMIN_PORT", "0")],
    ] {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, std::ffi::OsStr::new(value))).collect();
        let (status, stderr) = crate::support::process::refused_start(&variables).await;
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with("gateway: ADMIN_") || stderr.contains("\ngateway: ADMIN_"), "{stderr}");
    }
}

/// Kubernetes sets this variable in every pod if there is a Service `admin`.
#[tokio::test]
async fn a_service_link_opens_no_listener() {
    let gateway = Gateway::start(&[("ADMIN_PORT", "tcp://10.96.0.10:80")]).await;
    assert_eq!(gateway.get("/health").await.status, 200);
}
