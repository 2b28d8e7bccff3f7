//! The listeners, and the graceful stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::certificates::TlsAcceptor;
use crate::connection::Connections;
use crate::http2_memory::Http2Memory;
use crate::linger::Lingering;
use crate::listener::Listener;
use crate::open_files::Places;
use crate::routes::Apps;
use crate::settings::Settings;
use crate::sockets::Sockets;
use crate::streams::streams;
use crate::unread::Unread;

/// How many connections the operator's listener serves: enough for probes, scrapers and the operator.
const ADMIN_CONNECTIONS: usize = 128;

/// Raises the limit of open files as far as the system allows. Returns how many connections it allows.
fn places(settings: &Settings) -> Places {
    let admin = if settings.admin_address.is_some() { ADMIN_CONNECTIONS } else { 0 };
    let wanted = Places { webhooks: settings.max_connections, admin };
    let files = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            return wanted;
        }
    };
    let places = Places::within(files, wanted);
    if places != wanted {
        tracing::warn!(
            found = wanted.webhooks,
            used = places.webhooks,
            files,
            needed = wanted.files(),
            "MAX_CONNECTIONS is lowered: the limit of open files does not allow more, since each connection needs an open \
             file and some are reserved for events, targets and etcd; raise the hard limit (`ulimit -Hn`, `LimitNOFILE=`, \
             `--ulimit nofile=`) to `needed`, or set MAX_CONNECTIONS to `used`"
        );
    }
    places
}

/// Serves until SIGTERM or SIGINT. Then running requests may finish within the grace time.
///
/// The operator's listener, which speaks plain HTTP, answers until they have: a probe must not find a gateway dead that is
/// stopping.
pub(crate) async fn serve(
    sockets: Sockets,
    apps: Apps,
    tls: Option<TlsAcceptor>,
    settings: &Settings,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let places = places(settings);
    let signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    tokio::spawn(stop_on_signal(signals, settings.shutdown_grace, shutdown.clone()));

    let address = sockets.webhooks.local_addr()?;
    let admin_address = sockets.admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let admin = admin_address.map(tracing::field::display);
    tracing::info!(%address, tls = tls.is_some(), admin, "listening");

    let (unread, http2_memory) = (Unread::new(), Http2Memory::new());
    let listener = |name, socket, app, tls, max_connections, shutdown: &Shutdown| {
        let (streams, ended) = streams();
        let lingering = Lingering::new(max_connections, settings.max_body_bytes);
        let http2_memory = Arc::clone(&http2_memory);
        let connections =
            Connections::new(app, tls, settings.waiting, lingering, streams, http2_memory, shutdown.clone());
        (Listener::new(name, socket, connections, Arc::clone(&unread), max_connections), ended)
    };
    let (webhooks, mut streams) = listener("webhooks", sockets.webhooks, apps.main, tls, places.webhooks, &shutdown);
    let drained = Shutdown::default();
    let admin = match (sockets.admin, apps.admin) {
        (Some(socket), Some(app)) => Some(listener("admin", socket, app, None, places.admin, &drained)),
        _ => None,
    };
    let serve_webhooks = async {
        let mut running = webhooks.serve(&shutdown).await;
        let grace = settings.shutdown_grace;
        tracing::info!(connections = running.len(), ?grace, "stopping: running requests may finish");
        let all_done = async {
            while running.join_next().await.is_some() {}
            // A stream may outlive its connection by a moment, and only then becomes a remainder.
            streams.all().await;
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
        let Some((admin, _)) = admin else { return };
        let mut running = admin.serve(&drained).await;
        tokio::select! {
            () = async { while running.join_next().await.is_some() {} } => {}
            () = drained.over() => {}
            // A second signal stops at once.
            () = shutdown.over() => {}
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
    tracing::warn!("a second signal: stopping at once");
    shutdown.hurry();
}

/// The time by which everything must have ended, once the stop has begun. From its beginning the server is not ready.
#[derive(Clone, Default)]
pub(crate) struct Shutdown(Arc<watch::Sender<Option<Instant>>>);

impl Shutdown {
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

    /// Begins now and ends with `other`.
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
