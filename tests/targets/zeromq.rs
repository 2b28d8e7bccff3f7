//! The module `zeromq` against libzmq 4.3.5, by pyzmq.
//!
//! The suite runs with `REQ`, the one socket that has an acknowledgement. Not all of it applies: ZeroMQ has no password, no
//! TLS here, no missing place, no largest message and no full server.

mod speed;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::suite::{self, Access, Broker, long, short};
use crate::support::certificates::Certificates;
use crate::support::client::{Message, message, reader};
use crate::support::rig::Rig;
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::{SOON, eventually, seat};

/// A socket of libzmq that writes its messages to a file.
struct Peer {
    server: Server,
    port: u16,
    file: PathBuf,
    _directory: Directory,
}

impl Peer {
    /// One that connects to this port has no port of its own.
    async fn start_as(kind: &'static str, connect_to: Option<u16>, topic: &'static str) -> Self {
        let directory = Directory::new("zeromq");
        let port = connect_to.unwrap_or_else(free_port);
        let file = directory.write("messages", "");
        let ready = match connect_to {
            Some(_) => Ready::Output(String::new()),
            None => Ready::Port(port),
        };
        let path = file.clone();
        let server = Server::start(&directory, ready, move || {
            let way = if connect_to.is_some() { "connect" } else { "bind" };
            let endpoint = format!("tcp://127.0.0.1:{port}");
            let command = reader("zeromq_peer.py", &[kind, way, &endpoint, path.to_str().unwrap(), topic]);
            let mut plain = std::process::Command::new(command.as_std().get_program());
            plain.args(command.as_std().get_args());
            plain.envs(command.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
            plain
        });
        Self { server: server.await, port, file, _directory: directory }
    }

    fn messages(&self) -> Vec<Message> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        // The last line may not be complete yet.
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        complete.lines().map(message).collect()
    }
}

fn connection(kind: &str, port: u16, bind: bool) -> Value {
    json!({"type": "zeromq", "endpoint": format!("tcp://127.0.0.1:{port}"), "socket_type": kind, "bind": bind})
}

fn to(config: Value) -> Value {
    json!({"module": "zeromq", "connection": "c", "data_type": "blob", "module-config": config})
}

impl Broker for Peer {
    const FULL: &[&str] = &[];
    const SPEAKS_TLS: bool = false;

    async fn start(_: Option<&Certificates>) -> Self {
        Self::start_as("REP", None, "").await
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        0
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        connection("REQ", access.port, false)
    }

    fn webhook(&self) -> Value {
        to(json!({"frames": "event"}))
    }

    fn unroutable(&self) -> Option<Value> {
        None
    }

    async fn consume(&mut self) -> Vec<Message> {
        self.messages()
    }

    fn too_large(&self) -> Option<usize> {
        None
    }

    async fn fill(&mut self) {}

    async fn empty(&mut self) {}

    async fn change_password(&mut self, _: &str) {}
}

short! {
    events_arrive_byte_for_byte => suite::works::<Peer>(),
    five_hundred_events_survive_a_kill => suite::survives_a_kill::<Peer>(500),
}

long! {
    five_thousand_events_survive_a_kill => suite::survives_a_kill::<Peer>(5_000),
    a_frozen_peer_is_a_timeout => suite::frozen::<Peer>(),
    a_silent_connection_is_a_timeout => suite::silent::<Peer>(),
    a_connection_is_cut_in_the_middle_of_a_message => suite::cut_in_the_middle::<Peer>(),
    a_peer_that_is_down_fails_at_once => suite::down::<Peer>(),
    a_stop_loses_nothing => suite::stops_gracefully::<Peer>(),
}

/// Each type of socket, connected to a peer and with a peer that connects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_socket_delivers_to_its_peers_byte_for_byte() {
    let _seat = seat().await;
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for (own, theirs, parts, first) in [
        ("PUSH", "PULL", "1", ""),
        ("PUB", "SUB", "2", "shop.a"),
        ("REQ", "REP", "1", ""),
        ("REQ", "ROUTER", "3", ""),
        ("DEALER", "ROUTER", "2", ""),
        ("DEALER", "DEALER", "1", ""),
        ("DEALER", "REP", "1", ""),
    ] {
        for bind in [false, true] {
            // Of its own, because a webhook of one type of socket is refused with another.
            let rig = Rig::start().await;
            let port = free_port();
            let peer = Peer::start_as(theirs, bind.then_some(port), "shop.").await;
            rig.connection("c", &connection(own, peer.port, bind)).await;
            let config = if own == "PUB" { json!({"topic": "{namespace}.a"}) } else { json!({}) };
            rig.webhook("a", &to(config)).await;
            // A peer may be about to connect, or to subscribe.
            eventually("the first delivery", async || rig.post("a", body.clone()).await.status == 200).await;
            for _ in 0..20 {
                assert_eq!(rig.post("a", body.clone()).await.status, 200, "{own} to {theirs}");
            }
            eventually("all messages", async || peer.messages().len() >= 21).await;
            for message in peer.messages() {
                assert!(message.body == body, "{own} to {theirs}");
                assert_eq!(message.headers["parts"], parts, "{own} to {theirs}");
                assert!(first.is_empty() || message.headers["first"] == first, "{message:?}");
            }
            let warns = rig.warnings().contains("no acknowledgement");
            assert_eq!(warns, own != "REQ", "{own}: {}", rig.warnings());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_peer_that_fits_a_delivery_fails_within_a_second() {
    let _seat = seat().await;
    let rig = Rig::start().await;
    for (own, bind) in
        [("PUSH", true), ("REQ", true), ("DEALER", true), ("PUSH", false), ("REQ", false), ("PUB", false)]
    {
        rig.connection("c", &connection(own, free_port(), bind)).await;
        let attempt = rig.attempt(&to(json!({})), "{}").await;
        println!("{own}: {}", attempt.failed_as(&["connect"]));
        assert!(attempt.took < SOON, "{attempt:?}");
    }
    rig.connection("c", &connection("PUB", free_port(), true)).await;
    rig.attempt(&to(json!({})), "{}").await.failed_as(&["unavailable"]);
    rig.attempt(&to(json!({"require_receiver": false})), "{}").await.was_delivered();
    let peer = Peer::start_as("SUB", None, "orders").await;
    rig.connection("c", &connection("PUB", peer.port, false)).await;
    rig.attempt(&to(json!({"topic": "refunds"})), "{}").await.failed_as(&["unavailable"]);
    let rig = Rig::start().await;
    rig.connection("c", &connection("PUSH", peer.port, false)).await;
    let attempt = rig.attempt(&to(json!({})), "{}").await;
    let reason = attempt.failed_as(&["config"]);
    assert!(reason.contains("type SUB"), "{reason}");
}

/// What a peer that reads nothing more costs: bounded memory, and timeouts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`make test-targets` runs it"]
async fn a_frozen_worker_costs_bounded_memory() {
    let _seat = seat().await;
    let rig = Rig::patient(Duration::from_millis(500)).await;
    let peer = Peer::start_as("PULL", None, "").await;
    rig.connection("c", &connection("PUSH", peer.port, false)).await;
    rig.webhook("a", &to(json!({}))).await;
    // Whatever forty requests at a time need.
    let forty = async || join_all((0..40).map(|_| rig.post("a", vec![b'x'; 500_000]))).await;
    eventually("forty deliveries", async || forty().await.iter().all(|answer| answer.status == 200)).await;
    let memory = resident_mb();
    peer.server.freeze();
    let (mut most, mut last) = (memory, 0);
    for _ in 0..40 {
        let answers = join_all((0..40).map(|_| rig.post("a", vec![b'x'; 500_000]))).await;
        last = answers[0].status;
        most = most.max(resident_mb());
    }
    println!("800 MB sent to a frozen peer: {memory} MB before, {most} MB at most");
    assert_eq!(last, 504);
    assert!(most < memory + 200, "{memory} MB before, {most} MB while it was frozen");
    peer.server.thaw();
    eventually("it works again", async || rig.post("a", "x").await.status == 200).await;
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
