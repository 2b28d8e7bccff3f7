//! A real RabbitMQ 3.10 with a port mapper of its own, so that nothing of it is shared with the machine.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::certificates::Certificates;
use crate::support::server::{Directory, Ready, Server, free_port, local};
use crate::support::{eventually, tool, within};

/// The user, with the tests' password. It may do everything.
pub(crate) const USER: &str = "tester";

const NODE: &str = "broker@localhost";

pub(crate) struct RabbitMq {
    // Dropped in this order.
    pub(crate) server: Server,
    _mapper: Server,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    mapper_port: u16,
    /// Of the user.
    pub(crate) password: String,
    directory: Directory,
}

impl RabbitMq {
    /// Starts it with an empty virtual host `/`. With certificates it also speaks TLS.
    pub(crate) async fn start_with(password: &str, certificates: Option<&Certificates>) -> Self {
        Self::start_as(password, certificates, false, &[], Vec::new()).await
    }

    /// The same with plugins, and with further lines of its configuration.
    pub(crate) async fn start_with_plugins(
        password: &str,
        certificates: Option<&Certificates>,
        plugins: &[&str],
        more: Vec<String>,
    ) -> Self {
        Self::start_as(password, certificates, false, plugins, more).await
    }

    /// The same, and over TLS every client needs a certificate.
    pub(crate) async fn start_strict(password: &str, certificates: &Certificates) -> Self {
        Self::start_as(password, Some(certificates), true, &[], Vec::new()).await
    }

    pub(crate) async fn start_as(
        password: &str,
        certificates: Option<&Certificates>,
        is_strict: bool,
        plugins: &[&str],
        more: Vec<String>,
    ) -> Self {
        let directory = Directory::new("rabbitmq");
        let (port, tls_port, mapper_port, peers) = (free_port(), free_port(), free_port(), free_port());
        let mapper = {
            let directory = Directory::new("epmd");
            let epmd = tool("rabbitmq/erlang/bin/epmd");
            let mapper = Server::start(&directory, Ready::Port(mapper_port), move || {
                let mut command = Command::new(&epmd);
                command.args(["-port", &mapper_port.to_string(), "-address", "127.0.0.1"]);
                command
            });
            mapper.await
        };
        let mut lines = vec![
            format!("listeners.tcp.1 = 127.0.0.1:{port}"),
            format!("default_user = {USER}"),
            format!("default_pass = {password}"),
            "log.console = true".to_owned(),
            "log.file = false".to_owned(),
            // Small machines have less than the default wants, and their disk is shared.
            "disk_free_limit.absolute = 1MB".to_owned(),
            "vm_memory_high_watermark.absolute = 2GB".to_owned(),
            "heartbeat = 10".to_owned(),
            "max_message_size = 1000000".to_owned(),
        ];
        if let Some(certificates) = certificates {
            lines.push(format!("listeners.ssl.1 = 127.0.0.1:{tls_port}"));
            for (key, name) in [("cacertfile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")] {
                lines.push(format!("ssl_options.{key} = {}", certificates.path(name).display()));
            }
            lines.push("ssl_options.verify = verify_peer".to_owned());
            lines.push(format!("ssl_options.fail_if_no_peer_cert = {is_strict}"));
        }
        lines.extend(more);
        directory.write("rabbitmq.conf", &(lines.join("\n") + "\n"));
        directory.write("plugins", &format!("[{}].\n", plugins.join(", ")));
        let place = directory.path().to_owned();
        let command = move || {
            let mut command = environment("rabbitmq-server", &place, mapper_port);
            command
                .env("RABBITMQ_MNESIA_BASE", place.join("data"))
                .env("RABBITMQ_LOG_BASE", place.join("log"))
                .env("RABBITMQ_CONFIG_FILE", place.join("rabbitmq.conf"))
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", place.join("plugins"))
                .env("RABBITMQ_DIST_PORT", peers.to_string())
                .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
            command
        };
        let ready = Ready::Output("Server startup complete".to_owned());
        let server = Server::start(&directory, ready, command).await;
        Self { server, _mapper: mapper, port, tls_port, mapper_port, password: password.to_owned(), directory }
    }

    /// Writes new queues and users to disk, which it does by itself some time later.
    pub(crate) async fn write_to_disk(&self) {
        self.control(&["eval", "ok = mnesia:sync_log()."]).await;
    }

    /// Runs `rabbitmqctl` and returns what it prints.
    pub(crate) async fn control(&self, arguments: &[&str]) -> String {
        let mut command = environment("rabbitmqctl", self.directory.path(), self.mapper_port);
        command.args(arguments).stdin(Stdio::null());
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = within("rabbitmqctl", run).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }
}

/// A program of RabbitMQ that finds its Erlang, its node and the node's cookie.
fn environment(program: &str, directory: &std::path::Path, mapper_port: u16) -> Command {
    let (erlang, server) = (tool("rabbitmq/erlang/bin"), tool("rabbitmq/server/sbin"));
    let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", server.display(), erlang.display());
    let mut command = Command::new(server.join(program));
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", directory)
        .env("LANG", "C.UTF-8")
        .env("RABBITMQ_NODENAME", NODE)
        .env("RABBITMQ_CONF_ENV_FILE", directory.join("none"))
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", mapper_port.to_string());
    command
}

/// The harness against a real server: nothing of a module is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_and_started_again_with_its_data() {
    let _seat = crate::support::seat().await;
    let certificates = Certificates::new();
    let mut broker = RabbitMq::start_with("s3cret", Some(&certificates)).await;
    assert!(TcpListener::bind(local(broker.tls_port)).is_err(), "it does not speak TLS");
    broker.control(&["add_user", "other", "pass"]).await;
    broker.write_to_disk().await;
    broker.server.kill();
    eventually("the port to be free", async || TcpListener::bind(local(broker.port)).is_ok()).await;
    broker.server.start_again().await;
    assert!(broker.control(&["list_users"]).await.contains("other"));
    broker.server.freeze();
    let proxy = crate::support::proxy::Proxy::before(broker.port).await;
    assert!(proxy.port() < 32_768 && broker.port < 32_768);
    broker.server.thaw();
    broker.server.stop().await;
    assert!(broker.server.output().contains("SIGTERM received"));
}
