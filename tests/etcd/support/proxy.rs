//! A TCP proxy whose connections fail on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass in both directions.
    Pass,
    /// Open connections are closed, and new ones too.
    Cut,
    /// Connections stay open and no byte arrives. As with TCP, no byte is lost for good: afterwards they continue.
    BlackHole,
    /// Bytes from etcd are held back; bytes to etcd arrive.
    Mute,
    /// Bytes to etcd are held back; bytes from etcd arrive.
    Deaf,
    /// Each piece is delayed by this time, in both directions.
    Late(Duration),
    /// Bytes from etcd arrive in pieces of this length, at this interval.
    Trickle(usize, Duration),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Mode {
    fn swallows(self, way: Way) -> bool {
        match self {
            Self::BlackHole => true,
            Self::Mute => way == Way::Back,
            Self::Deaf => way == Way::There,
            _ => false,
        }
    }
}

pub struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counter, opened) = (Arc::clone(&accepted), Arc::clone(&open));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let (modes, opened) = (modes.clone(), Arc::clone(&opened));
                tokio::spawn(async move {
                    opened.fetch_add(1, Ordering::Relaxed);
                    carry(client, port, modes).await;
                    opened.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { port: own, mode, accepted, open, task }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, port: u16, mut modes: watch::Receiver<Mode>) {
    if *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let there = pump(Way::There, client_read, server_write, modes.clone());
    let back = pump(Way::Back, server_read, client_write, modes.clone());
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    way: Way,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bound = match *modes.borrow() {
            Mode::Trickle(bytes, _) if way == Way::Back => bytes.min(buffer.len()),
            _ => buffer.len(),
        };
        let Ok(read @ 1..) = from.read(&mut buffer[..bound]).await else { return };
        // Held back and not dropped: TCP loses no byte in the middle of a stream, but delivers it later.
        let Ok(mode) = modes.wait_for(|mode| !mode.swallows(way)).await.map(|mode| *mode) else { return };
        match mode {
            Mode::Late(time) => sleep(time).await,
            Mode::Trickle(_, time) if way == Way::Back => sleep(time).await,
            _ => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Proxies between the members of a cluster: any member can be cut off from the others, or delayed.
///
/// Each member is reached through its own proxy, and identifies itself in the first request of a connection.
pub struct Peers {
    state: watch::Sender<Rift>,
    tasks: Vec<JoinHandle<()>>,
}

/// The separation of one member from the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rift {
    /// The index and the id of the member.
    member: Option<(usize, u64)>,
    /// The delay; `None` if nothing passes.
    late: Option<Duration>,
}

impl Rift {
    fn concerns(&self, target: usize, from: Option<u64>) -> bool {
        self.member.is_some_and(|(member, id)| member == target || Some(id) == from)
    }

    fn cuts(&self, target: usize, from: Option<u64>) -> bool {
        self.late.is_none() && self.concerns(target, from)
    }
}

impl Peers {
    /// Listens on the first port of each pair for what is meant for the second.
    pub async fn between(ports: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let (state, _) = watch::channel(Rift::default());
        let mut tasks = Vec::new();
        for (member, (own, behind)) in ports.into_iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", own)).await.unwrap();
            let states = state.subscribe();
            tasks.push(tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry_peer(client, member, behind, states.clone()));
                }
            }));
        }
        Self { state, tasks }
    }

    /// Cuts a member off from the others.
    pub fn isolate(&self, member: usize, id: u64) {
        self.state.send_replace(Rift { member: Some((member, id)), late: None });
    }

    /// Holds back what goes to and from a member.
    pub fn delay(&self, member: usize, id: u64, late: Duration) {
        self.state.send_replace(Rift { member: Some((member, id)), late: Some(late) });
    }

    pub fn heal(&self) {
        self.state.send_replace(Rift::default());
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn carry_peer(mut client: TcpStream, target: usize, port: u16, mut states: watch::Receiver<Rift>) {
    let mut first = vec![0; 16 << 10];
    let mut read = 0;
    while !first[..read].windows(4).any(|window| window == b"\r\n\r\n") {
        match client.read(&mut first[read..]).await {
            Ok(more @ 1..) => read += more,
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&first[..read]).into_owned();
    let from = head
        .lines()
        .find_map(|line| line.strip_prefix("X-Server-From: "))
        .and_then(|id| u64::from_str_radix(id.trim(), 16).ok());
    if states.borrow().cuts(target, from) {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if server.write_all(&first[..read]).await.is_err() {
        return;
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump_peer(client_read, server_write, target, from, states.clone()) => {}
        () = pump_peer(server_read, client_write, target, from, states.clone()) => {}
        _ = states.wait_for(|rift| rift.cuts(target, from)) => {}
    }
}

async fn pump_peer(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    target: usize,
    peer: Option<u64>,
    states: watch::Receiver<Rift>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let late = Some(states.borrow().clone()).filter(|rift| rift.concerns(target, peer)).and_then(|rift| rift.late);
        if let Some(late) = late {
            sleep(late).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
