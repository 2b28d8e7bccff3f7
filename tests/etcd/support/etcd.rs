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
use super::proxy::Peers;

pub const PREFIX: &str = "/cwm/";

#[derive(Clone, Copy, Debug)]
pub enum Version {
    V35,
    V34,
}

impl Version {
    /// The etcdctl that belongs to the server.
    fn tool(self) -> PathBuf {
        let tool = self.binary().with_file_name("etcdctl");
        assert!(tool.exists(), "there is no etcdctl at {}; run `make test`, which brings it", tool.display());
        tool
    }

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

/// A member. Dropping it kills it.
pub struct Etcd {
    version: Version,
    data: TempDir,
    name: String,
    /// `name=peer` of every member, joined by commas.
    cluster: String,
    client_port: u16,
    peer_port: u16,
    /// The port at which other members reach it, if not its own.
    peer_proxy: Option<u16>,
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

    /// Reserves its ports without listening on them.
    pub fn stopped(version: Version) -> Self {
        let (client_port, peer_port) = (free_port(), free_port());
        let cluster = format!("one=http://127.0.0.1:{peer_port}");
        Self::member(version, "one".to_owned(), cluster, client_port, peer_port)
    }

    fn member(version: Version, name: String, cluster: String, client_port: u16, peer_port: u16) -> Self {
        Self {
            version,
            data: tempfile::tempdir().unwrap(),
            name,
            cluster,
            client_port,
            peer_port,
            peer_proxy: None,
            arguments: Vec::new(),
            scheme: "http",
            child: None,
        }
    }

    /// Three members of one cluster.
    pub async fn three(version: Version) -> [Self; 3] {
        let ports = [(free_port(), free_port()), (free_port(), free_port()), (free_port(), free_port())];
        let peers = ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"));
        let cluster = peers.collect::<Vec<_>>().join(",");
        let mut members = [0, 1, 2].map(|n: usize| {
            let (client, peer) = ports[n];
            Self::member(version, format!("m{n}"), cluster.clone(), client, peer)
        });
        // All must start first: alone, none of them answers.
        members.iter_mut().for_each(Self::spawn);
        for member in &members {
            member.answers().await;
        }
        members
    }

    /// Three members with a proxy between each pair.
    pub async fn three_apart(version: Version, arguments: &[&str]) -> ([Self; 3], Peers) {
        let ports = [0, 1, 2].map(|_| (free_port(), free_port(), free_port()));
        let peers = Peers::between(ports.map(|(_, peer, proxy)| (proxy, peer))).await;
        let urls = ports.iter().enumerate().map(|(n, (.., proxy))| format!("m{n}=http://127.0.0.1:{proxy}"));
        let cluster = urls.collect::<Vec<_>>().join(",");
        let mut members = [0, 1, 2].map(|n: usize| {
            let (client, peer, proxy) = ports[n];
            let mut member = Self::member(version, format!("m{n}"), cluster.clone(), client, peer);
            member.peer_proxy = Some(proxy);
            member.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
            member
        });
        members.iter_mut().for_each(Self::spawn);
        for member in &members {
            member.answers().await;
        }
        (members, peers)
    }

    /// A further member that is a learner.
    pub async fn add_learner(&self) -> Self {
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{peer}");
        let learner = etcd_client::MemberAddOptions::new().with_is_learner();
        self.client().await.member_add([url.clone()], Some(learner)).await.unwrap();
        let cluster = format!("{},learner={url}", self.cluster);
        let mut member = Self::member(self.version, "learner".to_owned(), cluster, client, peer);
        member.arguments = ["--initial-cluster-state", "existing"].map(str::to_owned).to_vec();
        member.spawn();
        member
    }

    /// etcd's own gRPC proxy before this member. Dropping it kills it.
    pub async fn grpc_proxy(&self) -> (GrpcProxy, String) {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(self.version.binary())
            .args(["grpc-proxy", "start", "--endpoints", &self.endpoint()])
            .args(["--listen-addr", &address, "--advertise-client-url", &address])
            .current_dir(self.data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = GrpcProxy(child);
        let listening = async {
            while tokio::net::TcpStream::connect(&address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listening).await.expect("the proxy does not listen");
        (proxy, format!("http://{address}"))
    }

    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    /// The id that it has in its cluster.
    pub async fn id(&self) -> u64 {
        self.client().await.status().await.unwrap().header().unwrap().member_id()
    }

    /// Asks the process to end, and waits until it has.
    pub async fn terminate(&mut self) {
        self.signal("-TERM");
        let mut child = self.child.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait());
        timeout(PATIENCE, ended).await.expect("etcd does not end").unwrap().unwrap();
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

    /// Starts the member and waits until it accepts connections.
    pub async fn run(&mut self) {
        self.spawn();
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.client_port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listening).await.expect("etcd does not listen");
        if self.scheme == "http" {
            self.answers().await;
        }
    }

    async fn answers(&self) {
        let answering = async {
            while self.client().await.get("/", None).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, answering).await.expect("etcd does not answer");
    }

    /// Starts the member without waiting.
    pub fn run_unawaited(&mut self) {
        self.spawn();
    }

    pub async fn is_leader(&self) -> bool {
        let status = self.client().await.status().await.unwrap();
        status.leader() == status.header().unwrap().member_id()
    }

    fn tool(&self) -> Command {
        let mut tool = Command::new(self.version.tool());
        tool.env("ETCDCTL_API", "3").stdout(Stdio::null()).stderr(Stdio::null());
        tool
    }

    /// Saves a backup of everything to a file.
    pub fn back_up(&self, file: &Path) {
        let endpoint = self.endpoint();
        let saved = self.tool().args(["--endpoints", &endpoint, "snapshot", "save"]).arg(file).status();
        assert!(saved.unwrap().success());
    }

    /// Restores everything from a backup. The member must be stopped.
    pub fn restore(&self, file: &Path) {
        self.restore_with(file, &[]);
    }

    pub fn restore_with(&self, file: &Path, arguments: &[&str]) {
        self.wipe();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let restored = self
            .tool()
            .args(["snapshot", "restore"])
            .arg(file)
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .args(["--name", &self.name, "--initial-cluster", &self.cluster, "--initial-advertise-peer-urls", &peer])
            .args(arguments)
            .status();
        assert!(restored.unwrap().success());
    }

    fn spawn(&mut self) {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let advertised = format!("http://127.0.0.1:{}", self.peer_proxy.unwrap_or(self.peer_port));
        let child = Command::new(self.version.binary())
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &advertised])
            .args(["--name", &self.name, "--initial-cluster", &self.cluster])
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

    /// The processor time that the member has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.as_ref().unwrap().id())).unwrap();
        // The 14th and 15th field of the line, in hundredths of a second; the name in parentheses comes before.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Deletes all data. The member must be stopped.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.data.path().join("data")).unwrap();
    }

    pub async fn client(&self) -> Client {
        Client::connect([self.endpoint()], None).await.unwrap()
    }

    /// Returns the revision of the put.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> u64 {
        let response = self.client().await.put(format!("{PREFIX}{key}"), value, None).await.unwrap();
        response.header().unwrap().revision().unsigned_abs()
    }

    pub async fn delete(&self, key: &str) -> u64 {
        let response = self.client().await.delete(format!("{PREFIX}{key}"), None).await.unwrap();
        response.header().unwrap().revision().unsigned_abs()
    }

    /// Puts all entries at one revision.
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

/// etcd's gRPC proxy. Dropping it kills it.
pub struct GrpcProxy(Child);

impl Drop for GrpcProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port. It is below the range of ephemeral ports, because an outgoing connection could take one of those before
/// etcd does; and no port is returned twice, because tests run concurrently.
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
