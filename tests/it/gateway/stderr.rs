//! The gateway works although nobody reads its log.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::process::{command, free_address};
use crate::support::{Answer, eventually, raw, within};

/// The capacity of a pipe.
const PIPE: usize = 64 << 10;

/// A gateway whose stderr the test provides.
struct Running {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Running {
    /// Starts the gateway with one webhook, `gone`, whose target refuses each connection.
    async fn start(stderr: impl Into<Stdio>, variables: &[(&str, &str)]) -> Self {
        Self::start_as(command, stderr, variables).await
    }

    async fn start_as(
        command: impl Fn(&Path) -> Command,
        stderr: impl Into<Stdio>,
        variables: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("http://{}/", free_address());
        let webhooks = json!({"gone": {"module": "http_webhook", "module-config": {"url": url}}});
        std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
        let address = free_address();
        let mut command = command(directory.path());
        command.env("PORT", address.port().to_string()).env("EGRESS_ALLOW", "127.0.0.0/8");
        command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(stderr);
        let running = Self { child: command.spawn().unwrap(), address, _directory: directory };
        eventually("the gateway to listen", async || TcpStream::connect(address).await.is_ok()).await;
        eventually("the gateway to be ready", async || running.get("/ready").await.status == 200).await;
        running
    }

    async fn get(&self, path: &str) -> Answer {
        raw::request(self.address, &[&format!("GET {path} HTTP/1.1")], "").await
    }

    /// Sends an event that cannot be delivered, which causes a log line.
    async fn post(&self) {
        raw::request(self.address, &["POST /webhook/gone HTTP/1.1"], "{}").await.problem(502);
    }

    async fn stop(mut self) {
        let script = format!("kill -TERM {}", self.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &script]).status().await.unwrap().success());
        let status = within("the gateway to end", self.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

/// A full pipe: it accepts no byte until the test reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'\n'; PIPE]).unwrap();
    (reader, writer)
}

#[tokio::test]
async fn a_reader_of_stderr_that_stalls_stops_nothing() {
    let (reader, writer) = full_pipe();
    let gateway = Running::start(writer, &[]).await;
    for _ in 0..300 {
        gateway.post().await;
    }
    assert_eq!(gateway.get("/health").await.status, 200);
    gateway.stop().await;
    drop(reader);
}

#[tokio::test]
async fn lines_that_were_left_out_are_counted_and_reported() {
    let (mut reader, writer) = full_pipe();
    let gateway = Running::start(writer, &[("RUST_LOG", "trace")]).await;
    // Limited by number and not by time, because the rate of a busy machine is unknown.
    let mut are_left_out = false;
    for _ in 0..1000 {
        for _ in 0..50 {
            gateway.post().await;
        }
        let metrics = gateway.get("/metrics").await;
        let dropped = metrics.text().lines().find_map(|line| {
            let count = line.strip_prefix("tower_webhook_log_lines_dropped_total ")?;
            count.parse::<u64>().ok()
        });
        are_left_out = dropped.expect("the metric is there from the start") > 0;
        if are_left_out {
            break;
        }
    }
    assert!(are_left_out);
    let (found, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut found = Some(found);
        let mut text = Vec::new();
        let mut chunk = vec![0; PIPE];
        while let Ok(read @ 1..) = reader.read(&mut chunk) {
            text.extend_from_slice(&chunk[..read]);
            let is_told = String::from_utf8_lossy(&text).contains("log lines were left out");
            if is_told && let Some(found) = found.take() {
                let _ = found.send(());
            }
        }
    });
    within("the line with the number of lost lines", told).await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn a_stderr_without_a_reader_stops_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    let gateway = Running::start(writer, &[]).await;
    drop(reader);
    for _ in 0..20 {
        gateway.post().await;
    }
    let metrics = gateway.get("/metrics").await;
    let dropped = metrics.text().lines().find(|line| line.starts_with("tower_webhook_log_lines_dropped_total"));
    assert!(dropped.is_some_and(|line| !line.ends_with(" 0")), "{}", metrics.text());
    gateway.stop().await;
}

#[tokio::test]
async fn a_closed_stderr_stops_nothing() {
    let closed = |directory: &Path| {
        let gateway = command(directory);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$0\" 2>&-"]).arg(gateway.as_std().get_program());
        command.current_dir(directory).env_clear().env("HOST", "127.0.0.1").stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let gateway = Running::start_as(closed, Stdio::null(), &[]).await;
    for _ in 0..20 {
        gateway.post().await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_last_lines_before_the_end_are_there() {
    for _ in 0..5 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let gateway = Running::start(writer, &[]).await;
        gateway.stop().await;
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.lines().last().unwrap().ends_with("stopped"), "{text}");
    }
}
