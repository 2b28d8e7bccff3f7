//! The edge: the socket, who is let in, and a graceful stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::certificates::TlsAcceptor;
use crate::connection::Connections;
use crate::linger::Lingering;
use crate::routes::App;
use crate::settings::Settings;

/// After a connection could not be accepted, as there are too many open files, none is for so long.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn bind(settings: &Settings) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind((settings.host.as_str(), settings.port))
        .map_err(|error| format!("HOST, PORT: cannot listen on {}:{}: {error}", settings.host, settings.port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Raises the number of open files that the process may have as far as it is allowed to: each connection is one, and a
/// server that has run out of them accepts nobody.
fn raise_file_limit(max_connections: usize) {
    /// For everything that is no connection.
    const OTHERS: u64 = 128;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files >= (max_connections as u64).saturating_add(OTHERS) => {}
        Ok(files) => {
            tracing::warn!(files, max_connections, "MAX_CONNECTIONS is more than the limit of open files allows")
        }
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Serves until SIGTERM or SIGINT, then finishes the requests that run within the grace time.
pub(crate) async fn serve(
    listener: TcpListener,
    app: App,
    tls: Option<TlsAcceptor>,
    settings: &Settings,
    shutdown: Shutdown,
) -> Result<(), Error> {
    raise_file_limit(settings.max_connections);
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    tokio::spawn(stop_on_signal(signals, settings.shutdown_grace, shutdown.clone()));
    tracing::info!(%address, tls = tls.is_some(), "listening");

    let remainders = app.remainders();
    let lingering = Lingering::new(settings.max_connections, settings.max_body_bytes);
    let connections = Connections::new(app, tls, settings.waiting, lingering, shutdown.clone());
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.clone().begun() => break,
            Some(_) = running.join_next() => {}
            (stream, peer) = accept(&listener) => match running.len() < settings.max_connections {
                true => drop(running.spawn(connections.clone().serve(stream, peer))),
                // One too many is closed at once.
                false => tracing::debug!(%peer, "there are MAX_CONNECTIONS connections already"),
            }
        }
    }
    // Who comes now is refused.
    drop(listener);
    let grace = settings.shutdown_grace;
    tracing::info!(connections = running.len(), ?grace, "stopping: finishing what runs");
    let all_done = async {
        while running.join_next().await.is_some() {}
        remainders.ended().await;
    };
    tokio::select! {
        () = all_done => {}
        () = shutdown.over() => {}
    }
    remainders.close();
    running.abort_all();
    Ok(())
}

async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        let accepted = listener.accept().await.and_then(|(stream, peer)| {
            stream.set_nodelay(true)?;
            Ok((stream, peer))
        });
        match accepted {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn stop_on_signal(mut signals: Signals, grace: Duration, shutdown: Shutdown) {
    signals.next().await;
    shutdown.begin(grace);
    signals.next().await;
    tracing::warn!("asked again: stopping at once");
    shutdown.hurry();
}

/// When everything has to have ended, once the stop has begun. The server is then no longer ready.
#[derive(Clone, Default)]
pub(crate) struct Shutdown(Arc<watch::Sender<Option<Instant>>>);

impl Shutdown {
    pub(crate) fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves when the stop begins.
    pub(crate) async fn begun(self) {
        let mut until = self.0.subscribe();
        // The sender is right here.
        let _ = until.wait_for(Option::is_some).await;
    }

    /// Resolves when the grace time is over.
    pub(crate) async fn over(&self) {
        let mut until = self.0.subscribe();
        loop {
            let now = *until.borrow_and_update();
            match now {
                None => drop(until.changed().await),
                Some(end) => {
                    if tokio::time::timeout_at(end, until.changed()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn begin(&self, grace: Duration) {
        self.0.send_replace(Some(Instant::now() + grace));
    }

    fn hurry(&self) {
        self.0.send_replace(Some(Instant::now()));
    }
}
