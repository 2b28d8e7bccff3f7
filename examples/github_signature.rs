//! An axum application that takes events from GitHub, and refuses everything that GitHub has not signed. It needs the
//! feature `signature`.
//!
//! `GITHUB_SECRET=... cargo run --example github_signature --features signature` listens on 127.0.0.1:3000; an argument
//! names another address. `Signature` knows the signatures of other senders, too.

use std::error::Error;

use axum::http::{Extensions, HeaderMap};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_webhook::auth::Signature;
use tower_webhook::layers::{CollectBodyLayer, ProblemJsonLayer, RequireAuthLayer, VerifyBodyLayer};
use tower_webhook::{Permit, Rejection};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let github = Signature::github(std::env::var("GITHUB_SECRET")?)?;
    let guard = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RequireAuthLayer::new(github).verify_body_follows())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new());
    let app = Router::new().route("/github", post(event).layer(guard));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Takes only events that GitHub has signed: without a permit, which `VerifyBody` gives, the answer is a 500.
async fn event(extensions: Extensions, headers: HeaderMap, Json(event): Json<Value>) -> Result<(), Response> {
    Permit::of(&extensions).map_err(Rejection::into_response)?;
    println!("{:?}: {}", headers.get("x-github-event"), event["action"]);
    Ok(())
}
