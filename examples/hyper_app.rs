//! A service on bare hyper, and layers of this crate in front of it. No axum, no router.
//!
//! `cargo run --example hyper_app` needs nothing else and prints the lines to try.

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
use tower_webhook::{
    CollectBodyLayer, Collected, FixedSource, LookupWebhookLayer, Matched, ProblemJsonLayer, Registry,
    RequireAuthLayer, RequirePostLayer, RouteNamespaceLayer, reflect,
};

/// What etcd would hold as `/cwm/shop/webhooks/orders`. The service takes the events, so its module is never asked.
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

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("{TO_TRY}");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // A peer that left at once, or no file descriptor to be had: neither ends the server.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // hyper has a deadline for the head of a request, which counts only if there is a timer.
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// An ordinary service; the body is all there, and within its bounds.
async fn orders(req: Request<Collected>) -> Result<Response<Full<Bytes>>, Infallible> {
    let webhook = match Matched::of(req.extensions()) {
        Ok(matched) => matched.webhook(),
        Err(missing) => return Ok(missing.into_response()),
    };
    let answer = json!({"metadata": webhook.metadata(), "bytes": req.body().bytes().len()});
    Ok(Response::new(Full::from(answer.to_string())))
}

const TO_TRY: &str = r#"curl -i http://127.0.0.1:3000/orders -H 'Authorization: Bearer s3cret' -d 'hello'  # 200
curl -i http://127.0.0.1:3000/orders -H 'Authorization: Bearer wrong' -d 'hello'   # 401
curl -i http://127.0.0.1:3000/returns -d 'hello'                                   # 404: no such webhook
head -c 100000 /dev/zero | curl -i http://127.0.0.1:3000/orders -H 'Authorization: Bearer s3cret' --data-binary @-  # 413"#;
