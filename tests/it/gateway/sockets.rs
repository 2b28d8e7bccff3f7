//! Limits of the system: connections that wait to be accepted, addresses, and open files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::process::{AUTHORIZATION, Gateway, free_address, webhooks};
use crate::support::raw::{Raw, text};
use crate::support::{eventually, raw, within};

/// More than the backlog of 128 in the standard library, and fewer than the files that a test may open.
const AT_ONCE: usize = 600;

/// Starts the gateway with these variables, instead of those that [`Gateway::start`] sets.
async fn start(variables: &[(&str, &str)]) -> Gateway {
    Gateway::start_in(configured(), variables).await
}

fn configured() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks().to_string()).unwrap();
    directory
}

/// The number of connections that `address` accepts into its backlog.
async fn taken(address: SocketAddr) -> usize {
    let mut connecting = JoinSet::new();
    for _ in 0..AT_ONCE {
        // A connection without room gets no answer, and is retried after 1 s, 3 s, 7 s and so on.
        connecting.spawn(async move { timeout(Duration::from_secs(10), TcpStream::connect(address)).await });
    }
    let streams = connecting.join_all().await;
    streams.iter().filter(|stream| matches!(stream, Ok(Ok(_)))).count()
}

#[tokio::test]
async fn hundreds_may_connect_before_the_first_is_accepted() {
    let most: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    assert!(most >= AT_ONCE, "net.core.somaxconn is {most}: this machine cannot show it");
    let admin = free_address();
    let gateway = start(&[("ADMIN_PORT", &admin.port().to_string())]).await;
    gateway.signal("STOP").await;
    assert_eq!(taken(gateway.address).await, AT_ONCE);
    assert_eq!(taken(admin).await, AT_ONCE);
    gateway.signal("CONT").await;
    gateway.assert_serves().await;
}

#[tokio::test]
async fn a_restart_binds_at_once_though_connections_were_open() {
    let mut gateway = Gateway::start(&[]).await;
    let address = gateway.address;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = gateway.connect().await;
        raw.send(text(&["GET /health HTTP/1.1"], "")).await;
        raw.answer().await.unwrap();
        open.push(raw);
    }
    // The gateway closes the connections first, so that its side stays in TIME_WAIT for a minute.
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    for raw in &mut open {
        raw.drain().await;
    }
    let again = start(&[("PORT", &address.port().to_string())]).await;
    let answer = raw::request(address, &["GET /health HTTP/1.1"], "").await;
    assert_eq!(answer.status, 200, "{}", again.err());
}

#[tokio::test]
async fn an_ipv6_host_is_listened_on_and_the_unspecified_one_is_for_both() {
    let Ok(probe) = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        panic!("this machine has no IPv6 on its loopback interface");
    };
    drop(probe);
    let addresses = |host: &str| match host {
        "::1" => vec![IpAddr::from(Ipv6Addr::LOCALHOST)],
        _ => vec![IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)],
    };
    for host in ["::1", "::"] {
        let gateway = start(&[("HOST", host)]).await;
        for ip in addresses(host) {
            let address = (ip, gateway.address.port()).into();
            eventually("an event to be accepted", async || {
                raw::request(address, &["POST /webhook/open HTTP/1.1"], "{}").await.status == 200
            })
            .await;
        }
    }
}

/// Opens as many connections as the gateway allows.
async fn strangers(gateway: &Gateway, number: usize) -> Vec<Raw> {
    let mut strangers = Vec::new();
    for _ in 0..number {
        strangers.push(gateway.connect().await);
    }
    strangers
}

#[tokio::test]
async fn strangers_cannot_take_the_files_that_events_are_saved_to() {
    let admin = free_address();
    let variables = [("SAVE_TO_DISK_ROOT", "data"), ("ADMIN_PORT", &admin.port().to_string())];
    let gateway = Gateway::start_with_files(configured(), &variables, 256).await;
    // 256 files, less 128 for other purposes and 32 for the operator.
    let line = gateway.err();
    assert!(line.contains("MAX_CONNECTIONS is lowered") && line.contains("found=10000 used=96 files=256"), "{line}");

    let mut sender = gateway.connect().await;
    let save = text(&["POST /webhook/save HTTP/1.1", AUTHORIZATION], "{}");
    eventually("the first event to be saved", async || {
        gateway.post_with_credential("/webhook/save", "{}").await.status == 200
    })
    .await;
    // From now on this connection is not closed in favour of others.
    sender.send(&save).await;
    sender.answer().await.unwrap().assert_accepted();
    let strangers = strangers(&gateway, 300).await;
    for _ in 0..5 {
        sender.send(&save).await;
        sender.answer().await.unwrap().assert_accepted();
        let health = within("the health", raw::request(admin, &["GET /health HTTP/1.1"], "")).await;
        assert_eq!(health.status, 200);
    }
    drop(strangers);
}
