//! The gateway as a process.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::etcd::{Etcd, free_port};

/// A gateway process. Dropping it kills it.
pub struct Gateway {
    child: Child,
    port: u16,
    log: NamedTempFile,
    _folder: TempDir,
}

impl Gateway {
    /// Follows etcd, and saves copies.
    pub async fn start(etcd: &Etcd, copies: &Path) -> Self {
        let (endpoint, copies) = (etcd.endpoint(), copies.to_str().unwrap());
        Self::with(&[("ETCD_ENDPOINTS", &endpoint), ("CONFIG_CACHE_DIR", copies)]).await
    }

    /// With these variables.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        let (port, folder, log) = (free_port(), tempfile::tempdir().unwrap(), NamedTempFile::new().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .env("CONFIG_BACKEND", "etcd")
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("ADMIN_TOKEN", "t0ken")
            .env("SAVE_TO_DISK_ROOT", folder.path())
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, port, log, _folder: folder }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The lines of its log that contain a text.
    pub fn log(&self, text: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.log.path()).unwrap();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// The exit code, once the process has ended by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {:?}", self.log(""));
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The status of the answer to a request.
    pub async fn get(&self, path: &str) -> Option<u16> {
        let answer = self.ask(path).await?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    async fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer t0ken\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut response = String::new();
        timeout(Duration::from_secs(5), stream.read_to_string(&mut response)).await.ok()?.ok()?;
        Some(response)
    }

    /// The answer of `/admin/config-status`.
    pub async fn status(&self) -> Option<Value> {
        serde_json::from_str(self.ask("/admin/config-status").await?.split_once("\r\n\r\n")?.1).ok()
    }

    /// Returns the time that it took.
    pub async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if status.as_ref().is_some_and(&holds) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {status:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
