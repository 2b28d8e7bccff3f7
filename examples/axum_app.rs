//! A guard in front of one route of an axum application: the handler gets a request only after its webhook was looked up
//! and its sender was authenticated.
//!
//! `cargo run --example axum_app` listens on 127.0.0.1:3000 and prints the lines to try; an argument names another
//! address.

use std::error::Error;

use axum::routing::post;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_webhook::layers::{LookupWebhookLayer, ProblemJsonLayer, RequireAuthLayer, RouteNamespaceLayer};
use tower_webhook::source::FixedSource;
use tower_webhook::{Matched, Registry, reflect};

/// A webhook's configuration. The handler takes the events, so the module is never called.
const ORDERS: &str = r#"{
    "module": "discard",
    "authorization": "Bearer s3cret",
    "metadata": {"warehouse": "east"}
}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A constant lets the example run alone. An `EtcdSource` or a `FileSource` in its place follows changes.
    let source = FixedSource::new().webhook("shop", "orders", ORDERS)?;
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());

    let guard = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RouteNamespaceLayer::fixed("shop", "orders")?)
        .layer(LookupWebhookLayer::new(store))
        .layer(RequireAuthLayer::from_webhook());
    let app = Router::new().route("/orders", post(orders).layer(guard));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}; try:");
    println!("curl -i {address}/orders -H 'Authorization: Bearer s3cret' --json '{{\"item\": 1}}'  # 200");
    println!("curl -i {address}/orders -H 'Authorization: Bearer wrong' --json '{{\"item\": 1}}'   # 401");
    println!("curl -i {address}/orders -H 'Authorization: Bearer s3cret'  # 405: the route is for POST");
    axum::serve(listener, app).await?;
    Ok(())
}

/// An ordinary handler: the body is read by its extractor, after the guard.
async fn orders(Extension(matched): Extension<Matched>, Json(order): Json<Value>) -> Json<Value> {
    let webhook = matched.webhook();
    Json(json!({
        "namespace": webhook.namespace(),
        "webhook": webhook.id(),
        "metadata": webhook.metadata(),
        "order": order,
    }))
}
