//! One attempt of the worker, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use super::metrics;
use crate::base::deadline::within;
use crate::config::WebhookKey;
use crate::delivery::{Failure, Line, lines};
use crate::event::{DeliverError, DeliverErrorKind, Done, EventId};
use crate::queue::{Queue, State, StoredEvent, Ticket};
use crate::webhook::Webhook;

/// What came of an attempt.
pub(super) enum Outcome {
    Delivered,
    /// It failed, and there is another.
    Again(State, Duration),
    /// It failed, and there is no other.
    Dead(EventId, State, DeliverError),
    /// It could not be made yet.
    NotYet(Duration),
}

/// One attempt at an event, within the deadline.
pub(super) async fn attempt_once(
    queue: &Queue,
    ticket: &Ticket,
    event: StoredEvent,
    webhook: Arc<Webhook>,
    state: &State,
    deadline: Duration,
) -> Outcome {
    let (id, attempt) = (event.id, state.attempts + 1);
    let mut done = Done::from_bits(state.done);
    if webhook.steps().is_chain() {
        // What one of several has taken is not given to it again, whatever happens to the rest.
        let (queue, ticket, attempts) = (queue.clone(), ticket.clone(), state.attempts);
        done = done.on_mark(move |done| queue.backend().note(&ticket, State { attempts, done: done.bits() }));
    }
    let delivery = event.into_delivery(Arc::clone(webhook.info()), attempt);
    let tried = within(deadline, webhook.steps().attempt(delivery, &done)).await;
    let Failure { error, again } = match tried {
        Some(Ok(())) => {
            tracing::debug!(event_id = %id, webhook = %webhook.key(), attempt, "delivered");
            return Outcome::Delivered;
        }
        Some(Err(failure)) => failure,
        None => webhook.steps().overdue(attempt, &done),
    };
    let kind = error.kind().label();
    metrics::attempted(kind, 1);
    let state = State { attempts: attempt, done: done.bits() };
    let Some(wait) = again else { return give_up(id, webhook.key(), state, error) };
    if let Some(left_out) = lines::admit(webhook.key(), Line::Again(error.kind())) {
        tracing::info!(event_id = %id, webhook = %webhook.key(), attempt, kind, %error, ?wait, left_out, "not delivered: it is tried again");
    }
    Outcome::Again(state, wait)
}

pub(super) fn give_up(id: EventId, webhook: &WebhookKey, state: State, error: DeliverError) -> Outcome {
    if let Some(left_out) = lines::admit(webhook, Line::Dead(error.kind())) {
        let (attempts, kind) = (state.attempts, error.kind().label());
        tracing::error!(event_id = %id, %webhook, attempts, kind, module = error.module(), %error, left_out, "not delivered: it is a dead letter now");
    }
    Outcome::Dead(id, state, error)
}

/// The webhook is not configured any more.
pub(super) fn orphan(id: EventId, webhook: &WebhookKey, state: State) -> Outcome {
    lines::orphan(webhook);
    let error = DeliverError::new(DeliverErrorKind::Config, "there is no such webhook any more");
    Outcome::Dead(id, state, error)
}
