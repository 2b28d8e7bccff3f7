//! The operator's page, `src/docs/operating.md`, and the files in `docker/` that it names, work with the gateway.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use http::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::manual;
use crate::support::nginx::Nginx;
use crate::support::process::{AUTHORIZATION, Gateway, free_address};
use crate::support::{CREDENTIAL, eventually, raw, within};

const PAGE: &str = include_str!("../../../src/docs/operating.md");
const NGINX: &str = include_str!("../../../docker/nginx/gateway.conf");
const CADDY: &str = include_str!("../../../docker/caddy/Caddyfile");
const UNIT: &str = include_str!("../../../docker/systemd/tower-webhook.service");
const MANIFEST: &str = include_str!("../../../docker/kubernetes/gateway.yaml");

/// Names in capitals that are no variables of the gateway.
const OTHERS: [&str; 7] =
    ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX", "CAP_NET_BIND_SERVICE", "ORDERS_TOKEN", "RENEWED_LINEAGE"];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && !"_./-".contains(char))
}

#[test]
fn the_operators_files_name_variables_of_the_gateway() {
    let known: BTreeSet<_> = manual::variables().into_iter().collect();
    let mut named = BTreeSet::new();
    for text in [PAGE, NGINX, CADDY, UNIT, MANIFEST] {
        let is_capital =
            |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(&byte));
        let names = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        named.extend(
            names.filter(|word| word.trim_matches('_').contains('_') && is_capital(word) && !word.ends_with('_')),
        );
    }
    assert!(named.len() > 20, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(**name) && !OTHERS.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_manuals_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["docker/", "examples/", "benches/", "src/docs/"];
    for page in [PAGE, manual::MANUAL] {
        let named: Vec<_> = words(page)
            .map(|word| word.trim_start_matches("../").trim_end_matches('.'))
            .filter(|word| folders.iter().any(|folder| word.starts_with(folder)))
            .collect();
        assert!(named.len() > 3, "{named:?}");
        for name in named {
            assert!(root.join(name).exists(), "{name}");
        }
    }
}

#[test]
fn the_probes_of_kubernetes_ask_routes_of_the_operators_listener() {
    let probes: Vec<_> = MANIFEST.lines().filter_map(|line| line.trim().strip_prefix("httpGet: ")).collect();
    assert_eq!(probes, ["{path: /health, port: admin}", "{path: /health, port: admin}", "{path: /ready, port: admin}"]);
    assert!(
        MANIFEST.contains("{name: admin, containerPort: 8001}")
            && MANIFEST.contains("{name: ADMIN_PORT, value: \"8001\"}")
    );
}

/// nginx with the repository's configuration, in front of a gateway with the variables that the file asks for.
struct Behind {
    gateway: Gateway,
    port: u16,
    client: TlsConnector,
    _nginx: Nginx,
}

impl Behind {
    async fn start() -> Self {
        let admin = free_address().port().to_string();
        let mut variables = vec![("LOG_FORMAT", "json"), ("ADMIN_PORT", &admin)];
        let asked = NGINX.lines().filter_map(|line| line.strip_prefix("#   ")).flat_map(str::split_whitespace);
        let asked = asked.map(|word| word.split_once('=').unwrap());
        variables.extend(asked.filter(|(name, _)| !["HOST", "ADMIN_PORT"].contains(name)));
        assert_eq!(variables.len(), 5, "{variables:?}");
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("webhooks.json"), crate::support::process::webhooks().to_string()).unwrap();
        let gateway = Gateway::start_in(directory, &variables).await;
        let admin = SocketAddr::new(gateway.address.ip(), admin.parse().unwrap());
        eventually("the gateway to be ready", async || {
            raw::request(admin, &["GET /ready HTTP/1.1"], "").await.status == 200
        })
        .await;

        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let pair = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["hooks.example.com".to_owned()]).unwrap().self_signed(&pair).unwrap();
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        let port = free_address().port();
        let mut config = NGINX.to_owned();
        for (written, here) in [
            ("listen 443 ", format!("listen 127.0.0.1:{port} ")),
            ("127.0.0.1:8000", gateway.address.to_string()),
            ("/etc/letsencrypt/live/hooks.example.com/fullchain.pem", cert.display().to_string()),
            ("/etc/letsencrypt/live/hooks.example.com/privkey.pem", key.display().to_string()),
        ] {
            assert_eq!(config.matches(written).count(), 1, "{written}");
            config = config.replace(written, &here);
        }
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let nginx = Nginx::start(directory, &config, port).await;
        Self { gateway, port, client: TlsConnector::from(Arc::new(client)), _nginx: nginx }
    }

    /// Sends a request from the address 127.0.0.2, and returns the answer's status.
    async fn status(&self, request: Vec<u8>) -> u16 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], self.port).into()).await.unwrap();
        let name = ServerName::try_from("hooks.example.com").unwrap();
        let mut stream = self.client.connect(name, stream).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut head = [0; 12];
        within("an answer", stream.read_exact(&mut head)).await.unwrap();
        std::str::from_utf8(&head).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn behind_nginx_events_arrive_and_the_operators_routes_do_not_show() {
    let behind = Behind::start().await;
    // Larger than nginx lets through by default.
    let body = json!("a".repeat(2 << 20)).to_string();
    let request = raw::text(&["POST /webhook/guarded HTTP/1.1", AUTHORIZATION], &body);
    assert_eq!(behind.status(request).await, 200);
    for path in ["/", "/health", "/ready", "/metrics", "/admin/config-status", "/webhook/../health"] {
        let request = raw::text(&[&format!("GET {path} HTTP/1.1")], "");
        assert_eq!(behind.status(request).await, 404, "{path}");
    }
}

#[tokio::test]
async fn behind_nginx_a_stranger_is_refused_before_its_body_and_logged_with_its_own_address() {
    let behind = Behind::start().await;
    let head = "POST /webhook/guarded HTTP/1.1\r\nHost: hooks.example.com\r\nX-Forwarded-For: 203.0.113.7\r\n\
                Content-Length: 1000000\r\n\r\n";
    assert_eq!(behind.status(head.into()).await, 401);
    let client = || {
        let text = behind.gateway.err();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].take());
        lines.into_iter().find(|fields| fields["message"] == "request refused").map(|fields| fields["client"].clone())
    };
    eventually("the refusal to be logged", async || client().is_some()).await;
    assert_eq!(client().unwrap(), "127.0.0.2");
}

/// The value of the webhook that the page puts into etcd.
fn webhook() -> Value {
    let (_, value) = PAGE.split_once("etcdctl put /cwm/default/webhooks/orders '").unwrap();
    let (value, _) = value.split_once('\'').unwrap();
    serde_json::from_str(value).unwrap()
}

/// The commands in the section about dead letters.
fn commands() -> Vec<&'static str> {
    let (_, section) = PAGE.split_once("\n# Replay dead letters\n").unwrap();
    let (section, _) = section.split_once("\n# ").unwrap();
    section.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect()
}

/// The output of a command of the page, as JSON; null if there is none.
async fn run(command: &str, admin: SocketAddr, id: &str) -> Value {
    assert!(command.contains("http://localhost:8001/"), "{command}");
    let command = command.replace("localhost:8001", &admin.to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).env("ADMIN_TOKEN", "adm1n-token").env("ID", id);
    let output = within("the command", shell.output()).await.unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    if printed.is_empty() { Value::Null } else { serde_json::from_str(&printed).unwrap() }
}

#[tokio::test]
async fn the_steps_for_dead_letters_work_as_written() {
    let status = Arc::new(AtomicU16::new(404));
    let answer = Arc::clone(&status);
    let target =
        Router::new().fallback(move || async move { StatusCode::from_u16(answer.load(Ordering::SeqCst)).unwrap() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, target).await });

    let directory = tempfile::tempdir().unwrap();
    let mut orders = webhook();
    orders["module-config"]["url"] = url.into();
    fs::write(directory.path().join("webhooks.json"), json!({"orders": orders}).to_string()).unwrap();
    let admin = free_address();
    let port = admin.port().to_string();
    let gateway = Gateway::start_in(
        directory,
        &[
            ("ORDERS_TOKEN", CREDENTIAL.strip_prefix("Bearer ").unwrap()),
            ("SPOOL_DIR", "spool"),
            ("EGRESS_ALLOW", "127.0.0.0/8"),
            ("ADMIN_PORT", &port),
            ("ADMIN_TOKEN", "adm1n-token"),
        ],
    )
    .await;
    let [list, show, replay, replay_all, delete] = commands()[..] else { panic!("{:?}", commands()) };
    let total = async || run(list, admin, "").await["total"].as_u64().unwrap();
    let send = async || {
        eventually("the event to be accepted", async || {
            gateway.post_with_credential("/webhook/orders", r#"{"a":1}"#).await.status == 202
        })
        .await;
    };

    send().await;
    send().await;
    eventually("two dead letters", async || total().await == 2).await;
    let letters = run(list, admin, "").await;
    let id = letters["dead_letters"][0]["id"].as_str().unwrap();
    assert!(letters["dead_letters"][0]["reason"].as_str().unwrap().contains("404"), "{letters}");
    assert_eq!(run(show, admin, id).await["body"], r#"{"a":1}"#);
    status.store(200, Ordering::SeqCst);
    assert_eq!(run(replay, admin, id).await, json!({"replayed": 1}));
    assert_eq!(run(replay_all, admin, "").await, json!({"matched": 1, "done": 1}));
    eventually("no dead letter", async || total().await == 0).await;

    status.store(404, Ordering::SeqCst);
    send().await;
    eventually("another dead letter", async || total().await == 1).await;
    let letters = run(list, admin, "").await;
    let id = letters["dead_letters"][0]["id"].as_str().unwrap();
    assert_eq!(run(delete, admin, id).await, Value::Null);
    assert_eq!(total().await, 0);
}
