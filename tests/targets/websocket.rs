//! The module `websocket` against a target that is made with the Python library websockets.

mod speed;

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::suite::{self, Access, Broker, PASSWORD, long, short};
use crate::support::certificates::Certificates;
use crate::support::client::Message;
use crate::support::rig::Rig;
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::{seat, tool};

short! {
    events_arrive_byte_for_byte => suite::works::<Peer>(),
    five_hundred_events_survive_a_kill => suite::survives_a_kill::<Peer>(500),
    a_wrong_password_is_told_apart => suite::wrong_password::<Peer>(),
    a_missing_path_is_told_apart => suite::unroutable::<Peer>(),
}

long! {
    five_thousand_events_survive_a_kill => suite::survives_a_kill::<Peer>(5_000),
    a_frozen_target_is_a_timeout => suite::frozen::<Peer>(),
    a_silent_connection_is_a_timeout => suite::silent::<Peer>(),
    a_connection_is_cut_in_the_middle_of_a_message => suite::cut_in_the_middle::<Peer>(),
    a_foreign_authority_is_refused => suite::foreign_authority::<Peer>(),
    a_message_that_is_too_large_is_permanent => suite::too_large::<Peer>(),
    a_password_is_changed_while_it_runs => suite::credentials_change::<Peer>(),
    a_target_that_is_down_fails_at_once => suite::down::<Peer>(),
    a_target_that_takes_nothing_costs_bounded_memory => suite::bounded_memory::<Peer>(),
    a_stop_loses_nothing => suite::stops_gracefully::<Peer>(),
}

/// The target. It answers each message once it has written it to a file.
struct Peer {
    server: Server,
    port: u16,
    tls_port: u16,
    directory: Directory,
}

impl Peer {
    /// The messages as they came: whether each was a text, and its content.
    fn received(&self) -> Vec<(bool, Vec<u8>)> {
        let lines = std::fs::read_to_string(self.directory.path().join("messages")).unwrap_or_default();
        let message = |line: &str| {
            let (kind, content) = line.split_once(' ').unwrap();
            (kind == "text", BASE64_STANDARD.decode(content).unwrap())
        };
        lines.lines().map(message).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }
}

impl Broker for Peer {
    async fn start(certificates: Option<&Certificates>) -> Self {
        let directory = Directory::new("websocket");
        directory.write("password", PASSWORD);
        let (port, tls_port) = (free_port(), free_port());
        let listens_at = if certificates.is_some() { tls_port } else { 0 };
        if let Some(certificates) = certificates {
            directory.write("server.pem", &certificates.server.certificate);
            directory.write("server.key", &certificates.server.key);
        }
        let place = directory.path().to_owned();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/consumers/websocket_peer.py");
        let command = move || {
            let mut command = Command::new("python3");
            command.arg(&script).args([port.to_string(), listens_at.to_string()]).arg(&place);
            command.env("PYTHONPATH", tool("clients")).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        let server = Server::start(&directory, Ready::Output("ready".to_owned()), command).await;
        Self { server, port, tls_port, directory }
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
        let Access { port, password, tls } = access;
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let headers = json!({"Authorization": format!("Bearer {password}")});
        let mut value =
            json!({"type": "websocket", "url": format!("{scheme}://127.0.0.1:{port}/in"), "headers": headers});
        if let Some(tls) = tls {
            value["tls"] = json!({"ca": tls.ca});
        }
        value
    }

    fn webhook(&self) -> Value {
        let config = json!({"include_headers": true, "wait_for_response": true});
        json!({"module": "websocket", "connection": "c", "module-config": config})
    }

    /// A path that the target does not know.
    fn unroutable(&self) -> Option<Value> {
        Some(json!({"module": "websocket", "module-config": {"url": self.url("/missing")}}))
    }

    async fn consume(&mut self) -> Vec<Message> {
        self.received().into_iter().map(|(_, content)| message(&content)).collect()
    }

    fn too_large(&self) -> Option<usize> {
        Some(1_000_001)
    }

    async fn fill(&mut self) {
        unimplemented!("it has no limit")
    }

    async fn empty(&mut self) {}

    async fn change_password(&mut self, password: &str) {
        self.directory.write("password", password);
    }
}

/// The event in an envelope, whose payload is taken byte for byte.
fn message(content: &[u8]) -> Message {
    let text = std::str::from_utf8(content).unwrap();
    let envelope: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let id = envelope["headers"]["x-event-id"].as_str().unwrap().to_owned();
    let body = match envelope["encoding"].as_str() {
        Some(_) => BASE64_STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap(),
        None => {
            let payload = text.strip_prefix(r#"{"payload":"#).unwrap();
            payload.as_bytes()[..payload.rfind(r#","headers":"#).unwrap()].to_vec()
        }
    };
    Message { id, body, headers: Default::default() }
}

async fn begin() -> (Peer, Rig) {
    let peer = Peer::start(None).await;
    let rig = Rig::start().await;
    rig.connection("c", &peer.connection(&Access::at(peer.port))).await;
    (peer, rig)
}

fn webhook(config: &Value) -> Value {
    json!({"module": "websocket", "connection": "c", "data_type": "blob", "module-config": config})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_form_of_a_message_arrives() {
    let _seat = seat().await;
    let (peer, rig) = begin().await;
    let json = json!({"module": "websocket", "connection": "c", "module-config": {}});
    rig.attempt(&json, r#"{ "a" : 1 }"#).await.was_delivered();
    assert!(rig.warnings().contains("WebSocket has no acknowledgement"), "{}", rig.warnings());
    for wait in [false, true] {
        let raw = json!({"format": "raw", "wait_for_response": wait});
        rig.attempt(&webhook(&raw), &b"\0\xff"[..]).await.was_delivered();
    }
    let expected = [(true, br#"{"payload":{ "a" : 1 }}"#.to_vec()), (false, vec![0, 255]), (false, vec![0, 255])];
    has_received(&peer, &expected).await;
    // As in the service before, with the keys that it had, and without a connection.
    let headers = json!({"Authorization": format!("Bearer {PASSWORD}")});
    let old = json!({"url": peer.url("/in"), "format": "json", "include_headers": false, "headers": headers, "timeout": 10,
        "max_retries": 3, "wait_for_response": true, "allowed_hosts": ["127.0.0.1"]});
    rig.attempt(&json!({"module": "websocket", "module-config": old}), "{}").await.was_delivered();
    assert_eq!(peer.received().len(), 4);
}

async fn has_received(peer: &Peer, expected: &[(bool, Vec<u8>)]) {
    // Without a response, the program behind the protocol may be later than the pong.
    crate::support::eventually("the messages", async || peer.received().len() >= expected.len()).await;
    assert_eq!(peer.received(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_handshake_and_a_closed_connection_say_why() {
    let _seat = seat().await;
    let (peer, rig) = begin().await;
    for (status, kind) in [(403, "auth"), (404, "config"), (429, "throttled"), (503, "unavailable")] {
        let url = peer.url(&format!("/status/{status}"));
        let config = json!({"url": url});
        let attempt = rig.attempt(&json!({"module": "websocket", "module-config": config}), "{}").await;
        println!("{status}: {}", attempt.failed_as(&[kind]));
    }
    let raw = json!({"format": "raw", "wait_for_response": true});
    for (code, kind) in [
        (1008, "config"),
        (1011, "unavailable"),
        (1013, "throttled"),
        (1003, "permanent"),
        (3000, "auth"),
        (4000, "connect"),
    ] {
        let attempt = rig.attempt(&webhook(&raw), format!("close {code}")).await;
        println!("{code}: {}", attempt.failed_as(&[kind]));
        suite::works_again(&rig, &peer).await;
    }
}
