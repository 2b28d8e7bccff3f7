//! Stdout belongs to the module `log`, which waits for its reader and delays nothing else.

use std::collections::HashSet;
use std::io::{PipeReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::process::{command, free_address};
use crate::support::{Answer, eventually, raw, within};

/// About 30 such bodies fill a pipe.
const BODY: usize = 2 << 10;

/// A gateway whose stdout the test provides.
struct Running {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Running {
    async fn start(stdout: impl Into<Stdio>) -> Self {
        Self::start_as(command, stdout).await
    }

    async fn start_as(command: impl Fn(&Path) -> Command, stdout: impl Into<Stdio>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let webhooks = json!({
            "log": {"module": "log"},
            "kept": {"module": "log", "ack": "accepted", "retry": {
                "enabled": true, "max_attempts": 20, "initial_delay": 0.2, "max_delay": 0.5, "retryable_errors": ["timeout"],
            }},
            "open": {"module": "discard"},
            "save": {"module": "save_to_disk", "module-config": {"path": "events"}},
        });
        std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
        let address = free_address();
        let mut command = command(directory.path());
        command.env("PORT", address.port().to_string()).env("SPOOL_DIR", "spool").env("SAVE_TO_DISK_ROOT", "data");
        command.env("DELIVERY_TIMEOUT_SECONDS", "1").env("SHUTDOWN_GRACE_SECONDS", "3");
        command.stdout(stdout).stderr(Stdio::inherit());
        let running = Self { child: command.spawn().unwrap(), address, _directory: directory };
        let ready = async || match tokio::net::TcpStream::connect(address).await {
            Ok(_) => running.get("/ready").await.status == 200,
            Err(_) => false,
        };
        eventually("the gateway to be ready", ready).await;
        running
    }

    async fn get(&self, path: &str) -> Answer {
        raw::request(self.address, &[&format!("GET {path} HTTP/1.1")], "").await
    }

    async fn post(&self, webhook: &str, n: usize) -> Answer {
        let body = json!({"n": n, "text": "x".repeat(BODY)}).to_string();
        raw::request(self.address, &[&format!("POST /webhook/{webhook} HTTP/1.1")], body).await
    }

    /// The answers to events while nobody reads: the first events fit into the pipe.
    async fn fill(&self) -> Vec<Answer> {
        let answers = join_all((0..150).map(|n| self.post("log", n))).await;
        let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        assert!(count(200) > 0 && count(504) > 0 && count(200) + count(504) == 150, "{} {}", count(200), count(504));
        answers
    }

    async fn assert_serves_others(&self) {
        for webhook in ["open", "save"] {
            self.post(webhook, 0).await.assert_accepted();
        }
        assert_eq!(self.get("/health").await.status, 200);
    }

    async fn stop(mut self) {
        let id = self.child.id().unwrap().to_string();
        let killed = tokio::process::Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await;
        assert!(killed.unwrap().success());
        let status = within("the gateway to end", self.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

/// Reads in the background, and sends all lines so far whenever there are more.
fn read(mut reader: PipeReader) -> tokio::sync::watch::Receiver<Vec<u8>> {
    let (sender, receiver) = tokio::sync::watch::channel(Vec::new());
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = reader.read(&mut chunk) {
            sender.send_modify(|text| text.extend_from_slice(&chunk[..read]));
        }
    });
    receiver
}

#[tokio::test]
async fn a_reader_of_stdout_that_stalls_holds_up_only_the_module_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    let gateway = Running::start(writer).await;
    let answers = gateway.fill().await;
    gateway.assert_serves_others().await;
    // Further events while nobody reads.
    let again = join_all((150..170).map(|n| gateway.post("log", n))).await;
    assert!(again.iter().all(|answer| answer.status == 504));
    let accepted = gateway.post("kept", 1000).await;
    assert_eq!(accepted.status, 202);
    tokio::time::sleep(Duration::from_secs(3)).await;

    let read = read(reader);
    let id = accepted.header("x-event-id").to_owned();
    let lines = || {
        let text = String::from_utf8_lossy(&read.borrow()).into_owned();
        let whole = text.rfind('\n').map_or(String::new(), |end| text[..end].to_owned());
        whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    eventually("the accepted event", async || lines().iter().any(|line| line["event_id"] == *id)).await;
    gateway.post("log", 2000).await.assert_accepted();
    let is_last = |line: &Value| line["payload"]["n"] == 2000;
    eventually("the line after it", async || lines().iter().any(is_last)).await;
    let lines = lines();
    let printed: HashSet<_> = lines.iter().map(|line| line["event_id"].as_str().unwrap()).collect();
    assert_eq!(printed.len(), lines.len(), "an event is printed twice");
    for answer in answers.iter().filter(|answer| answer.status == 200) {
        assert!(printed.contains(answer.header("x-event-id")), "an event that was taken is lost");
    }
    // An event that was refused while others waited before it is not printed later.
    let late = lines.iter().filter(|line| (150..170).contains(&line["payload"]["n"].as_u64().unwrap())).count();
    assert_eq!(late, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_reader_of_stdout() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let gateway = Running::start(writer).await;
    gateway.fill().await;
    assert_eq!(gateway.post("kept", 0).await.status, 202);
    let address = gateway.address;
    let waiting = tokio::spawn(raw::request(address, &["POST /webhook/log HTTP/1.1"], "{}"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.stop().await;
    waiting.await.unwrap().problem(504);
}

#[tokio::test]
async fn a_full_disk_behind_stdout_is_503() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let gateway = Running::start(full).await;
    for n in 0..3 {
        gateway.post("log", n).await.problem(503);
    }
    gateway.assert_serves_others().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stdout_that_is_closed_or_null_is_503() {
    let closed = |directory: &Path| {
        let gateway = command(directory);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$0\" >&-"]).arg(gateway.as_std().get_program());
        command.current_dir(directory).env_clear().env("HOST", "127.0.0.1").stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    for gateway in [Running::start_as(closed, Stdio::null()).await, Running::start(Stdio::null()).await] {
        for n in 0..2 {
            gateway.post("log", n).await.problem(503);
        }
        // The event is on disk, and is retried.
        assert_eq!(gateway.post("kept", 2).await.status, 202);
        gateway.assert_serves_others().await;
        gateway.stop().await;
    }
}
