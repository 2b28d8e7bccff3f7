//! An axum app with a route of its own, and layers of this crate in front of it.
//!
//! `cargo run --example axum_app` needs nothing else and prints the lines to try.

use std::error::Error;

use axum::routing::post;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_webhook::{
    FixedSource, LookupWebhookLayer, Matched, ProblemJsonLayer, Registry, RequireAuthLayer, RouteNamespaceLayer,
    reflect,
};

/// What etcd would hold as `/cwm/shop/webhooks/orders`. The handler takes the events, so its module is never asked.
const ORDERS: &str = r#"{
    "module": "discard",
    "authorization": "Bearer s3cret",
    "metadata": {"warehouse": "east"}
}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A constant, so that the example runs alone; an EtcdSource or a FileSource in its place changes while it runs.
    let source = FixedSource::new().webhook("shop", "orders", ORDERS)?;
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());

    let guard = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RouteNamespaceLayer::fixed("shop", "orders")?)
        .layer(LookupWebhookLayer::new(store))
        .layer(RequireAuthLayer::from_webhook());
    let app = Router::new().route("/orders", post(orders).layer(guard));

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("{TO_TRY}");
    axum::serve(listener, app).await?;
    Ok(())
}

/// An ordinary handler. The body is its own affair; who gets here has sent the webhook's credential.
async fn orders(Extension(matched): Extension<Matched>, Json(order): Json<Value>) -> Json<Value> {
    let webhook = matched.webhook();
    Json(json!({
        "namespace": webhook.namespace(),
        "webhook": webhook.id(),
        "metadata": webhook.metadata(),
        "order": order,
    }))
}

const TO_TRY: &str = r#"# 200, with what the handler knows of its webhook
curl -i http://127.0.0.1:3000/orders -H 'Authorization: Bearer s3cret' -H 'Content-Type: application/json' -d '{"item": 1}'

# 401, with a WWW-Authenticate header
curl -i http://127.0.0.1:3000/orders -H 'Authorization: Bearer wrong' -d '{"item": 1}'

# 405: a webhook is received by POST
curl -i http://127.0.0.1:3000/orders"#;
