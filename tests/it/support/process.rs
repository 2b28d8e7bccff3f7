//! The gateway as a process, with the file backend and a directory of its own.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::raw::Raw;
use super::{Answer, CREDENTIAL, eventually, raw, within};

/// [`CREDENTIAL`] as a header line.
pub(crate) const AUTHORIZATION: &str = "Authorization: Bearer s3cret-token";

/// Longer than a failed start takes.
const START: Duration = Duration::from_secs(5);

/// The webhooks of [`Gateway::start`].
pub(crate) fn webhooks() -> Value {
    json!({"namespaces": {
        "default": {
            "open": {"module": "discard"},
            "guarded": {"module": "discard", "authorization": CREDENTIAL},
            "log": {"module": "log"},
            "pretty": {"module": "log", "module-config": {"pretty_print": true}},
            "save": {"module": "save_to_disk", "authorization": CREDENTIAL, "module-config": {
                "path": "events", "filename_template": "{namespace}_{webhook_id}_{event_id}.json"
            }},
        },
        "staging": {"open": {"module": "discard"}},
    }})
}

pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    directory: TempDir,
    out: Output,
    err: Output,
}

impl Gateway {
    /// Starts the gateway with [`webhooks`] and waits until it is ready.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("webhooks.json"), webhooks().to_string()).unwrap();
        let gateway = Self::start_in(directory, variables).await;
        eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
        gateway
    }

    /// Starts the gateway in `directory`, which holds its files, and waits until it listens.
    pub(crate) async fn start_in(directory: TempDir, variables: &[(&str, &str)]) -> Self {
        Self::start_as(binary().as_ref(), directory, variables).await
    }

    /// The same, with a hard limit of open files.
    pub(crate) async fn start_with_files(directory: TempDir, variables: &[(&str, &str)], files: u64) -> Self {
        let script = directory.path().join("limited.sh");
        let text = format!("#!/bin/sh\nulimit -n {files} && exec '{}' \"$@\"\n", Path::new(&binary()).display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
        Self::start_as(script.as_ref(), directory, variables).await
    }

    async fn start_as(program: &OsStr, directory: TempDir, variables: &[(&str, &str)]) -> Self {
        let mut failures = Vec::new();
        // Another process may take the port before the gateway does.
        for _ in 0..5 {
            let address = free_address();
            let mut command = command_of(program, directory.path());
            command.env("PORT", address.port().to_string()).envs(variables.iter().copied());
            let mut child = command.spawn().unwrap();
            let out = Output::of(child.stdout.take().unwrap());
            let err = Output::of(child.stderr.take().unwrap());
            let listens = within("the gateway to listen or to give up", async {
                while !err.text().contains("listening") {
                    if child.try_wait().unwrap().is_some() {
                        return false;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                true
            })
            .await;
            if listens {
                return Self { child, address, directory, out, err };
            }
            failures.push(err.text());
        }
        panic!("the gateway does not start: {failures:?}");
    }

    /// The path of a file of the gateway.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its stdout so far, which belongs to the module `log`.
    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    /// Its log so far.
    pub(crate) fn err(&self) -> String {
        self.err.text()
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw::connect(self.address).await
    }

    pub(crate) async fn request(&self, head: &[&str], body: impl AsRef<[u8]>) -> Answer {
        raw::request(self.address, head, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(&[&format!("GET {path} HTTP/1.1")], "").await
    }

    /// A POST without a credential.
    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request(&[&format!("POST {path} HTTP/1.1")], body).await
    }

    /// A POST with [`CREDENTIAL`].
    pub(crate) async fn post_with_credential(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request(&[&format!("POST {path} HTTP/1.1"), AUTHORIZATION], body).await
    }

    /// Checks that it serves.
    pub(crate) async fn assert_serves(&self) {
        self.post("/webhook/open", "{}").await.assert_accepted();
    }

    /// Closes the pipe of its stdout.
    pub(crate) async fn close_stdout(&mut self) {
        self.out.task.abort();
        let _ = (&mut self.out.task).await;
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it has ended already");
        // A shell has `kill` built in; a small machine may have no other.
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status().await.unwrap();
        assert!(status.success());
    }

    /// The resident memory of the process, in kB.
    pub(crate) fn resident_kb(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The peak of its resident memory, in kB.
    pub(crate) fn most_resident_kb(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let id = self.child.id().expect("it has ended already");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kills the process, and keeps its directory.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.directory
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the gateway to end", self.child.wait()).await.unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

/// Starts a gateway that must fail to start. Returns its exit status and its stderr.
pub(crate) async fn refused_start(variables: &[(&str, &OsStr)]) -> (ExitStatus, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), "{}").unwrap();
    let mut command = command(directory.path());
    command.env("PORT", "0").envs(variables.iter().copied());
    let running = command.spawn().unwrap().wait_with_output();
    let output = tokio::time::timeout(START, running).await;
    let output = output.unwrap_or_else(|_| panic!("the gateway runs with {variables:?}")).unwrap();
    assert!(output.stdout.is_empty(), "stdout belongs to the module `log`");
    (output.status, String::from_utf8(output.stderr).unwrap())
}

pub(crate) fn command(directory: &Path) -> Command {
    command_of(binary().as_ref(), directory)
}

fn command_of(program: &OsStr, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env_clear()
        .env("HOST", "127.0.0.1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The gateway that was built with this test, or the one that `GATEWAY` names.
pub(crate) fn binary() -> OsString {
    std::env::var_os("GATEWAY").unwrap_or_else(|| env!("CARGO_BIN_EXE_gateway").into())
}

pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The output of a process, as it arrives.
pub(crate) struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Output {
    pub(crate) fn of(mut pipe: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Arc::clone(&text);
        let task = tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
                sink.lock().unwrap().extend_from_slice(&chunk[..read]);
            }
        });
        Self { text, task }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}
