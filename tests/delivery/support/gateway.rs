//! The gateway as a process that is started repeatedly in the same directory.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::client::{Answer, Client};
use super::{eventually, within};

/// The directory of a gateway's files, which outlives its processes.
pub(crate) struct Home {
    directory: TempDir,
    variables: Vec<(String, String)>,
}

pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Home {
    /// `webhooks` by namespace.
    pub(crate) fn new(webhooks: &Value) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() };
        home.configure(webhooks);
        home
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Changes the webhooks. A running gateway notices within moments.
    pub(crate) fn configure(&self, webhooks: &Value) {
        std::fs::write(self.path("new.json"), json!({"namespaces": webhooks}).to_string()).unwrap();
        std::fs::rename(self.path("new.json"), self.path("webhooks.json")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The log of all gateways of this home.
    pub(crate) fn log(&self) -> String {
        let mut logs: Vec<_> = files(self.directory.path()).into_iter().filter(|path| is_log(path)).collect();
        logs.sort();
        logs.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// The bodies that `save_to_disk` has written below `data/{directory}`, by the ids of their events.
    pub(crate) fn saved(&self, directory: &str) -> Vec<(String, PathBuf)> {
        let all = files(&self.path("data").join(directory)).into_iter();
        let whole = all.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        whole.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
    }

    /// The numbers of the spool's segments, in order.
    pub(crate) fn segments(&self) -> Vec<u32> {
        let names = files(&self.path("spool/events")).into_iter();
        let mut numbers: Vec<u32> = names.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) async fn start(&self) -> Gateway {
        let gateway = self.listening().await;
        gateway.ready().await;
        gateway
    }

    /// Starts a gateway and waits until it listens.
    pub(crate) async fn listening(&self) -> Gateway {
        // Another process may take the port before the gateway does.
        for _ in 0..5 {
            let mut gateway = self.spawn();
            let listens = within("the gateway to listen or to give up", async {
                while !gateway.log().contains("listening") {
                    if gateway.has_ended() {
                        return false;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                true
            });
            if listens.await {
                return gateway;
            }
            assert!(gateway.log().contains("cannot listen"), "it does not start: {}", gateway.log());
        }
        panic!("every port is taken");
    }

    /// Starts a gateway without waiting.
    pub(crate) fn spawn(&self) -> Gateway {
        self.spawn_by(&[])
    }

    /// Like [`spawn`](Self::spawn), through a program that finally becomes the gateway.
    pub(crate) fn spawn_by(&self, way: &[&str]) -> Gateway {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (log, file) = self.new_log();
        let mut words = way.iter().map(AsRef::as_ref).chain([OsStr::new(env!("CARGO_BIN_EXE_gateway"))]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(self.directory.path()).env_clear();
        for (name, value) in [
            ("HOST", "127.0.0.1"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("SPOOL_DIR", "spool"),
            ("SAVE_TO_DISK_ROOT", "data"),
            ("ADMIN_TOKEN", "operator"),
            ("EGRESS_ALLOW", "127.0.0.1"),
        ] {
            command.env(name, value);
        }
        command.env("PORT", port.to_string());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).kill_on_drop(true);
        Gateway { child: command.spawn().unwrap(), address: (Ipv4Addr::LOCALHOST, port).into(), log }
    }

    fn new_log(&self) -> (PathBuf, File) {
        (1..)
            .find_map(|number| {
                let path = self.path(&format!("gateway-{number:04}.log"));
                let file = OpenOptions::new().append(true).create_new(true).open(&path).ok()?;
                Some((path, file))
            })
            .unwrap()
    }
}

impl Gateway {
    pub(crate) async fn ready(&self) {
        eventually("the gateway to be ready", async || {
            self.try_get("/ready").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// The log of this gateway.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.client().await.post(path, body).await.unwrap()
    }

    async fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        super::client::request(self.address, "GET", path, b"").await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap()
    }

    /// A request with the operator's token.
    pub(crate) async fn admin(&self, method: &str, path: &str) -> Answer {
        let mut client = self.client().await;
        client.request(method, &format!("/admin{path}"), "Authorization: Bearer operator\r\n", b"").await.unwrap()
    }

    /// The ids of its dead letters.
    pub(crate) async fn dead_letters(&self) -> Vec<String> {
        let answer = self.admin("GET", "/dead-letters?limit=1000").await.json();
        let letters = answer["dead_letters"].as_array().unwrap();
        letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the spool holds no event that is still to be delivered.
    pub(crate) async fn drained(&self) {
        // The gauge is updated every two seconds: its first value may be outdated.
        for pause in [Duration::from_millis(2500), Duration::ZERO] {
            let waiting = async || self.metric("tower_webhook_queue_waiting").await;
            eventually("the spool to be drained", async || waiting().await == Some(0.0)).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics").await;
        answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The resident memory of the process, in kB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn id(&self) -> u32 {
        self.child.id().expect("it has ended already")
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.ended().await;
    }

    pub(crate) async fn signal(&self, signal: &str) {
        // A shell has `kill` built in; a small machine may have no other.
        let script = format!("kill -{signal} {}", self.id());
        let status = Command::new("sh").args(["-c", &script]).status().await.unwrap();
        assert!(status.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the gateway to end", self.child.wait()).await.unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGTERM, and waits until it has ended well.
    pub(crate) async fn stop(mut self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// The files of a directory, and none if it is missing.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}
