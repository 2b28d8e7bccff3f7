//! Modules of your own: one that implements [`Module`], and one that is a tower service with middleware around it.
//!
//! `cargo run --example custom_module` listens on 127.0.0.1:3000 and prints the lines to try; an argument names another
//! address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use serde::Deserialize;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_webhook::config::{BuildContext, BuildError};
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::{ConfigModule, Module};
use tower_webhook::source::FixedSource;
use tower_webhook::{Registry, receiver, reflect};

/// Counts events. Its configuration is checked when a webhook is configured.
struct Count {
    step: u64,
    total: AtomicU64,
}

#[derive(Deserialize)]
struct CountConfig {
    #[serde(default = "one")]
    step: u64,
}

fn one() -> u64 {
    1
}

impl Module for Count {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let total = self.total.fetch_add(self.step, Ordering::Relaxed) + self.step;
        println!("count: event {} makes {total}", delivery.id());
        Ok(Ack::Delivered)
    }
}

impl ConfigModule for Count {
    const NAME: &'static str = "count";
    type Config = CountConfig;

    fn build(config: CountConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        if config.step == 0 {
            return Err("`step` must not be 0".into());
        }
        Ok(Self { step: config.step, total: AtomicU64::new(0) })
    }
}

/// The service: the sender gets a 200 only if this returns `Ok`.
async fn store(delivery: Delivery) -> Result<(), DeliverError> {
    if delivery.body().len() > 1000 {
        return Err(DeliverError::new(DeliverErrorKind::Permanent, "too large for this store"));
    }
    println!("store: {} bytes for {}", delivery.body().len(), delivery.webhook().key());
    Ok(())
}

/// The service has no configuration.
#[derive(Deserialize)]
struct NoConfig {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // One service for all webhooks: they share its limit.
    let store = ServiceBuilder::new().concurrency_limit(8).timeout(Duration::from_secs(5)).service_fn(store);
    let registry = Registry::builtin().module::<Count>().service("store", move |_: NoConfig, _| Ok(store.clone()));

    let source = FixedSource::new()
        .webhook("default", "counted", r#"{"module": "count", "module-config": {"step": 2}}"#)?
        .webhook("default", "stored", r#"{"module": "store"}"#)?;
    let (store, reflector) = reflect(source, registry);
    tokio::spawn(reflector.run());
    store.wait_ready(Duration::from_secs(10)).await?;
    let app = Router::new().fallback_service(receiver(store));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}; try:");
    println!("curl -i {address}/counted -d '{{}}'  # 200, and `count: ... makes 2` here");
    println!("curl -i {address}/stored -d '{{}}'   # 200, and `store: 2 bytes ...` here");
    axum::serve(listener, app).await?;
    Ok(())
}
