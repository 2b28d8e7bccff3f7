//! A receiver with a queue on disk, stopped in an order that loses no event. It needs the feature `queue-disk`.
//!
//! `cargo run --example graceful_stop --features queue-disk -- DIRECTORY [ADDRESS]` keeps the queue in DIRECTORY. Stop it
//! with Ctrl-C or SIGTERM.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tower_webhook::Receiver;
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::source::FixedSource;
use tower_webhook::worker::Worker;

/// Less than the 30 s that Kubernetes waits before it kills.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("expected a directory as the first argument")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());

    // Installed before anything is accepted: until then a signal ends the process at once.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (asked_to_stop, _) = watch::channel(false);

    // The queue first: it holds what an earlier process had accepted and not yet delivered.
    let (_, backlog) = tokio::task::spawn_blocking(move || DiskQueue::new(directory).open()).await??;
    let orders = r#"{"module": "log", "ack": "accepted"}"#;
    let source = FixedSource::new().webhook("default", "orders", orders)?;
    let mut running = Receiver::builder(source).worker(Worker::new(backlog)).start(stopped(&asked_to_stop));
    running.store.wait_ready(Duration::from_secs(10)).await?;

    let remainders = running.receiver.remainders();
    let app = Router::new().nest_service("/webhook", running.receiver);
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let server = axum::serve(listener, app).with_graceful_shutdown(stopped(&asked_to_stop));
    let server = tokio::spawn(server.into_future());

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    println!("stopping");
    asked_to_stop.send_replace(true);
    let stop = async {
        // 1. No new connection; each request that has begun is answered.
        server.await??;
        // 2. Events whose senders have hung up are finished.
        remainders.ended().await;
        // 3. The worker finishes the deliveries under way. What it has not begun stays on disk for the next start.
        running.tasks.ended().await;
        Ok::<_, Box<dyn Error>>(())
    };
    match timeout(PATIENCE, stop).await {
        Ok(outcome) => outcome?,
        Err(_) => eprintln!("some work did not end within {PATIENCE:?}; what was accepted is on disk"),
    }
    println!("stopped");
    Ok(())
}

/// Resolves once the process was asked to stop.
fn stopped(asked: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut asked = asked.subscribe();
    async move { drop(asked.wait_for(|asked| *asked).await) }
}
