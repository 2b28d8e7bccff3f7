//! Unit tests of an application's module: they need no store, receiver or server.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tower_webhook::config::{BuildContext, BuildError, DataType, WebhookInfo, WebhookKey};
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::{ConfigModule, Module};

/// Accepts events of at most `most` bytes, from the second attempt on, for webhooks whose metadata names a tenant.
struct Picky {
    most: usize,
}

#[derive(Deserialize)]
struct PickyConfig {
    most: usize,
}

impl Module for Picky {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let fails = |kind, reason| Err(DeliverError::new(kind, reason));
        let tenant = delivery.webhook().metadata().and_then(|metadata| metadata["tenant"].as_str());
        match (tenant, delivery.attempt()) {
            (None, _) => fails(DeliverErrorKind::Config, "no tenant"),
            (_, 1) => fails(DeliverErrorKind::Unavailable, "it is starting"),
            _ if delivery.body().len() > self.most => fails(DeliverErrorKind::Permanent, "too large"),
            _ if !delivery.headers().contains_key("x-shop") => fails(DeliverErrorKind::Auth, "no shop"),
            _ => Ok(Ack::Delivered),
        }
    }
}

impl ConfigModule for Picky {
    const NAME: &'static str = "picky";
    type Config = PickyConfig;

    fn build(PickyConfig { most }: PickyConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        match (cx.webhook().namespace(), cx.data_type()) {
            ("shop", DataType::Json) => Ok(Self { most }),
            _ => Err("it is for JSON of the shop".into()),
        }
    }
}

#[test]
fn it_is_built_without_a_store() {
    let build = |namespace: &str| {
        let key = WebhookKey::new(namespace, "orders").unwrap();
        let cx = BuildContext::bare(&key);
        cx.warn("nobody reads this");
        Picky::build(PickyConfig { most: 4 }, &cx).map(|module| module.most).map_err(|error| error.to_string())
    };
    assert_eq!(build("shop"), Ok(4));
    assert_eq!(build("elsewhere"), Err("it is for JSON of the shop".into()));
}

#[tokio::test]
async fn it_takes_deliveries_that_the_test_makes() {
    let webhook = || WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
    let known = || webhook().with_metadata(serde_json::json!({"tenant": "a"}));
    let headers = HeaderMap::from_iter([("x-shop".parse().unwrap(), HeaderValue::from_static("1"))]);
    let module = Picky { most: 4 };
    for (delivery, expected) in [
        (Delivery::new(webhook(), headers.clone(), "{}"), Err(DeliverErrorKind::Config)),
        (Delivery::new(known(), headers.clone(), "{}"), Err(DeliverErrorKind::Unavailable)),
        (Delivery::new(known(), headers.clone(), "[1, 2]").attempted(2), Err(DeliverErrorKind::Permanent)),
        (Delivery::new(known(), HeaderMap::new(), "{}").attempted(2), Err(DeliverErrorKind::Auth)),
        (Delivery::new(known(), headers, "{}").attempted(2), Ok(Ack::Delivered)),
    ] {
        assert!(delivery.received_at().elapsed().is_ok_and(|age| age < Duration::from_secs(60)));
        assert_eq!(delivery.id().to_string().len(), 36);
        assert_eq!(module.deliver(delivery).await.map_err(|error| error.kind()), expected);
    }
}
