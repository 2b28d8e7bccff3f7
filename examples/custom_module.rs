//! Modules from outside the crate: one by the trait, one that is a tower service with middleware around it.
//!
//! A module is tested without a server: [`BuildContext::bare`] stands in for the compiler, and [`Delivery::new`] makes
//! the events.
//!
//! ```
//! let webhook = WebhookInfo::new(WebhookKey::new("shop", "orders")?, DataType::Json);
//! let count = Count::build(CountConfig { step: 2 }, &BuildContext::bare(webhook.key()))?;
//! let outcome = count.deliver(Delivery::new(webhook, HeaderMap::new(), "{}")).await;
//! assert_eq!(outcome.unwrap(), Ack::Delivered);
//! ```
//!
//! `cargo run --example custom_module`

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde::Deserialize;
use tower::{ServiceBuilder, ServiceExt};
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::Module;
use tower_webhook::{BuildContext, BuildError, FixedSource, Registry, receiver, reflect};

/// Counts events by the trait [`Module`]: it has a configuration of its own, checked when a webhook is configured.
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
    const NAME: &'static str = "count";

    type Config = CountConfig;

    fn build(config: CountConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        if config.step == 0 {
            return Err("`step` must not be 0".into());
        }
        Ok(Self { step: config.step, total: AtomicU64::new(0) })
    }

    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let total = self.total.fetch_add(self.step, Ordering::Relaxed) + self.step;
        println!("count: event {} makes {total}", delivery.id());
        Ok(Ack::Delivered)
    }
}

/// What the service below does with an event: the answer is 200 only if this is `Ok`.
async fn store(delivery: Delivery) -> Result<(), DeliverError> {
    if delivery.body().len() > 1000 {
        return Err(DeliverError::new(DeliverErrorKind::Permanent, "too large for this store"));
    }
    println!("store: {} bytes for {}", delivery.body().len(), delivery.webhook().key());
    Ok(())
}

/// Nothing can be said to the service.
#[derive(Deserialize)]
struct NoConfig {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // One service for all webhooks: they share its limit.
    let store = ServiceBuilder::new().concurrency_limit(8).timeout(Duration::from_secs(5)).service_fn(store);
    let registry = Registry::builtin()
        .module::<Count>()
        .service("store", move |_: NoConfig, _: &BuildContext<'_>| Ok(store.clone()));

    let source = FixedSource::new()
        .webhook("default", "counted", r#"{"module": "count", "module-config": {"step": 2}}"#)?
        .webhook("default", "stored", r#"{"module": "store", "retry": {"enabled": true}}"#)?;
    let (store, reflector) = reflect(source, registry);
    tokio::spawn(reflector.run());
    store.wait_ready().await;

    let receiver = receiver(store);
    for (path, body) in [("/counted", "{}".into()), ("/stored", "{}".into()), ("/stored", format!("{:2000}", 1))] {
        let request = Request::post(path).body(Body::from(body))?;
        let response = receiver.clone().oneshot(request).await?;
        println!("{path}: {}", response.status());
    }
    Ok(())
}
