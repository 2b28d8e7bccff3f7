//! Real servers of Redis: Debian's redis-server 7.0, and Valkey 9.1 for what came later.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::certificates::Certificates;
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::{tool, within};

/// A server that keeps its data in an append-only file, each write synced.
pub(crate) struct Redis {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    pub(crate) password: Arc<Mutex<String>>,
    directory: Directory,
}

impl Redis {
    /// Redis 7.0. With certificates it also speaks TLS, and asks clients for a certificate if `asks` is set.
    pub(crate) async fn start(password: &str, certificates: Option<&Certificates>) -> Self {
        Self::with("redis-server", password, certificates, &[]).await
    }

    /// A server of this program with further arguments.
    pub(crate) async fn with(
        program: &str,
        password: &str,
        certificates: Option<&Certificates>,
        more: &[&str],
    ) -> Self {
        let directory = Directory::new("redis");
        let (port, tls_port) = (free_port(), free_port());
        let mut arguments: Vec<String> = [
            "--bind 127.0.0.1",
            "--save ''",
            "--appendonly yes",
            "--appendfsync always",
            "--proto-max-bulk-len 4mb",
            "--enable-debug-command local",
        ]
        .iter()
        .flat_map(|pair| pair.split(' '))
        .map(|word| word.trim_matches('\'').to_owned())
        .collect();
        arguments.extend(["--port".to_owned(), port.to_string()]);
        arguments.extend(["--dir".to_owned(), directory.path().display().to_string()]);
        if let Some(certificates) = certificates {
            let path = |name| certificates.path(name).display().to_string();
            arguments.extend(["--tls-port".to_owned(), tls_port.to_string()]);
            arguments.extend(["--tls-cert-file".to_owned(), path("server.pem")]);
            arguments.extend(["--tls-key-file".to_owned(), path("server.key")]);
            arguments.extend(["--tls-ca-cert-file".to_owned(), path("ca.pem")]);
            arguments.extend(["--tls-auth-clients".to_owned(), "optional".to_owned()]);
        }
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        let password = Arc::new(Mutex::new(password.to_owned()));
        let (program, of_server) = (tool(&format!("bin/{program}")), Arc::clone(&password));
        let command = move || {
            let mut command = Command::new(&program);
            command.args(&arguments).arg("--requirepass").arg(&*of_server.lock().unwrap());
            command
        };
        let ready = Ready::Output("Ready to accept connections".to_owned());
        let server = Server::start(&directory, ready, command).await;
        Self { server, port, tls_port, password, directory }
    }

    /// Runs a command with `redis-cli`, and returns what it prints.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(tool("bin/redis-cli"));
        let password = self.password.lock().unwrap().clone();
        command.args(["-p", &self.port.to_string(), "--no-auth-warning", "-a", &password]).args(arguments);
        command.stdin(Stdio::null()).current_dir(self.directory.path());
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = within("redis-cli", run).await.unwrap().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
