//! The attacks of the other files at their full size: `make test-attacks`, with a release build. A debug build needs
//! more memory and time than the limits allow.
//!
//! Each test prints two figures. The first is the p99 of a sender with a credential: during the attack it sends 300
//! events, each over a new connection, and 99 of 100 are answered within that time. The machine also does the
//! attacker's work, so the sender has three rounds, of which the quickest counts. The second is the most by which the
//! process has grown.

mod attacker;
mod http2;
mod tenants;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::frames::{END_STREAM, Frames};
use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::{Raw, text};
use crate::support::within;

/// The largest accepted p99 of a sender with a credential during an attack.
const P99: Duration = Duration::from_millis(250);

/// The most that the process may grow beyond its budget for bodies, in kB.
const GROWTH: u64 = 300 << 10;

/// The most memory that an idle connection may cost, in bytes.
const IDLE: u64 = 10 << 10;

fn may_open(files: u64) {
    let limit = rlimit::increase_nofile_limit(files).unwrap();
    assert!(limit >= files, "the limit of open files is {limit}: these tests need {files}");
}

/// A connection from one of a hundred addresses of the loopback interface.
async fn connect(gateway: &Gateway, nth: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 1, (nth % 100) as u8 + 1), 0))).unwrap();
    within("a connection", socket.connect(gateway.address)).await.unwrap()
}

/// The time within which 99 of 100 events of a sender are answered, each over a connection of its own.
async fn p99(gateway: &Gateway) -> Duration {
    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        let mut sender = Raw::connect(gateway.address).await;
        sender.send(text(&["POST /webhook/guarded HTTP/1.1", AUTHORIZATION], "{}")).await;
        let answer = sender.answer().await.expect("a sender is shut out");
        assert_eq!(answer.status, 200, "{answer:?}");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Checks the limits. `before` is the size of the process before the attack, and `budget` the memory for bodies, in kB.
async fn assert_serves_quickly(gateway: &Gateway, before: u64, budget: u64, attack: &str) {
    let mut turns = Vec::new();
    while turns.len() < 3 && turns.last().is_none_or(|p99| *p99 >= P99) {
        turns.push(p99(gateway).await);
    }
    let growth = gateway.most_resident_kb().saturating_sub(before);
    println!("{attack}: p99 of a sender {turns:?}, {growth} kB more at most, of which bodies may be {budget}");
    assert!(turns.iter().any(|p99| *p99 < P99), "{turns:?}");
    assert!(growth < GROWTH + budget, "{growth} kB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn ten_thousand_idle_connections_cost_little() {
    may_open(11_000);
    let gateway = Gateway::start(&[("MAX_CONNECTIONS", "12000"), ("IDLE_TIMEOUT_SECONDS", "600")]).await;
    let mut idle = Vec::new();
    let mut before = 0;
    for n in 0..10_100 {
        // The first connections also cause one-time costs, which are not counted.
        if n == 100 {
            before = gateway.resident_kb();
        }
        let mut raw = gateway.connect().await;
        raw.send(text(&["POST /webhook/open HTTP/1.1"], "{}")).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
        idle.push(raw);
    }
    let each = gateway.resident_kb().saturating_sub(before) * 1024 / 10_000;
    println!("an idle connection costs {each} bytes");
    assert!(each < IDLE, "{each} bytes");
    assert_serves_quickly(&gateway, before, 0, "10,000 idle connections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn twelve_thousand_connections_shut_nobody_out() {
    may_open(13_000);
    let gateway = Gateway::start(&[]).await;
    let before = gateway.resident_kb();
    let mut strangers = Vec::new();
    for n in 0..12_000 {
        let mut stranger = connect(&gateway, n).await;
        let begin = ["", "POST /webhook/open HTTP/1.1\r\nHost: a"][n % 2];
        let _ = within("the peer to read", stranger.write_all(begin.as_bytes())).await;
        strangers.push(stranger);
    }
    assert_serves_quickly(&gateway, before, 0, "12,000 connections that ask nothing").await;
}

/// SETTINGS_INITIAL_WINDOW_SIZE 0: no byte of an answer's body may be sent.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn answers_that_nobody_reads_take_little_memory() {
    may_open(4_000);
    let gateway = Gateway::start(&[]).await;
    let before = gateway.resident_kb();
    let mut unread = Vec::new();
    for _ in 0..2_000 {
        let mut frames = Frames::connect_with(gateway.address, &NO_WINDOW).await;
        for number in 0..64 {
            let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/metrics")];
            frames.request(2 * number + 1, &fields, END_STREAM).await;
        }
        unread.push(frames);
    }
    assert_serves_quickly(&gateway, before, 0, "answers that nobody reads on 2,000 connections").await;
}

/// The rate at which a history must leave out nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-attacks"]
async fn two_thousand_events_a_second_are_kept_in_the_history() {
    super::busy_history::assert_keeps_all(2000, Duration::from_secs(30)).await;
}
