//! Tansu has no users: `sasl.py` stands before it and wants a password.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::TOPIC;
use super::server::{Options, Tansu, tls};
use crate::suite::{self, Access, Broker, PASSWORD, Tls};
use crate::support::certificates::Certificates;
use crate::support::client::{self, Message};
use crate::support::rig::Rig;
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::{seat, tool};

const USER: &str = "hooks";

/// A Tansu whose clients come through `sasl.py`.
pub(crate) struct Guarded {
    // Dropped in this order.
    _guard: Server,
    tansu: Tansu,
    port: u16,
    tls_port: u16,
    mechanisms: String,
    password: String,
    /// The file of the authority, if clients come by TLS.
    ca: Option<PathBuf>,
    directory: Directory,
}

impl Guarded {
    /// With certificates clients are told to come by TLS.
    async fn with(mechanisms: &str, certificates: Option<&Certificates>) -> Self {
        let (port, tls_port, directory) = (free_port(), free_port(), Directory::new("sasl"));
        let announced = Some(if certificates.is_some() { tls_port } else { port });
        let tansu = Tansu::start(Options { is_durable: true, announced, ..Options::default() }).await;
        let password = directory.write("password", PASSWORD);
        let (behind, allowed, mechanisms) = (tansu.port, mechanisms.to_owned(), mechanisms.to_owned());
        let command = move || {
            let mut command = Command::new("python3");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/targets/kafka/sasl.py"));
            command.args([port.to_string(), behind.to_string()]).arg(&password).args([USER, &allowed]);
            command.env("PYTHONPATH", tool("clients")).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        let guard = Server::start(&directory, Ready::Output("ready".to_owned()), command).await;
        if let Some(certificates) = certificates {
            tls(certificates, tls_port, port);
        }
        let ca = certificates.map(|certificates| certificates.path("ca.pem"));
        Self { _guard: guard, tansu, port, tls_port, mechanisms, password: PASSWORD.to_owned(), ca, directory }
    }

    /// The value of a connection with this mechanism.
    fn by(&self, mechanism: &str, access: &Access<'_>) -> Value {
        let mut connection = self.tansu.connection(access);
        connection["sasl"] = json!({"mechanism": mechanism, "username": USER, "password": access.password});
        connection
    }
}

impl Broker for Guarded {
    const FULL: &[&str] = &[];

    async fn start(certificates: Option<&Certificates>) -> Self {
        Self::with("SCRAM-SHA-512", certificates).await
    }

    fn server(&mut self) -> &mut Server {
        self.tansu.server()
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        self.by("SCRAM-SHA-512", access)
    }

    fn webhook(&self) -> Value {
        self.tansu.webhook()
    }

    fn unroutable(&self) -> Option<Value> {
        None
    }

    async fn consume(&mut self) -> Vec<Message> {
        let mut options = vec![
            format!("sasl.mechanism={}", self.mechanisms.split(',').next().unwrap()),
            format!("sasl.username={USER}"),
            format!("sasl.password={}", self.password),
        ];
        let port = match &self.ca {
            Some(ca) => {
                options.extend(["security.protocol=SASL_SSL".to_owned(), format!("ssl.ca.location={}", ca.display())]);
                self.tls_port
            }
            None => {
                options.push("security.protocol=SASL_PLAINTEXT".to_owned());
                self.port
            }
        };
        let port = port.to_string();
        let arguments = [&port, TOPIC].into_iter().chain(options.iter().map(String::as_str));
        client::messages("kafka.py", &arguments.collect::<Vec<_>>()).await
    }

    fn too_large(&self) -> Option<usize> {
        None
    }

    async fn fill(&mut self) {
        unreachable!("it cannot be filled")
    }

    async fn empty(&mut self) {
        unreachable!("it cannot be filled")
    }

    async fn change_password(&mut self, password: &str) {
        self.directory.write("password", password);
        self.password = password.to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_apart() {
    suite::wrong_password::<Guarded>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute; `make test-targets` runs it"]
async fn a_password_may_change_while_events_wait() {
    suite::credentials_change::<Guarded>().await;
}

/// Each mechanism, with and without TLS: an event arrives with the right password, and none with another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mechanism_logs_in_with_the_right_password_only() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    for (mechanism, is_tls) in
        [("PLAIN", true), ("SCRAM-SHA-256", true), ("SCRAM-SHA-512", true), ("SCRAM-SHA-256", false)]
    {
        let mut guarded = Guarded::with(mechanism, is_tls.then_some(&certificates)).await;
        let rig = Rig::start().await;
        let access = |password| match is_tls {
            true => Access { port: guarded.tls_port, password, tls: Some(Tls { ca: &certificates.ca, client: None }) },
            false => Access { port: guarded.port, password, tls: None },
        };
        for wrong in ["hunter2", "s3cret ", "S3cret"] {
            rig.connection("c", &guarded.by(mechanism, &access(wrong))).await;
            let attempt = rig.answered(&guarded.webhook(), "{}").await;
            let reason = attempt.failed_as(&["auth"]);
            assert!(reason.contains(mechanism) && !reason.contains(wrong), "{reason}");
        }
        rig.connection("c", &guarded.by(mechanism, &access(PASSWORD))).await;
        let attempt = rig.attempt(&guarded.webhook(), "{}").await;
        attempt.was_delivered();
        let arrived: Vec<_> = guarded.consume().await.into_iter().map(|message| message.id).collect();
        assert_eq!(arrived, [attempt.event_id], "{mechanism}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mechanism_that_the_server_does_not_have_is_told_apart() {
    let _seat = seat().await;
    let guarded = Guarded::with("SCRAM-SHA-256", None).await;
    let rig = Rig::start().await;
    rig.connection("c", &guarded.by("SCRAM-SHA-512", &Access::at(guarded.port))).await;
    let attempt = rig.answered(&guarded.webhook(), "{}").await;
    let reason = attempt.failed_as(&["auth"]);
    assert!(reason.contains("SCRAM-SHA-256"), "the mechanisms of the server are not named: {reason}");
}
