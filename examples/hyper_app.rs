//! Layers of this crate in front of a service on bare hyper, without axum and without a router.
//!
//! `cargo run --example hyper_app` listens on 127.0.0.1:3000 and prints the lines to try; an argument names another
//! address.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_webhook::layers::{
    CollectBodyLayer, LookupWebhookLayer, ProblemJsonLayer, RequireAuthLayer, RequirePostLayer, RouteNamespaceLayer,
};
use tower_webhook::request::Collected;
use tower_webhook::source::FixedSource;
use tower_webhook::{Matched, Registry, reflect};

/// A webhook's configuration. The service takes the events, so the module is never called.
const ORDERS: &str = r#"{"module": "discard", "authorization": "Bearer s3cret", "metadata": {"warehouse": "east"}}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let source = FixedSource::new().webhook("shop", "orders", ORDERS)?;
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());

    let service = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(RouteNamespaceLayer::from_path().default_namespace("shop")?)
        .layer(RequirePostLayer::new())
        .layer(LookupWebhookLayer::new(store))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new().max_bytes(64 << 10).deadline(Duration::from_secs(10)))
        .service_fn(orders);
    let service = TowerToHyperService::new(service);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}; try:");
    println!("curl -i {address}/orders -H 'Authorization: Bearer s3cret' -d 'hello'   # 200");
    println!("curl -i {address}/orders -H 'Authorization: Bearer wrong' -d 'hello'    # 401");
    println!("curl -i {address}/returns -H 'Authorization: Bearer s3cret' -d 'hello'  # 404: no such webhook");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // The peer left at once, or the process has no file descriptor left: the server goes on.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // hyper's deadline for the head of a request needs a timer.
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// An ordinary service. The body has been read whole, within its limits.
async fn orders(req: Request<Collected>) -> Result<Response<Full<Bytes>>, Infallible> {
    let webhook = match Matched::of(req.extensions()) {
        Ok(matched) => matched.webhook(),
        Err(missing) => return Ok(missing.into_response()),
    };
    let answer = json!({"metadata": webhook.metadata(), "bytes": req.body().bytes().len()});
    Ok(Response::new(Full::from(answer.to_string())))
}
