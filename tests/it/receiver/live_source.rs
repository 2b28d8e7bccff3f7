//! A configuration that the program changes while requests are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_webhook::config::{Key, WebhookKey};
use tower_webhook::source::FixedSource;
use tower_webhook::{Change, Receiver, Registry, receiver, reflect};

use crate::support::{PATIENCE, ask, eventually, within};

fn guarded(token: &str) -> String {
    format!(r#"{{"module": "discard", "authorization": "Bearer {token}"}}"#)
}

async fn status(receiver: &Receiver, id: &str, token: &str) -> u16 {
    let request = Request::post(format!("/shop/{id}")).header("authorization", format!("Bearer {token}"));
    ask(receiver, request.body(Full::new(Bytes::from("{}"))).unwrap()).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_changes_its_webhooks_while_requests_run() {
    let (source, handle) = FixedSource::new().webhook("shop", "always", guarded("first-token")).unwrap().live();
    let (store, reflector) = reflect(source, Registry::builtin());
    tokio::spawn(reflector.run());
    store.wait_ready(PATIENCE).await.unwrap();
    let receiver = receiver(store.clone());
    let seen = async |revision| assert!(within("the change", store.wait_for_revision(revision)).await);

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let traffic = tokio::spawn({
        let (receiver, stop, served) = (receiver.clone(), Arc::clone(&stop), Arc::clone(&served));
        async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(status(&receiver, "always", "first-token").await, 200);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    eventually("requests run", async || served.load(Ordering::Relaxed) > 0).await;

    assert_eq!(status(&receiver, "orders", "first-token").await, 404);
    seen(handle.put_webhook("shop", "orders", guarded("first-token")).await.unwrap()).await;
    assert_eq!(status(&receiver, "orders", "first-token").await, 200);

    seen(handle.put_webhook("shop", "orders", guarded("second-token")).await.unwrap()).await;
    assert_eq!(status(&receiver, "orders", "first-token").await, 401, "the old token is revoked");
    assert_eq!(status(&receiver, "orders", "second-token").await, 200);

    seen(handle.put_webhook("shop", "orders", "{").await.unwrap()).await;
    assert_eq!(status(&receiver, "orders", "second-token").await, 200, "the last good value serves");
    assert_eq!(status(&receiver, "orders", "first-token").await, 401);
    assert_eq!(store.snapshot().counts().refused, 1);

    let other = Key::Webhook(WebhookKey::new("shop", "refunds").unwrap());
    let orders = Key::Webhook(WebhookKey::new("shop", "orders").unwrap());
    let moved = [
        Change { key: orders.clone(), value: None },
        Change { key: other, value: Some(guarded("third-token").into()) },
    ];
    seen(handle.apply(moved).await.unwrap()).await;
    assert_eq!(status(&receiver, "orders", "second-token").await, 404);
    assert_eq!(status(&receiver, "refunds", "third-token").await, 200);

    seen(handle.remove_webhook("shop", "refunds").await.unwrap()).await;
    assert_eq!(status(&receiver, "refunds", "third-token").await, 404);
    assert_eq!(store.snapshot().counts().refused, 0);

    drop(handle);
    let before = served.load(Ordering::Relaxed);
    eventually("requests run without the handle", async || served.load(Ordering::Relaxed) > before).await;
    stop.store(true, Ordering::Relaxed);
    within("the traffic", traffic).await.unwrap();
}
