//! Entries for tests.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::config::{DataType, WebhookKey};
use crate::event::{Answer, DeliverErrorKind, Stamp};
use crate::history::{Attempt, Body, Outcome, Received};

/// A delivered event with a small body.
pub(super) fn received(namespace: &str, webhook: &str, stamp: Stamp) -> Received {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    Received {
        id: stamp.id,
        at: stamp.at,
        webhook: WebhookKey::new(namespace, webhook).unwrap(),
        module: "log".into(),
        data_type: DataType::Json,
        revision: 7,
        is_accepted: false,
        peer: Some([203, 0, 113, 9].into()),
        method: Method::POST,
        path: format!("/webhook/{namespace}/{webhook}").into(),
        headers,
        body: Body::Whole(Bytes::from_static(br#"{"hello": "world"}"#)),
        outcome: Outcome::Delivered,
        status: StatusCode::OK,
        duration: Duration::from_millis(3),
        kind: None,
        reason: None,
        dedup: None,
        secrets: Vec::new(),
        steps: Vec::new(),
    }
}

/// An attempt; it failed unless the outcome is `Delivered`.
pub(super) fn attempt(namespace: &str, webhook: &str, stamp: Stamp, number: u32, outcome: Outcome) -> Attempt {
    let error = (DeliverErrorKind::Connect, "the target refused the connection".into());
    Attempt {
        event: stamp.id,
        webhook: WebhookKey::new(namespace, webhook).unwrap(),
        number,
        at: stamp.at + Duration::from_millis(number.into()),
        duration: Duration::from_millis(2),
        module: "log".into(),
        item: None,
        error: (outcome != Outcome::Delivered).then_some(error),
        answer: Some(Answer { status: 204, body: Bytes::new() }),
        outcome,
        next: None,
    }
}
