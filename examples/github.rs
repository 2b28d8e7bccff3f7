//! An axum app that takes events from GitHub, and nothing that GitHub has not signed.
//!
//! `GITHUB_SECRET=… cargo run --example github --features signature`

use std::error::Error;

use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_webhook::auth::Signature;
use tower_webhook::{CollectBodyLayer, ProblemJsonLayer, RequireAuthLayer, VerifyBodyLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let github = Signature::github(std::env::var("GITHUB_SECRET")?)?;
    let guard = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RequireAuthLayer::new(github).verify_body_follows())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new());
    let app = Router::new().route("/github", post(event).layer(guard));
    axum::serve(TcpListener::bind("127.0.0.1:3000").await?, app).await?;
    Ok(())
}

/// An ordinary handler: whoever gets here is GitHub.
async fn event(headers: HeaderMap, Json(event): Json<Value>) {
    println!("{:?}: {}", headers.get("x-github-event"), event["action"]);
}
