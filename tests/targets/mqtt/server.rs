//! Real servers of MQTT: Debian's Mosquitto 2.0, and RabbitMQ 3.10 with its plugin for MQTT 3.1.1.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::rabbitmq::server::RabbitMq;
use crate::suite::{Access, Broker, PASSWORD};
use crate::support::certificates::Certificates;
use crate::support::client::{Message, messages, python};
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::tool;

pub(crate) const USER: &str = "tester";

/// The topic of all webhooks, below which the user may publish and read.
pub(crate) const TOPIC: &str = "events/orders";

/// The client whose session a server keeps.
const READER: &str = "reader";

/// The largest body that the tests' Mosquitto takes.
pub(crate) const MAX_MESSAGE: usize = 1_000_000;

/// Mosquitto, which writes its state to disk after each change.
pub(crate) struct Mosquitto {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    password: String,
    directory: Directory,
}

impl Mosquitto {
    /// With certificates it also speaks TLS, and clients need a certificate if `asks` is set.
    pub(crate) async fn start_with(certificates: Option<&Certificates>, asks: bool) -> Self {
        let broker = Self::run(certificates, asks, true).await;
        subscribe(broker.port, &broker.password, "5").await;
        broker
    }

    /// It writes nothing to disk, and has no reader.
    pub(crate) async fn without_reader() -> Self {
        Self::run(None, false, false).await
    }

    async fn run(certificates: Option<&Certificates>, asks: bool, keeps: bool) -> Self {
        let directory = Directory::new("mosquitto");
        let (port, tls_port) = (free_port(), free_port());
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let (passwords, acl) = (directory.path().join("passwords"), directory.path().join("acl"));
        directory.write("acl", &format!("user {USER}\ntopic readwrite events/#\n"));
        let mut lines = vec![
            // As root it would become another user, who may not read the directory.
            "user root".to_owned(),
            "allow_anonymous false".to_owned(),
            format!("password_file {}", passwords.display()),
            format!("acl_file {}", acl.display()),
            format!("persistence {keeps}"),
            format!("persistence_location {}/", data.display()),
            "autosave_on_changes true".to_owned(),
            "autosave_interval 1".to_owned(),
            "max_queued_messages 0".to_owned(),
            format!("message_size_limit {MAX_MESSAGE}"),
            "log_dest stderr".to_owned(),
            format!("listener {port} 127.0.0.1"),
        ];
        if let Some(certificates) = certificates {
            lines.push(format!("listener {tls_port} 127.0.0.1"));
            for (key, name) in [("cafile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")] {
                lines.push(format!("{key} {}", certificates.path(name).display()));
            }
            lines.push(format!("require_certificate {asks}"));
        }
        let config = directory.write("mosquitto.conf", &(lines.join("\n") + "\n"));
        Self::set_password(&directory, PASSWORD).await;
        let command = move || {
            let mut command = Command::new(tool("bin/mosquitto"));
            command.arg("-c").arg(&config);
            command
        };
        let server = Server::start(&directory, Ready::Output("running".to_owned()), command).await;
        Self { server, port, tls_port, password: PASSWORD.to_owned(), directory }
    }

    async fn set_password(directory: &Directory, password: &str) {
        let path: PathBuf = directory.write("passwords", "");
        let mut command = Command::new(tool("bin/mosquitto_passwd"));
        command.arg("-b").arg(path).args([USER, password]).stdin(Stdio::null());
        let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(run.status.success(), "{run:?}");
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub(crate) async fn read(&self) -> Vec<Message> {
        read(self.port, &self.password, "5").await
    }
}

/// Makes the server keep messages for the reader.
async fn subscribe(port: u16, password: &str, version: &str) {
    python("mqtt.py", &[&port.to_string(), USER, password, version, "subscribe", READER, "events/#"]).await;
}

async fn read(port: u16, password: &str, version: &str) -> Vec<Message> {
    messages("mqtt.py", &[&port.to_string(), USER, password, version, "read", READER]).await
}

fn connection(access: &Access<'_>, version: &str) -> Value {
    let Access { port, password, tls } = access;
    let mut value = json!({"type": "mqtt", "host": "127.0.0.1", "port": port, "username": USER, "password": password,
        "mqtt_version": version});
    if let Some(tls) = tls {
        value["tls"] = json!({"ca": tls.ca});
        if let Some(client) = tls.client {
            value["tls"]["client_cert"] = json!(client.certificate);
            value["tls"]["client_key"] = json!(client.key);
        }
    }
    value
}

impl Broker for Mosquitto {
    async fn start(certificates: Option<&Certificates>) -> Self {
        Self::start_with(certificates, false).await
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        connection(access, "5")
    }

    fn webhook(&self) -> Value {
        json!({"module": "mqtt", "connection": "c", "module-config": {"topic": TOPIC}})
    }

    /// A topic for which the user has no right.
    fn unroutable(&self) -> Option<Value> {
        Some(json!({"module": "mqtt", "connection": "c", "module-config": {"topic": "forbidden"}}))
    }

    async fn consume(&mut self) -> Vec<Message> {
        self.read().await
    }

    fn too_large(&self) -> Option<usize> {
        Some(MAX_MESSAGE + 1)
    }

    async fn fill(&mut self) {
        unimplemented!("Mosquitto drops messages for a full queue, and acknowledges them")
    }

    async fn empty(&mut self) {}

    async fn change_password(&mut self, password: &str) {
        Self::set_password(&self.directory, password).await;
        self.password = password.to_owned();
    }
}

/// RabbitMQ, whose plugin keeps the messages of a session in a durable queue, and acknowledges a message once they are
/// there.
pub(crate) struct RabbitMqtt {
    broker: RabbitMq,
    port: u16,
    tls_port: u16,
    password: String,
}

impl Broker for RabbitMqtt {
    /// It reads nothing more from the connection, and MQTT 3.1.1 has no word for that.
    const FULL: &[&str] = &["timeout"];

    async fn start(certificates: Option<&Certificates>) -> Self {
        let (port, tls_port) = (free_port(), free_port());
        let mut lines =
            vec![format!("mqtt.listeners.tcp.1 = 127.0.0.1:{port}"), "mqtt.allow_anonymous = false".to_owned()];
        if certificates.is_some() {
            lines.push(format!("mqtt.listeners.ssl.1 = 127.0.0.1:{tls_port}"));
        }
        let broker = RabbitMq::start_with_plugins(PASSWORD, certificates, &["rabbitmq_mqtt"], lines).await;
        subscribe(port, PASSWORD, "4").await;
        Self { broker, port, tls_port, password: PASSWORD.to_owned() }
    }

    fn server(&mut self) -> &mut Server {
        &mut self.broker.server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        connection(access, "3.1.1")
    }

    fn webhook(&self) -> Value {
        let config = json!({"topic": TOPIC, "format": "envelope"});
        json!({"module": "mqtt", "connection": "c", "module-config": config})
    }

    fn impatient(&self) -> Value {
        let config = json!({"topic": TOPIC, "format": "envelope", "timeout": 3});
        json!({"module": "mqtt", "connection": "c", "module-config": config})
    }

    fn unroutable(&self) -> Option<Value> {
        None
    }

    async fn consume(&mut self) -> Vec<Message> {
        read(self.port, &self.password, "4").await
    }

    fn too_large(&self) -> Option<usize> {
        None
    }

    async fn fill(&mut self) {
        self.broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    }

    async fn empty(&mut self) {
        self.broker.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    }

    async fn change_password(&mut self, password: &str) {
        self.broker.control(&["change_password", USER, password]).await;
        self.password = password.to_owned();
    }

    async fn settle(&mut self) {
        self.broker.write_to_disk().await;
    }
}
