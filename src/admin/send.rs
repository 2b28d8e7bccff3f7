//! An event of an operator: a test, or the copy of an earlier event. It is delivered past the guards and past `dedup`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::state::State;
use crate::delivery::{NotDelivered, Reports, try_until};
use crate::event::{Delivery, EventId};
use crate::history::{Body, Entry, Kept, Outcome, Received};
use crate::queue::{Accepted, Offer};
use crate::request::{Rejection, RejectionKind};
use crate::webhook::{Promise, Webhook};

/// What became of such an event.
pub(super) struct Sent {
    pub(super) id: EventId,
    pub(super) outcome: Outcome,
    pub(super) status: StatusCode,
    pub(super) kind: Option<&'static str>,
    pub(super) reason: Option<String>,
}

/// Delivers an event to its webhook, or puts it into the queue, as the webhook asks for. The history records it with the
/// `path` that brought it.
pub(super) async fn send(state: &State, webhook: &Arc<Webhook>, headers: HeaderMap, body: Bytes, path: &str) -> Sent {
    let (at, began) = (SystemTime::now(), Instant::now());
    let (kept_headers, kept_body) = (headers.clone(), body.clone());
    let delivery = Delivery::new(Arc::clone(webhook.info()), headers, body);
    let sent = match webhook.promise() {
        Promise::Accepted => accept(state, &delivery).await,
        Promise::Delivered => deliver(state, webhook, delivery).await,
    };
    let (headers, body) = match webhook.history() {
        Kept::Full => (kept_headers, Body::Whole(kept_body)),
        Kept::Metadata => (HeaderMap::new(), Body::Left(kept_body.len() as u64)),
        Kept::None => return sent,
    };
    if let Some(history) = &state.history {
        history.record(Entry::Received(Box::new(Received {
            id: sent.id,
            at,
            webhook: webhook.key().clone(),
            module: webhook.module(),
            data_type: webhook.data_type(),
            revision: state.store.read(|snapshot| snapshot.revision()),
            is_accepted: webhook.promise() == Promise::Accepted,
            peer: None,
            method: Method::POST,
            path: path.into(),
            headers,
            body,
            outcome: sent.outcome,
            status: sent.status,
            duration: began.elapsed(),
            kind: sent.kind,
            reason: sent.reason.as_deref().map(Box::from),
            dedup: None,
            secrets: Vec::new(),
            steps: Vec::new(),
        })));
    }
    sent
}

async fn accept(state: &State, delivery: &Delivery) -> Sent {
    let id = delivery.id();
    let Some(queue) = &state.queue else {
        let reason = Some("the admin service does not have the queue of this webhook".to_owned());
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Sent { id, outcome: Outcome::Failed, status, kind: Some("queue_failed"), reason };
    };
    let written = match queue.backend().accept(Offer::new(delivery, state.deadline)) {
        Ok(written) => written.await,
        Err(error) => Err(error),
    };
    match written {
        Ok(Accepted::Stored) => {
            Sent { id, outcome: Outcome::Waiting, status: StatusCode::ACCEPTED, kind: None, reason: None }
        }
        Err(error) => {
            let kind = error.refusal();
            failed(id, kind, kind.label())
        }
    }
}

async fn deliver(state: &State, webhook: &Webhook, delivery: Delivery) -> Sent {
    let id = delivery.id();
    let history = state.history.as_ref().filter(|_| webhook.history() != Kept::None);
    let reports = history.map(|history| Reports::of_sender(history, id, webhook.key(), webhook.module()));
    match try_until(webhook.steps(), webhook.gates(), &delivery, reports.as_ref(), state.deadline).await {
        Ok(()) => Sent { id, outcome: Outcome::Delivered, status: StatusCode::OK, kind: None, reason: None },
        Err(not_delivered) => {
            let refusal = not_delivered.refusal();
            match not_delivered {
                NotDelivered::Crowded => failed(id, refusal, refusal.label()),
                NotDelivered::Failed(error) => {
                    Sent { reason: Some(error.to_string()), ..failed(id, refusal, error.kind().label()) }
                }
            }
        }
    }
}

/// An event that got the answer of this refusal.
fn failed(id: EventId, refusal: RejectionKind, kind: &'static str) -> Sent {
    let reason = Some(Rejection::new(refusal).detail().to_owned());
    Sent { id, outcome: Outcome::Failed, status: refusal.status(), kind: Some(kind), reason }
}
