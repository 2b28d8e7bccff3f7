//! Clients without credentials that use up all connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::process::{AUTHORIZATION, Gateway, command, webhooks};
use crate::support::raw::text;
use crate::support::{eventually, within};

const MAX: usize = 200;

async fn start() -> Gateway {
    Gateway::start(&[("MAX_CONNECTIONS", &MAX.to_string()), ("SAVE_TO_DISK_ROOT", "data")]).await
}

/// Connects from another address of the loopback interface.
async fn connect(gateway: &Gateway, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).unwrap();
    within("a connection", socket.connect(gateway.address)).await.unwrap()
}

async fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    // The peer may have closed the connection already.
    let _ = within("the peer to read", stream.write_all(bytes.as_ref())).await;
}

/// Whether the answer to an event with a credential is a 200.
async fn delivers(stream: &mut TcpStream) -> bool {
    send(stream, text(&["POST /webhook/save HTTP/1.1", AUTHORIZATION], "{}")).await;
    answers(stream, 200).await
}

async fn answers(stream: &mut TcpStream, status: u16) -> bool {
    let mut answer = vec![0; 4096];
    let read = within("an answer", stream.read(&mut answer)).await.unwrap_or(0);
    answer[..read].starts_with(format!("HTTP/1.1 {status}").as_bytes())
}

async fn is_open(stream: &mut TcpStream) -> bool {
    timeout(Duration::from_millis(1), stream.read(&mut [0])).await.is_err()
}

/// Opens idle and half-open connections, more than the limit.
async fn flood(gateway: &Gateway, from: u8, number: usize) -> Vec<TcpStream> {
    let mut strangers = Vec::new();
    for n in 0..number {
        let mut stranger = connect(gateway, from).await;
        let begin = match n % 4 {
            0 => "",
            1 => "POST /webhook/save HTTP/1.1\r\nHost: a",
            2 => "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            _ => "POST /webhook/guarded HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
        };
        send(&mut stranger, begin).await;
        strangers.push(stranger);
    }
    strangers
}

#[tokio::test]
async fn a_flood_of_connections_shuts_nobody_out() {
    let gateway = start().await;
    let mut kept = connect(&gateway, 9).await;
    assert!(delivers(&mut kept).await);
    // It has connected, and not yet sent anything.
    let mut early = connect(&gateway, 8).await;
    let mut strangers = Vec::new();
    for from in [1, 2, 3] {
        strangers.extend(flood(&gateway, from, MAX).await);
        assert!(delivers(&mut kept).await, "a sender that was let in has lost its connection");
        for _ in 0..20 {
            let mut new = connect(&gateway, 10).await;
            assert!(delivers(&mut new).await, "a new sender is shut out");
        }
        let directory = tempfile::tempdir().unwrap();
        let mut check = command(directory.path());
        check.arg("healthcheck").env("PORT", gateway.address.port().to_string());
        assert!(within("the health check", check.status()).await.unwrap().success());
    }
    assert!(delivers(&mut early).await, "a peer with one connection has lost it");
    let line = "idle connections without an admitted request are closed to make room";
    assert_eq!(gateway.err().lines().filter(|other| other.contains(line)).count(), 1, "{}", gateway.err());
}

#[tokio::test]
async fn the_peer_with_most_connections_makes_room_and_the_longest_idle_first() {
    let gateway = start().await;
    let mut few = Vec::new();
    for _ in 0..MAX / 4 {
        few.push(connect(&gateway, 1).await);
    }
    let mut many = Vec::new();
    for _ in 0..MAX {
        many.push(connect(&gateway, 2).await);
    }
    for stream in &mut few {
        assert!(is_open(stream).await, "the peer with fewer connections has lost one");
    }
    // The other peer's first connections are closed, and the last ones are open.
    let (first, last) = many.split_at_mut(MAX - 10);
    for stream in &mut first[..10] {
        assert_eq!(within("its end", stream.read(&mut [0])).await.unwrap_or(0), 0);
    }
    for stream in last {
        assert!(is_open(stream).await, "the youngest has made room");
    }
}

#[tokio::test]
async fn connections_that_were_let_in_make_no_room() {
    let gateway = start().await;
    let mut let_in = Vec::new();
    for _ in 0..MAX - 1 {
        let mut stream = connect(&gateway, 1).await;
        assert!(delivers(&mut stream).await);
        let_in.push(stream);
    }
    // One place is left, for which the clients without credentials compete.
    let strangers = flood(&gateway, 1, 100).await;
    for stream in &mut let_in {
        assert!(delivers(stream).await, "a sender that was let in has lost its connection");
    }
    drop(strangers);
}

/// The sender has a credential, although the answer is a 503.
#[tokio::test]
async fn a_sender_whose_delivery_is_put_off_makes_no_room() {
    let gateway = start().await;
    // A file blocks the directory that events are saved to.
    std::fs::write(gateway.path("data"), "").unwrap();
    let mut kept = connect(&gateway, 1).await;
    send(&mut kept, text(&["POST /webhook/save HTTP/1.1", AUTHORIZATION], "{}")).await;
    assert!(answers(&mut kept, 503).await);
    let _strangers = flood(&gateway, 1, MAX + 20).await;
    gateway.assert_serves().await;
    assert!(is_open(&mut kept).await, "a sender that was let in has lost its connection");
}

#[tokio::test]
async fn a_peer_whose_connections_are_all_busy_does_not_save_those_of_the_others() {
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut webhooks = webhooks();
    let url = format!("http://{}/", target.local_addr().unwrap());
    webhooks["namespaces"]["default"]["hangs"] = json!({"module": "http_webhook", "module-config": {"url": url}});
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let variables = [("MAX_CONNECTIONS", "120"), ("SAVE_TO_DISK_ROOT", "data"), ("EGRESS_ALLOW", "127.0.0.1")];
    let gateway = Gateway::start_in(directory, &variables).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    let mut busy = Vec::new();
    for _ in 0..90 {
        let mut stream = connect(&gateway, 1).await;
        send(&mut stream, text(&["POST /webhook/hangs HTTP/1.1"], "{}")).await;
        busy.push(stream);
    }
    let _idle = flood(&gateway, 2, 30).await;
    for _ in 0..5 {
        let mut new = connect(&gateway, 10).await;
        assert!(delivers(&mut new).await, "a new sender is shut out");
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_revision_do_not_take_all_connections() {
    let gateway = start().await;
    // A request beyond the limit of waiting ones is answered at once, and its connection can be closed.
    let wait = "GET /ready?min_revision=1000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..MAX {
        let mut stream = connect(&gateway, 1).await;
        send(&mut stream, wait).await;
        waiting.push(stream);
    }
    let mut one_more = connect(&gateway, 2).await;
    send(&mut one_more, wait).await;
    let mut answer = vec![0; 4096];
    let read = within("an answer", one_more.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
    assert!(answer.starts_with("http/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
    // A revision that has been reached already needs no wait.
    send(&mut one_more, "GET /ready?min_revision=1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answers(&mut one_more, 200).await);
    let mut new = connect(&gateway, 10).await;
    assert!(delivers(&mut new).await, "a new sender is shut out");
}
