//! A real etcd.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::PATIENCE;

pub const PREFIX: &str = "/cwm/";

#[derive(Clone, Copy, Debug)]
pub enum Version {
    V35,
    V34,
}

impl Version {
    fn binary(self) -> PathBuf {
        let (variable, default) = match self {
            Self::V35 => ("ETCD_35", "target/tools/bin/etcd"),
            Self::V34 => ("ETCD_34", "target/tools/etcd-3.4/etcd"),
        };
        let path = std::env::var_os(variable)
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(default), PathBuf::from);
        assert!(path.exists(), "{variable}: there is no etcd at {}; run `make test`, which brings it", path.display());
        path
    }
}

/// A member that runs alone. Dropping it kills it.
pub struct Etcd {
    version: Version,
    data: TempDir,
    client_port: u16,
    peer_port: u16,
    arguments: Vec<String>,
    scheme: &'static str,
    child: Option<Child>,
}

impl Etcd {
    pub async fn start(version: Version) -> Self {
        let mut etcd = Self::stopped(version);
        etcd.run().await;
        etcd
    }

    /// Has its ports, and nobody listens on them yet.
    pub fn stopped(version: Version) -> Self {
        let (client_port, peer_port) = (free_port(), free_port());
        let data = tempfile::tempdir().unwrap();
        Self { version, data, client_port, peer_port, arguments: Vec::new(), scheme: "http", child: None }
    }

    pub fn with_tls(mut self, arguments: Vec<String>) -> Self {
        self.arguments = arguments;
        self.scheme = "https";
        self
    }

    pub fn port(&self) -> u16 {
        self.client_port
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// Starts it and waits until it takes connections.
    pub async fn run(&mut self) {
        self.spawn();
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.client_port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listening).await.expect("etcd does not listen");
        if self.scheme == "http" {
            let answering = async {
                while self.client().await.get("/", None).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, answering).await.expect("etcd does not answer");
        }
    }

    fn spawn(&mut self) {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new(self.version.binary())
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--name", "one", "--initial-cluster", &format!("one={peer}")])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// All that it knew is gone; it must be stopped.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.data.path().join("data")).unwrap();
    }

    pub async fn client(&self) -> Client {
        Client::connect([self.endpoint()], None).await.unwrap()
    }

    /// Returns the put's revision.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> u64 {
        let response = self.client().await.put(format!("{PREFIX}{key}"), value, None).await.unwrap();
        response.header().unwrap().revision().unsigned_abs()
    }

    pub async fn delete(&self, key: &str) -> u64 {
        let response = self.client().await.delete(format!("{PREFIX}{key}"), None).await.unwrap();
        response.header().unwrap().revision().unsigned_abs()
    }

    /// Puts all at one revision.
    pub async fn put_all(&self, entries: impl IntoIterator<Item = (String, String)>) -> u64 {
        let always = Compare::version("never", CompareOp::Equal, 0);
        let puts: Vec<_> =
            entries.into_iter().map(|(key, value)| TxnOp::put(format!("{PREFIX}{key}"), value, None)).collect();
        let txn = Txn::new().when([always]).and_then(puts);
        let response = self.client().await.txn(txn).await.unwrap();
        assert!(response.succeeded());
        response.header().unwrap().revision().unsigned_abs()
    }

    pub async fn compact(&self, revision: u64) {
        self.client().await.compact(revision as i64, None).await.unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody has. Below the range from which the system gives ports to outgoing connections, or one of these
/// could take it before etcd does; and each once, as tests run at the same time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add((std::process::id() % 500) as u16 * 20);
        let port = 20_000 + offset % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
