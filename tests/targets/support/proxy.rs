//! A TCP proxy that cuts connections in the middle of a frame, or goes silent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::server::{free_port, local};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Silent,
    Closed,
}

/// Passes bytes between clients and a server at another port of this machine.
pub(crate) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    /// How many bytes may still pass to the server before all connections are reset.
    budget: Arc<AtomicU64>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// At a port of its own.
    pub(crate) async fn before(port: u16) -> Self {
        loop {
            let own = free_port();
            if let Ok(listener) = TcpListener::bind(local(own)).await {
                return Self::between(own, listener, port);
            }
        }
    }

    /// At the port `own`.
    pub(crate) async fn at(own: u16, port: u16) -> Self {
        Self::between(own, TcpListener::bind(local(own)).await.unwrap(), port)
    }

    fn between(own: u16, listener: TcpListener, port: u16) -> Self {
        let (mode, modes) = watch::channel(Mode::Pass);
        let (budget, accepted) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicUsize::new(0)));
        let (left, count) = (Arc::clone(&budget), Arc::clone(&accepted));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                if *modes.borrow() == Mode::Closed {
                    continue;
                }
                tokio::spawn(carry(client, port, modes.clone(), Arc::clone(&left)));
            }
        });
        Self { port: own, mode, budget, accepted, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were made.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Passes on `bytes` more bytes from clients, and then resets all connections that are open. Later ones work.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }

    /// Whether the cut that was asked for has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.budget.load(Ordering::SeqCst) == u64::MAX
    }

    /// From now on connections stay open and are accepted, and no byte arrives, in either direction.
    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Bytes pass again, those that were held back included.
    pub(crate) fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Closes all connections, and each new one as soon as it is accepted.
    pub(crate) fn close(&self) {
        self.mode.send_replace(Mode::Closed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, port: u16, modes: watch::Receiver<Mode>, budget: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(local(port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Whatever ends a connection here resets it, so that the other end sees a broken connection, not a polite end.
    let _ = (client.set_zero_linger(), server.set_zero_linger());
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut closed = modes.clone();
    let (mut there, mut back) = (modes.clone(), modes);
    let to_server = async {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let read = from_client.read(&mut chunk).await?;
            opened(&mut there).await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
            let left = budget.load(Ordering::SeqCst);
            let may = left.min(read as u64) as usize;
            to_server.write_all(&chunk[..may]).await?;
            if left != u64::MAX {
                budget.store(left - may as u64, Ordering::SeqCst);
                if may < read || left == may as u64 {
                    budget.store(u64::MAX, Ordering::SeqCst);
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
    };
    let to_client = async {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let read = from_server.read(&mut chunk).await?;
            opened(&mut back).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&chunk[..read]).await?;
        }
    };
    tokio::select! {
        _ = async { tokio::try_join!(to_server, to_client) } => {}
        _ = closed.wait_for(|mode| *mode == Mode::Closed) => {}
    }
}

/// Waits until bytes may pass.
async fn opened(modes: &mut watch::Receiver<Mode>) -> io::Result<()> {
    match modes.wait_for(|mode| *mode != Mode::Silent).await {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
