//! The gateway as a process, whose configuration is in a real etcd.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::rig::NAMESPACE;
use super::server::{Directory, Ready, Server, free_port};
use super::{PATIENCE, eventually, tool, within};

/// The beginning of every key.
const PREFIX: &str = "/cwm/";

const TOKEN: &str = "operator";

pub(crate) struct Gateway {
    // Dropped in this order.
    pub(crate) server: Server,
    _etcd: Server,
    endpoint: String,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _directories: [Directory; 2],
}

impl Gateway {
    /// Starts an empty etcd and a gateway that follows it. Its modules may connect to this machine.
    pub(crate) async fn start() -> Self {
        let (etcd, endpoint, data) = etcd().await;
        let (directory, port, variable) = (Directory::new("gateway"), free_port(), endpoint.clone());
        let place = directory.path().to_owned();
        let command = move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
            command.current_dir(&place).env_clear().envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("CONFIG_BACKEND", "etcd"),
                ("ETCD_ENDPOINTS", &variable),
                ("ETCD_PREFIX", PREFIX),
                ("HOST", "127.0.0.1"),
                ("PORT", &port.to_string()),
                ("SPOOL_DIR", "spool"),
                ("ADMIN_TOKEN", TOKEN),
                ("EGRESS_ALLOW", "127.0.0.1"),
                // The many failed attempts of a server that is down would hide the rest.
                ("RUST_LOG", "warn,gateway=info"),
            ]);
            command
        };
        let server = Server::start(&directory, Ready::Port(port), command).await;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let gateway = Self { server, _etcd: etcd, endpoint, address, client, _directories: [directory, data] };
        eventually("the gateway to be ready", async || gateway.ask("/ready").await.0 == StatusCode::OK).await;
        gateway
    }

    /// Writes the value of a connection to etcd, and waits until the gateway serves it. A refused one is a panic.
    pub(crate) async fn connection(&self, name: &str, value: &Value) {
        self.put(&format!("global/connections/{name}"), value).await;
    }

    /// Writes the value of a webhook to etcd, and waits until the gateway serves it. A refused one is a panic.
    pub(crate) async fn webhook(&self, id: &str, value: &Value) {
        self.put(&format!("{NAMESPACE}/webhooks/{id}"), value).await;
    }

    async fn put(&self, key: &str, value: &Value) {
        let mut etcd = etcd_client::Client::connect([&self.endpoint], None).await.unwrap();
        let answer = within("etcd", etcd.put(format!("{PREFIX}{key}"), value.to_string(), None)).await.unwrap();
        let revision = answer.header().unwrap().revision();
        let ready = format!("/ready?min_revision={revision}");
        eventually("the value to be served", async || self.ask(&ready).await.0 == StatusCode::OK).await;
        let refused = self.status("/admin/config-status").await["refused_keys"].take();
        assert_eq!(refused, json!([]), "{key}");
    }

    /// Posts an event to a webhook. Returns the status and the event's id.
    pub(crate) async fn post(&self, id: &str, body: impl Into<Bytes>) -> (u16, String) {
        let uri = format!("http://{}/webhook/{NAMESPACE}/{id}", self.address);
        let request = Request::post(uri).header("content-type", "application/json");
        let (status, headers, _) = self.send(request.body(Full::new(body.into())).unwrap()).await;
        let id = headers.get("x-event-id").map(|id| id.to_str().unwrap().to_owned());
        (status.as_u16(), id.unwrap_or_default())
    }

    /// The gateway's open connections to a port of this machine: the ports of their own ends.
    pub(crate) fn connections_to(&self, port: u16) -> BTreeSet<u16> {
        let process = format!("/proc/{}", self.server.id());
        let files = std::fs::read_dir(format!("{process}/fd")).unwrap();
        let names = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        let sockets: BTreeSet<_> = names.map(|name| name.display().to_string()).collect();
        let table = std::fs::read_to_string(format!("{process}/net/tcp")).unwrap();
        let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
        let mut found = BTreeSet::new();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, own, other, state, _, _, _, _, _, inode, ..] = fields[..] else { panic!("{line}") };
            let is_open = state == "01" && sockets.contains(&format!("socket:[{inode}]"));
            if is_open && port_of(other) == port {
                found.insert(port_of(own));
            }
        }
        found
    }

    /// How many accepted events wait or are being delivered.
    pub(crate) async fn waiting(&self) -> usize {
        self.status("/admin/system").await["queue"]["waiting"].as_u64().unwrap() as usize
    }

    /// The dead letters, as text.
    pub(crate) async fn dead_letters(&self) -> Vec<String> {
        let mut status = self.status("/admin/dead-letters?limit=10").await;
        let Value::Array(letters) = status["dead_letters"].take() else { panic!("{status}") };
        letters.iter().map(Value::to_string).collect()
    }

    /// Waits until no accepted event waits any more: for as long as their number goes down.
    pub(crate) async fn drained(&self) {
        let (mut fewest, mut since) = (usize::MAX, Instant::now());
        while fewest > 0 {
            let waiting = self.waiting().await;
            if waiting < fewest {
                (fewest, since) = (waiting, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{waiting} events wait, and none was delivered for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn status(&self, path: &str) -> Value {
        let (status, body) = self.ask(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn ask(&self, path: &str) -> (StatusCode, Bytes) {
        let request = Request::get(format!("http://{}{path}", self.address));
        let request = request.header("authorization", format!("Bearer {TOKEN}")).body(Full::default()).unwrap();
        let (status, _, body) = self.send(request).await;
        (status, body)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
        let path = request.uri().path().to_owned();
        within("an answer of the gateway", async {
            let response = self.client.request(request).await;
            let (head, body) = response.unwrap_or_else(|error| panic!("{path}: {error:?}")).into_parts();
            (head.status, head.headers, body.collect().await.unwrap().to_bytes())
        })
        .await
    }
}

/// An etcd 3.5, its endpoint and its data.
async fn etcd() -> (Server, String, Directory) {
    let (directory, client, peer) = (Directory::new("etcd"), free_port(), free_port());
    let data = directory.path().join("data");
    let endpoint = format!("http://127.0.0.1:{client}");
    let (clients, peers) = (endpoint.clone(), format!("http://127.0.0.1:{peer}"));
    let command = move || {
        let mut command = Command::new(tool("bin/etcd"));
        command
            .arg("--data-dir")
            .arg(&data)
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")]);
        command
    };
    let server = Server::start(&directory, Ready::Output("ready to serve client requests".to_owned()), command).await;
    (server, endpoint, directory)
}
