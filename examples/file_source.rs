//! A receiver that reads its webhooks from a file, and follows changes of the file. It needs the feature `file`.
//!
//! `cargo run --example file_source --features file -- DIRECTORY [ADDRESS]` reads `webhooks.json` in DIRECTORY, such as
//! `{"orders": {"module": "log", "authorization": "Bearer s3cret"}}`, and `connections.json`, if there is one.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tower_webhook::source::FileSource;
use tower_webhook::{Registry, receiver, reflect};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("expected a directory as the first argument")?);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());

    let source = FileSource::new(directory.join("webhooks.json"), directory.join("connections.json"));
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());
    // The error names the file that is missing or is not JSON.
    store.wait_ready(Duration::from_secs(2)).await?;

    // A webhook that does not compile answers 503; the others are served.
    for (key, refusal) in store.snapshot().refusals() {
        eprintln!("{key}: {}", refusal.reason());
    }
    let app = Router::new().nest_service("/webhook", receiver(store));

    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
