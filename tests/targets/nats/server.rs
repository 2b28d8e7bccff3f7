//! Real NATS servers, old and current, with JetStream.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::support::certificates::Certificates;
use crate::support::client::{Message, message, messages, python, reader};
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::{tool, within};

pub(crate) const USER: &str = "tester";

/// The stream that takes `events.>`.
pub(crate) const STREAM: &str = "EVENTS";

/// A release of the server.
pub(crate) trait Release: Send + Sync + 'static {
    const PROGRAM: &str;
}

/// 2.9.10, of Debian 12.
pub(crate) struct V29;

/// 2.15.1.
pub(crate) struct V215;

impl Release for V29 {
    const PROGRAM: &str = "nats-2.9/nats-server";
}

impl Release for V215 {
    const PROGRAM: &str = "bin/nats-server";
}

/// One server with JetStream, whose stream [`STREAM`] takes `events.>`.
pub(crate) struct Nats<R> {
    pub(crate) server: Server,
    pub(crate) port: u16,
    /// Beside a server with TLS, one without.
    plain: Option<Box<Self>>,
    pub(crate) password: String,
    ca: Option<PathBuf>,
    directory: Directory,
    release: PhantomData<R>,
}

impl<R: Release> Nats<R> {
    pub(crate) async fn start(password: &str, certificates: Option<&Certificates>) -> Self {
        let plain = match certificates {
            Some(_) => Some(Box::new(Box::pin(Self::start_with(password, "", None)).await)),
            None => None,
        };
        let tls = |certificates: &Certificates| {
            let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| certificates.path(name));
            format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?} }}\n")
        };
        let settings = certificates.map(tls).unwrap_or_default();
        let ca = certificates.map(|certificates| certificates.path("ca.pem"));
        Self { plain, ..Self::start_with(password, &settings, ca).await }
    }

    async fn start_with(password: &str, settings: &str, ca: Option<PathBuf>) -> Self {
        let settings = format!("{}{settings}", users(password));
        let nats = Self { ca, ..Self::bare(password, &settings).await };
        nats.api(&format!("STREAM.CREATE.{STREAM}"), stream(json!({}))).await;
        nats
    }

    /// Without a stream, and with more lines in its configuration.
    pub(crate) async fn start_without_stream(password: &str, settings: &str) -> Self {
        Self::bare(password, &format!("{}{settings}", users(password))).await
    }

    /// Without a stream, and with a token in place of users.
    pub(crate) async fn start_with_token(token: &str) -> Self {
        Self::bare("", &format!("authorization {{ token: {token:?} }}\n")).await
    }

    /// Without a stream and without JetStream, with the settings for an operator.
    pub(crate) async fn start_for_operator(settings: &str) -> Self {
        Self::started("", |_| settings.to_owned()).await
    }

    async fn bare(password: &str, settings: &str) -> Self {
        let with_jetstream =
            |store: PathBuf| format!("jetstream {{ store_dir: {store:?}, max_file_store: 200MB }}\n{settings}");
        Self::started(password, with_jetstream).await
    }

    /// `settings` get the directory for JetStream.
    async fn started(password: &str, settings: impl FnOnce(PathBuf) -> String) -> Self {
        let directory = Directory::new("nats");
        let port = free_port();
        let settings = settings(directory.path().join("store"));
        directory.write("nats.conf", &format!("listen: 127.0.0.1:{port}\n{settings}"));
        let place = directory.path().to_owned();
        let program = tool(R::PROGRAM);
        let server = Server::start(&directory, Ready::Output("Server is ready".to_owned()), move || {
            let mut command = Command::new(&program);
            command.arg("-c").arg(place.join("nats.conf"));
            command
        });
        Self {
            server: server.await,
            port,
            plain: None,
            password: password.to_owned(),
            directory,
            ca: None,
            release: PhantomData,
        }
    }

    /// The port where it speaks without TLS.
    pub(crate) fn plain_port(&self) -> u16 {
        self.plain.as_ref().map_or(self.port, |plain| plain.port)
    }

    /// Changes the password for the next start.
    pub(crate) fn change_password(&mut self, password: &str) {
        let text = std::fs::read_to_string(self.directory.path().join("nats.conf")).unwrap();
        self.directory.write("nats.conf", &text.replace(&self.password, password));
        self.password = password.to_owned();
    }

    fn arguments<'a>(&'a self, port: &'a str, command: &[&'a str]) -> Vec<&'a str> {
        let ca = self.ca.as_ref().map_or("-", |ca| ca.to_str().unwrap());
        [&[port, USER, &self.password, ca][..], command].concat()
    }

    /// Sends a request to JetStream's API, and returns its answer. An error is a panic.
    pub(crate) async fn api(&self, subject: &str, body: Value) -> Value {
        let (port, subject, body) = (self.port.to_string(), format!("$JS.API.{subject}"), body.to_string());
        let answer = python("read_nats.py", &self.arguments(&port, &["api", &subject, &body])).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    /// Changes the configuration of the stream.
    pub(crate) async fn update(&self, changes: Value) {
        self.api(&format!("STREAM.UPDATE.{STREAM}"), stream(changes)).await;
    }

    /// All messages of the stream.
    pub(crate) async fn stored(&self) -> Vec<Message> {
        let port = self.port.to_string();
        messages("read_nats.py", &self.arguments(&port, &["read", STREAM])).await
    }

    /// A subscriber of core NATS.
    pub(crate) async fn listen(&self, subject: &str) -> Listener {
        self.subscribe("listen", subject).await
    }

    /// A subscriber that answers each message with `{}`.
    pub(crate) async fn respond(&self, subject: &str) -> Listener {
        self.subscribe("respond", subject).await
    }

    async fn subscribe(&self, command: &str, subject: &str) -> Listener {
        let port = self.port.to_string();
        let mut command = reader("read_nats.py", &self.arguments(&port, &[command, subject]));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(within("the subscriber", lines.next_line()).await.unwrap().as_deref(), Some("ready"));
        Listener { _child: child, lines }
    }
}

/// A subscriber in a process of its own, which ends with this value.
pub(crate) struct Listener {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Listener {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Message {
        message(&within("a message", self.lines.next_line()).await.unwrap().unwrap())
    }
}

/// The configuration of the stream, with changes.
fn stream(changes: Value) -> Value {
    let mut config = json!({
        "name": STREAM, "subjects": ["events.>"], "storage": "file", "retention": "limits", "discard": "new",
        "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1,
        "max_msg_size": -1, "num_replicas": 1, "duplicate_window": 120_000_000_000_u64,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn users(password: &str) -> String {
    format!(
        "authorization {{ users: [\n\
           {{ user: {USER}, password: {password:?} }}\n\
           {{ user: limited, password: {password:?}, permissions: {{ publish: [\"events.allowed\", \"core.allowed\"] }} }}\n\
           {{ user: deaf, password: {password:?}, permissions: {{ subscribe: {{ deny: \">\" }} }} }}\n\
           {{ user: private, password: {password:?}, permissions: {{ subscribe: \"_INBOX_private.>\" }} }}\n\
         ] }}\n"
    )
}

/// Three servers with JetStream that form a cluster.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) ports: Vec<u16>,
    _directories: Vec<Directory>,
}

impl Cluster {
    /// With a stream [`STREAM`] of three replicas.
    pub(crate) async fn start<R: Release>() -> Self {
        let (ports, routes) = ([(); 3].map(|()| free_port()), [(); 3].map(|()| free_port()));
        let all = routes.map(|port| format!("nats://127.0.0.1:{port}")).join(",");
        let (mut servers, mut directories) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let directory = Directory::new("nats-cluster");
            let (place, all, program) = (directory.path().to_owned(), all.clone(), tool(R::PROGRAM));
            let (port, route) = (ports[number], routes[number]);
            let server = Server::start(&directory, Ready::Port(port), move || {
                let mut command = Command::new(&program);
                command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-n", &format!("n{number}")]);
                command.args(["-cluster_name", "test", "-cluster", &format!("nats://127.0.0.1:{route}")]);
                command.args(["-routes", &all]).arg("-sd").arg(place.join("store"));
                command
            });
            servers.push(server.await);
            directories.push(directory);
        }
        let cluster = Self { servers, ports: ports.to_vec(), _directories: directories };
        let create = stream(json!({"num_replicas": 3}));
        // The cluster elects its leader first.
        within("the stream of three replicas", async {
            while cluster.api(0, &format!("STREAM.CREATE.{STREAM}"), &create).await.get("error").is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        })
        .await;
        cluster
    }

    /// The value of a connection to some of the servers.
    pub(crate) fn connection(&self, numbers: &[usize]) -> Value {
        let servers: Vec<_> = numbers.iter().map(|number| format!("127.0.0.1:{}", self.ports[*number])).collect();
        json!({"type": "nats", "servers": servers})
    }

    /// Sends a request to JetStream's API at one of the servers.
    pub(crate) async fn api(&self, number: usize, subject: &str, body: &Value) -> Value {
        let (port, subject, body) = (self.ports[number].to_string(), format!("$JS.API.{subject}"), body.to_string());
        let answer = python("read_nats.py", &[&port, "-", "-", "-", "api", &subject, &body]).await;
        serde_json::from_str(&answer).unwrap()
    }

    /// All messages of the stream, read at one of the servers.
    pub(crate) async fn stored(&self, number: usize) -> Vec<Message> {
        messages("read_nats.py", &[&self.ports[number].to_string(), "-", "-", "-", "read", STREAM]).await
    }

    /// The number of the server that leads the stream.
    pub(crate) async fn leader(&self) -> usize {
        let info = self.api(0, &format!("STREAM.INFO.{STREAM}"), &json!({})).await;
        let name = info["cluster"]["leader"].as_str().unwrap();
        name.trim_start_matches('n').parse().unwrap()
    }
}
