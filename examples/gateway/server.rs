//! The edge: the sockets, and a graceful stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::certificates::TlsAcceptor;
use crate::connection::Connections;
use crate::linger::Lingering;
use crate::listener::Listener;
use crate::routes::Apps;
use crate::settings::Settings;

/// How many connections the operator's own listener serves: enough for probes, scrapers and the operator.
const ADMIN_CONNECTIONS: usize = 128;

/// The sockets that are listened on.
pub(crate) struct Sockets {
    webhooks: TcpListener,
    /// Of the operator's routes, if they have their own.
    admin: Option<TcpListener>,
}

pub(crate) fn bind(settings: &Settings) -> Result<Sockets, Error> {
    let bind = |variables: &str, (host, port): (&str, u16)| -> Result<TcpListener, Error> {
        let listener = TcpListener::bind((host, port))
            .map_err(|error| format!("{variables}: cannot listen on {host}:{port}: {error}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let webhooks = bind("HOST, PORT", (&settings.host, settings.port))?;
    let admin = settings.admin_address.as_ref();
    let admin = admin.map(|(host, port)| bind("ADMIN_HOST, ADMIN_PORT", (host, *port))).transpose()?;
    Ok(Sockets { webhooks, admin })
}

/// Raises the number of open files that the process may have as far as it is allowed to: each connection is one, and a
/// server that has run out of them accepts nobody.
fn raise_file_limit(max_connections: usize) {
    /// For everything else.
    const OTHERS: u64 = 128;
    let needed = (max_connections as u64).saturating_add(ADMIN_CONNECTIONS as u64).saturating_add(OTHERS);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files >= needed => {}
        Ok(files) => {
            tracing::warn!(files, max_connections, "MAX_CONNECTIONS is more than the limit of open files allows")
        }
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Serves until SIGTERM or SIGINT, then finishes the requests that run within the grace time.
///
/// The operator's own listener answers until that is done: a probe of a gateway that stops must not find it dead. It
/// speaks plain HTTP.
pub(crate) async fn serve(
    sockets: Sockets,
    apps: Apps,
    tls: Option<TlsAcceptor>,
    settings: &Settings,
    shutdown: Shutdown,
) -> Result<(), Error> {
    raise_file_limit(settings.max_connections);
    let signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    tokio::spawn(stop_on_signal(signals, settings.shutdown_grace, shutdown.clone()));

    let address = sockets.webhooks.local_addr()?;
    let admin_address = sockets.admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let admin = admin_address.map(tracing::field::display);
    tracing::info!(%address, tls = tls.is_some(), admin, "listening");

    let listener = |name, socket, app, tls, max_connections, shutdown: &Shutdown| {
        let lingering = Lingering::new(max_connections, settings.max_body_bytes);
        let connections = Connections::new(app, tls, settings.waiting, lingering, shutdown.clone());
        Listener::new(name, socket, connections, max_connections)
    };
    let webhooks = listener("webhooks", sockets.webhooks, apps.main, tls, settings.max_connections, &shutdown)?;
    let drained = Shutdown::default();
    let admin = match (sockets.admin, apps.admin) {
        (Some(socket), Some(app)) => Some(listener("admin", socket, app, None, ADMIN_CONNECTIONS, &drained)?),
        _ => None,
    };
    let serve_webhooks = async {
        let mut running = webhooks.serve(&shutdown).await;
        let grace = settings.shutdown_grace;
        tracing::info!(connections = running.len(), ?grace, "stopping: finishing what runs");
        let all_done = async {
            while running.join_next().await.is_some() {}
            apps.remainders.ended().await;
        };
        tokio::select! {
            () = all_done => {}
            () = shutdown.over() => {}
        }
        apps.remainders.close();
        running.abort_all();
        drained.begin_with(&shutdown);
    };
    let serve_admin = async {
        let Some(admin) = admin else { return };
        let mut running = admin.serve(&drained).await;
        tokio::select! {
            () = async { while running.join_next().await.is_some() {} } => {}
            () = drained.over() => {}
        }
    };
    tokio::join!(serve_webhooks, serve_admin);
    Ok(())
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

    /// Begins now, and is over when `other` is.
    fn begin_with(&self, other: &Self) {
        let end = (*other.0.borrow()).unwrap_or_else(Instant::now);
        self.0.send_replace(Some(end));
    }

    fn begin(&self, grace: Duration) {
        self.0.send_replace(Some(Instant::now() + grace));
    }

    fn hurry(&self) {
        self.0.send_replace(Some(Instant::now()));
    }
}
