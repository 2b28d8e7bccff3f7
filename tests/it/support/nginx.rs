//! A real nginx.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{eventually, within};

pub(crate) struct Nginx {
    child: Child,
    directory: TempDir,
}

impl Nginx {
    /// Starts it in `directory` with `http` in its `http` block, and waits until it listens on `port`.
    pub(crate) async fn start(directory: TempDir, http: &str, port: u16) -> Self {
        let path = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {path}/{kind};"))
            .concat();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {path}/pid; error_log {path}/error.log warn;
            events {{ worker_connections 1024; }}
            http {{ {temporary} access_log off; {http} }}"
        );
        std::fs::write(directory.path().join("nginx.conf"), config).unwrap();
        let child = command(directory.path()).spawn().unwrap();
        eventually("nginx to listen", || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        Self { child, directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts new workers. The old ones close idle connections and finish the others.
    pub(crate) async fn reload(&self) {
        let status = command(self.directory.path()).args(["-s", "reload"]).status().await.unwrap();
        assert!(status.success());
    }

    /// Stops it, and waits for its end.
    pub(crate) async fn stop(&mut self) {
        command(self.directory.path()).args(["-s", "stop"]).status().await.unwrap();
        within("nginx to end", self.child.wait()).await.unwrap();
    }
}

/// Also when a test fails: a master that is killed leaves its workers behind.
impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = command(self.directory.path()).as_std_mut().args(["-s", "stop"]).status();
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "stderr"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The one that `.ci/tools.sh all` brings, or the machine's.
fn binary() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/nginx");
    let binary = std::env::var_os("NGINX").map(PathBuf::from).or(own.exists().then_some(own));
    let binary = binary.unwrap_or_else(|| PathBuf::from("/usr/sbin/nginx"));
    assert!(binary.exists(), "NGINX: there is no nginx at {}; run `make test`, which brings it", binary.display());
    binary
}
