//! A server: reads webhooks from etcd or from files, receives events over HTTP and delivers them.
//!
//! `cargo run --release --bin gateway --features gateway`. README.md lists its routes, variables and metrics.

mod access;
mod activity;
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
mod history;
mod http2_memory;
mod linger;
mod listener;
mod memory;
mod misspelt;
mod open_files;
mod opening;
mod operators;
mod placeholders;
mod refused;
mod register;
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

use tower_webhook::admin::Admin;
use tower_webhook::dedup::Claims;
use tower_webhook::history::History;
use tower_webhook::module::{ConfigModule, SaveToDisk, SaveToDiskConfig};
use tower_webhook::queue::Queue;
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::receiver::Running;
use tower_webhook::request::BodyMemory;
use tower_webhook::source::{EtcdSource, FileSource, Source};
use tower_webhook::worker::Worker;
use tower_webhook::{Receiver, Registry, Store};

use crate::access::AccessLog;
use crate::certificates::Certificates;
use crate::command::Command;
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

/// How long blocking work may continue after everything else has ended.
const LAST_CALL: Duration = Duration::from_secs(2);

fn run(stderr: Stderr) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(start(stderr));
    // Dropping the runtime would wait for a disk that hangs.
    runtime.shutdown_timeout(LAST_CALL);
    outcome
}

async fn start(stderr: Stderr) -> Result<(), Error> {
    // First of all: until its handler is installed, SIGHUP would end the process.
    let signals = reload::Signals::install()?;
    let settings = Settings::from_env()?;
    let access = AccessLog::new(settings.log_access, stderr.clone(), &settings.namespace);
    let metrics = telemetry::init(&settings, stderr)?;
    settings.notes.iter().for_each(|note| tracing::warn!("{note}"));
    // Bound early, so that a port in use is the first thing to be reported.
    let sockets = sockets::bind(&settings)?;
    let certificates = settings.tls.clone().map(|(cert, key)| Certificates::new(cert, key));
    let watches = certificates.iter().map(Certificates::watch);
    #[cfg(feature = "http-webhook")]
    let watches = watches.chain(settings.targets.watch());
    let watches = watches.chain(settings.operators.watch());
    let watches = watches.collect::<Result<_, _>>()?;
    let tls = certificates.as_ref().map(Certificates::acceptor);
    tokio::spawn(reload::run(signals, certificates, watches));
    directories::check(&settings);

    let kept = open_spool(&settings)?;
    let history = settings.history.open()?;
    let queue = kept.as_ref().map(|kept| kept.worker.queue().clone());
    let shutdown = server::Shutdown::default();
    let body_memory = BodyMemory::new(settings.body_memory_bytes, settings.max_body_bytes);
    let running = match &settings.backend {
        Backend::Etcd(options) => {
            let source = EtcdSource::new(options.clone())?;
            receive(source, kept, history.clone(), &body_memory, &settings, &shutdown)?
        }
        Backend::File { webhooks, connections } => {
            let source = FileSource::new(webhooks, connections).default_namespace(&settings.namespace);
            receive(source, kept, history.clone(), &body_memory, &settings, &shutdown)?
        }
    };
    let mut tasks = running.tasks;
    let admin = admin(running.store.clone(), queue.clone(), history.clone(), &settings, &shutdown);
    let measured = routes::Measured::new(running.store, queue, body_memory, metrics);
    let apps = routes::apps(running.receiver, admin, measured, access, &settings);
    tokio::select! {
        outcome = server::serve(sockets, apps, tls, &settings, shutdown.clone()) => outcome?,
        failed = tasks.failed() => return Err(failed.into()),
    }
    tokio::select! {
        () = tasks.ended() => {}
        () = shutdown.over() => tracing::warn!("the grace time is over: unfinished events stay in the spool until the next start"),
    }
    if let Some(history) = &history {
        history::finish(history).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// The routes of operators.
fn admin(
    store: Store,
    queue: Option<Queue>,
    history: Option<History>,
    settings: &Settings,
    shutdown: &Shutdown,
) -> Admin {
    let admin = Admin::new(store).delivery_deadline(settings.delivery_timeout).stop(shutdown.clone().begun());
    let admin = match queue {
        Some(queue) => admin.queue(queue),
        None => admin,
    };
    let admin = match history {
        Some(history) => admin.history(history),
        None => admin,
    };
    match settings.operators.tokens() {
        Some(tokens) => admin.tokens(tokens.clone()),
        None => admin.closed(operators::CLOSED),
    }
}

/// The contents of `SPOOL_DIR`.
struct Kept {
    worker: Worker,
    claims: Claims,
}

fn open_spool(settings: &Settings) -> Result<Option<Kept>, Error> {
    let Some(directory) = &settings.spool else { return Ok(None) };
    let wrong = |error: std::io::Error| format!("SPOOL_DIR: {}: {error}", directory.display());
    let queue = DiskQueue::new(directory.join("events")).max_bytes(settings.spool_max_bytes);
    let (_, backlog) = queue.open().map_err(wrong)?;
    let claims = Claims::open(directory.join("dedup")).map_err(wrong)?;
    Ok(Some(Kept { worker: Worker::new(backlog).dead_letter_age(settings.dead_letter_age), claims }))
}

/// Starts to receive events for the webhooks of `source`.
fn receive<S: Source>(
    source: S,
    kept: Option<Kept>,
    history: Option<History>,
    body_memory: &BodyMemory,
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Running, Error> {
    let root = settings.save_to_disk_root.clone();
    let registry = Registry::builtin()
        .module_fn(SaveToDisk::NAME, move |config: SaveToDiskConfig, cx| SaveToDisk::new(&root, config, cx));
    let registry = settings.placeholders.register(registry);
    let registry = match &settings.public_url {
        Some(url) => registry.public_url(url)?,
        None => registry,
    };
    #[cfg(feature = "http-webhook")]
    let registry = settings.targets.register(registry);
    let mut receiver = Receiver::builder(source)
        .registry(registry)
        .on_invalid(settings.on_invalid)
        .prefix(routes::WEBHOOKS)
        .default_namespace(&settings.namespace)?
        .max_body_bytes(settings.max_body_bytes)
        .body_memory(body_memory.clone())
        .body_deadline(settings.body_timeout)
        .delivery_deadline(settings.delivery_timeout);
    if let Some(counters) = &settings.counters {
        receiver = receiver.count_by_webhook(counters.clone());
    }
    if let Some(Kept { worker, claims }) = kept {
        receiver = receiver.worker(worker).claims(claims);
    }
    if let Some(history) = history {
        receiver = receiver.history(history);
    }
    Ok(receiver.start(shutdown.clone().begun()))
}
