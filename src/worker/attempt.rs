//! One attempt of the worker, and its outcome.

use std::sync::Arc;
use std::time::Duration;

use super::metrics;
use crate::config::WebhookKey;
use crate::delivery::{Failure, Line, Reports, lines, try_once};
use crate::event::{DeliverError, DeliverErrorKind, EventId, Tracker};
use crate::history::{History, Outcome as Settled};
use crate::queue::{Queue, State, StoredEvent, Ticket};
use crate::webhook::Webhook;

/// The outcome of an attempt.
pub(super) enum Outcome {
    Delivered,
    /// The attempt failed with an error of this kind. The next one follows after this wait.
    Again(State, Duration, DeliverErrorKind),
    /// The attempt failed, and no other follows.
    Dead(EventId, State, DeliverError),
    /// The attempt could not be made yet.
    NotYet(Duration),
}

/// Makes one attempt to deliver an event, within the deadline.
pub(super) async fn attempt_once(
    queue: &Queue,
    ticket: &Ticket,
    event: StoredEvent,
    webhook: &Webhook,
    state: &State,
    history: Option<&History>,
    deadline: Duration,
) -> Outcome {
    let (id, attempt, received_at) = (event.id, state.attempts + 1, event.received_at);
    let reports = history.map(|history| Reports::of_worker(history, id, webhook.key(), webhook.module()));
    let mut tracker = Tracker::resume(state.done);
    if webhook.steps().is_chain() {
        // Each success is stored at once: a module of a chain does not get the event again when another one fails.
        let (queue, ticket, attempts) = (queue.clone(), ticket.clone(), state.attempts);
        tracker = tracker.on_done(move |done| queue.backend().note(&ticket, State { attempts, done }));
    }
    let delivery = event.into_delivery(Arc::clone(webhook.info()), attempt);
    let tried = try_once(webhook.steps(), delivery, &tracker, reports.as_ref(), deadline).await;
    if let Some(reports) = &reports {
        let (outcome, next, error) = match &tried {
            Ok(()) => (Settled::Delivered, None, None),
            Err(Failure { error, again: None }) => (Settled::Failed, None, Some(error)),
            Err(Failure { error, again }) => (Settled::Waiting, *again, Some(error)),
        };
        reports.settle(outcome, next, error);
    }
    let Err(Failure { error, again }) = tried else {
        tracing::debug!(event_id = %id, webhook = %webhook.key(), attempt, "delivered");
        metrics::delivered(received_at);
        return Outcome::Delivered;
    };
    let kind = error.kind().label();
    metrics::attempted(kind, 1);
    let state = State { attempts: attempt, done: tracker.progress() };
    let Some(wait) = again else { return give_up(id, webhook.key(), state, error) };
    if let Some(left_out) = lines::admit(webhook.key(), Line::Again(error.kind())) {
        tracing::info!(event_id = %id, webhook = %webhook.key(), attempt, kind, %error, ?wait, left_out, "not delivered: it is tried again");
    }
    Outcome::Again(state, wait, error.kind())
}

/// Reports an attempt that reached no module, and after which the event is given up.
pub(super) fn report_given_up(
    history: Option<&History>,
    id: EventId,
    webhook: &WebhookKey,
    module: Arc<str>,
    state: &State,
    error: &DeliverError,
) {
    if let Some(history) = history {
        let reports = Reports::of_worker(history, id, webhook, module);
        reports.begin(state.attempts);
        reports.settle(Settled::Failed, None, Some(error));
    }
}

/// Logs that the event becomes a dead letter.
pub(super) fn give_up(id: EventId, webhook: &WebhookKey, state: State, error: DeliverError) -> Outcome {
    if let Some(left_out) = lines::admit(webhook, Line::Dead(error.kind())) {
        let (attempts, kind) = (state.attempts, error.kind().label());
        tracing::error!(event_id = %id, %webhook, attempts, kind, module = error.module(), %error, left_out, "not delivered: it is a dead letter now");
    }
    Outcome::Dead(id, state, error)
}

/// Gives up an event whose webhook is not configured any more.
pub(super) fn orphan(id: EventId, webhook: &WebhookKey, state: State, history: Option<&History>) -> Outcome {
    lines::orphan(webhook);
    let error = DeliverError::new(DeliverErrorKind::Config, "the webhook is not configured any more");
    report_given_up(history, id, webhook, "".into(), &State { attempts: state.attempts + 1, ..state }, &error);
    Outcome::Dead(id, state, error)
}
