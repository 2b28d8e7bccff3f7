//! The whole scenario as a server: webhooks from etcd or from files, received over HTTP.
//!
//! `cargo run --release --bin gateway --features gateway`; the README lists its routes and variables.

mod activity;
mod admin;
mod certificates;
mod clients;
mod command;
mod connection;
mod directories;
#[cfg(feature = "http-webhook")]
mod egress;
mod endpoint;
mod exchange;
mod guests;
mod healthcheck;
mod linger;
mod listener;
mod memory;
mod misspelt;
mod open_files;
mod opening;
mod refused;
mod reload;
mod rendering;
mod routes;
mod rules;
mod server;
mod settings;
mod sockets;
mod stderr;
mod streams;
mod telemetry;
mod units;
mod unread;
mod variables;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tower_webhook::dedup::Claims;
use tower_webhook::module::{Module, SaveToDisk, SaveToDiskConfig};
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::source::{EtcdSource, FileSource, Source};
use tower_webhook::worker::Worker;
use tower_webhook::{Registry, Store, reflect};

use crate::certificates::Certificates;
use crate::command::Command;
use crate::routes::Kept;
use crate::server::Shutdown;
use crate::settings::{Backend, Settings};
use crate::stderr::Stderr;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let stderr = match Stderr::start() {
        Ok(stderr) => stderr,
        Err(error) => {
            eprintln!("gateway: cannot start the thread that writes to stderr: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = begin(&stderr);
    stderr.flush_at_exit();
    code
}

fn begin(stderr: &Stderr) -> ExitCode {
    let outcome = match command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve) => run(stderr.clone()),
        Ok(Command::Healthcheck) => healthcheck::run(),
        Ok(Command::Help) => print(&command::help()),
        Ok(Command::Version) => print(command::VERSION),
        Err(error) => {
            stderr.line(&format!("gateway: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    for line in error.to_string().lines() {
        stderr.line(&format!("gateway: {line}"));
    }
    ExitCode::FAILURE
}

/// The exit status after a wrong argument.
const USAGE: u8 = 2;

fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // `gateway --help | head -1`
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// How long blocking work may go on after everything else has ended.
const LAST_CALL: Duration = Duration::from_secs(2);

fn run(stderr: Stderr) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(start(stderr));
    // Not by dropping it: that would wait for a disk that hangs.
    runtime.shutdown_timeout(LAST_CALL);
    outcome
}

async fn start(stderr: Stderr) -> Result<(), Error> {
    // First of all: until then a signal that is none to stop would end the process.
    let signals = reload::Signals::install()?;
    let settings = Settings::from_env()?;
    let metrics = telemetry::init(&settings, stderr)?;
    settings.notes.iter().for_each(|note| tracing::warn!("{note}"));
    // Bound before anything else, so that a taken port is the first thing to be known.
    let sockets = sockets::bind(&settings)?;
    let certificates = settings.tls.clone().map(|(cert, key)| Certificates::new(cert, key));
    let watches = certificates.iter().map(Certificates::watch);
    #[cfg(feature = "http-webhook")]
    let watches = watches.chain(settings.targets.watch());
    let watches = watches.collect::<Result<_, _>>()?;
    let tls = certificates.as_ref().map(Certificates::acceptor);
    tokio::spawn(reload::run(signals, certificates, watches));
    directories::check(&settings);

    let (kept, worker) = open_spool(&settings)?.unzip();
    let (store, mut reflector) = match &settings.backend {
        Backend::Etcd(options) => follow(EtcdSource::new(options.clone())?, &settings),
        Backend::File { webhooks, connections } => {
            follow(FileSource::new(webhooks, connections).default_namespace(&settings.namespace), &settings)
        }
    };
    let shutdown = server::Shutdown::default();
    let mut worker = tokio::spawn(work(worker, store.clone(), shutdown.clone()));
    let apps = routes::apps(store, kept, metrics, &settings, shutdown.clone())?;
    tokio::select! {
        outcome = server::serve(sockets, apps, tls, &settings, shutdown.clone()) => outcome?,
        // Neither source ever ends by itself. To serve on would be to serve a configuration that nobody follows.
        ended = &mut reflector => {
            return Err(format!("the task that follows the configuration has ended: {ended:?}").into());
        }
        ended = too_early(&mut worker, &shutdown) => {
            return Err(format!("the task that delivers accepted events has ended: {ended:?}").into());
        }
    }
    // Once it has ended it must not be asked again.
    if !worker.is_finished() {
        tokio::select! {
            _ = &mut worker => {}
            () = shutdown.over() => tracing::warn!("what is being delivered is left in the spool"),
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Resolves when the task ends though nobody has asked for a stop. With one, it may end before the last request does.
async fn too_early(task: &mut JoinHandle<()>, shutdown: &Shutdown) -> Result<(), JoinError> {
    let ended = (&mut *task).await;
    match shutdown.has_begun() && ended.is_ok() {
        true => std::future::pending().await,
        false => ended,
    }
}

/// Opens what is kept in `SPOOL_DIR`.
fn open_spool(settings: &Settings) -> Result<Option<(Kept, Worker)>, Error> {
    let Some(directory) = &settings.spool else { return Ok(None) };
    let wrong = |error: std::io::Error| format!("SPOOL_DIR: {}: {error}", directory.display());
    let queue = DiskQueue::new(directory.join("events")).max_bytes(settings.spool_max_bytes);
    let (queue, backlog) = queue.open().map_err(wrong)?;
    let claims = Claims::open(directory.join("dedup")).map_err(wrong)?;
    let worker = Worker::new(backlog).deadline(settings.delivery_timeout).dead_letter_age(settings.dead_letter_age);
    Ok(Some((Kept { queue, claims }, worker)))
}

async fn work(worker: Option<Worker>, store: Store, shutdown: Shutdown) {
    match worker {
        Some(worker) => worker.run(store, shutdown.begun()).await,
        None => shutdown.begun().await,
    }
}

/// Keeps a store like `source`, in the background.
fn follow<S: Source>(source: S, settings: &Settings) -> (Store, JoinHandle<()>) {
    let root = settings.save_to_disk_root.clone();
    let registry = Registry::builtin()
        .module_fn(SaveToDisk::NAME, move |config: SaveToDiskConfig, cx| SaveToDisk::new(&root, config, cx))
        .accepting(settings.spool.is_some())
        .dedup(settings.spool.is_some())
        // Whoever may write a webhook must not read the gateway's own secrets through it.
        .variables(|name| variables::may_be_read(name).then(|| std::env::var(name).ok()).flatten());
    #[cfg(feature = "http-webhook")]
    let registry = settings.targets.register(registry);
    let (store, reflector) = reflect(source, registry);
    (store, tokio::spawn(reflector.on_invalid(settings.on_invalid).run()))
}
