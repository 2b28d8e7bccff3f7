//! A configuration that the program itself changes while requests run: no etcd, no file, one handle.
//!
//! `cargo run --example live_config` listens on 127.0.0.1:3000 and prints the lines to try; an argument names another
//! address.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;
use tower_webhook::source::{FixedSource, LiveHandle};
use tower_webhook::{Registry, Store, receiver, reflect};

#[derive(Clone)]
struct Admin {
    handle: LiveHandle,
    store: Store,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (source, handle) = FixedSource::new().webhook("default", "orders", orders("first-token"))?.live();
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());
    store.wait_ready(Duration::from_secs(10)).await?;

    // A real application lets only its operators reach this route.
    let admin = Router::new().route("/token", post(set_token)).with_state(Admin { handle, store: store.clone() });
    let app = admin.nest_service("/webhook", receiver(store));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}; try:");
    println!("curl -i {address}/webhook/orders -H 'Authorization: Bearer first-token' -d '{{}}'   # 200");
    println!("curl -i {address}/token -d second-token                                           # 200");
    println!("curl -i {address}/webhook/orders -H 'Authorization: Bearer first-token' -d '{{}}'   # 401 from now on");
    println!("curl -i {address}/webhook/orders -H 'Authorization: Bearer second-token' -d '{{}}'  # 200");
    axum::serve(listener, app).await?;
    Ok(())
}

fn orders(token: &str) -> String {
    json!({"module": "discard", "authorization": format!("Bearer {token}")}).to_string()
}

/// Answers once every new request is held to the new token.
async fn set_token(State(admin): State<Admin>, token: String) -> (StatusCode, String) {
    let Ok(revision) = admin.handle.put_webhook("default", "orders", orders(&token)).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the configuration is not followed any more".to_owned());
    };
    if !admin.store.wait_for_revision(revision).await {
        return (StatusCode::SERVICE_UNAVAILABLE, "the configuration is not followed any more".to_owned());
    }
    // A value that does not compile is refused, and the last good one stays: here, an empty token.
    match admin.store.snapshot().refusals().next() {
        Some((key, refusal)) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{key}: {}", refusal.reason())),
        None => (StatusCode::OK, format!("revision {revision}")),
    }
}
