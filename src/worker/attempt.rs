//! One attempt of the worker, and what follows from it.
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::base::deadline::within;
use crate::config::WebhookKey;
use crate::delivery::{Failure, Line, lines};
use crate::event::{DeliverError, DeliverErrorKind, Done, EventId};
use crate::queue::disk::{Again, Death, Event, Spool, State, Ticket, measure};
use crate::webhook::Webhook;

/// What came of an attempt.
pub(super) enum Outcome {
    Delivered,
    /// It failed, and there is another.
    Again(State, Duration),
    /// It failed, and there is no other.
    Dead(EventId, State),
    /// It could not be made yet.
    NotYet(Duration),
}

/// One attempt at an event, within the deadline.
pub(super) async fn attempt_once(
    spool: &Spool,
    ticket: &Ticket,
    event: Event,
    webhook: Arc<Webhook>,
    state: &State,
    deadline: Duration,
) -> Outcome {
    let (id, attempt) = (event.id, state.attempts + 1);
    let mut done = Done::from_bits(state.done);
    if webhook.steps().is_chain() {
        // What one of several has taken is not given to it again, whatever happens to the rest.
        let (spool, ticket, attempts) = (spool.clone(), ticket.clone(), state.attempts);
        done = done.on_mark(move |done| {
            spool.note(&ticket, State { attempts, done: done.bits(), ..State::default() });
        });
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
    measure::attempted(kind, 1);
    match again {
        Some(wait) => {
            if let Some(left_out) = lines::admit(webhook.key(), Line::Again(error.kind())) {
                tracing::info!(event_id = %id, webhook = %webhook.key(), attempt, kind, %error, ?wait, left_out, "not delivered: it is tried again");
            }
            let again = Some(Again { at: spool.clock().for_stamps() + wait, wait });
            Outcome::Again(State { attempts: attempt, done: done.bits(), again, dead: None }, wait)
        }
        None => give_up(spool.clock().for_stamps(), id, webhook.key(), attempt, done.bits(), &error),
    }
}

pub(super) fn give_up(
    at: SystemTime,
    id: EventId,
    webhook: &WebhookKey,
    attempts: u32,
    done: u64,
    error: &DeliverError,
) -> Outcome {
    if let Some(left_out) = lines::admit(webhook, Line::Dead(error.kind())) {
        let kind = error.kind().label();
        tracing::error!(event_id = %id, %webhook, attempts, kind, module = error.module(), %error, left_out, "not delivered: it is a dead letter now");
    }
    dead(at, id, attempts, done, error)
}

/// The webhook is not configured any more.
pub(super) fn orphan(at: SystemTime, id: EventId, webhook: &WebhookKey, state: &State) -> Outcome {
    lines::orphan(webhook);
    let error = DeliverError::new(DeliverErrorKind::Config, "there is no such webhook any more");
    dead(at, id, state.attempts, state.done, &error)
}

fn dead(at: SystemTime, id: EventId, attempts: u32, done: u64, error: &DeliverError) -> Outcome {
    let death = Death { at, here: Some(Instant::now()), kind: error.kind(), reason: error.to_string().into() };
    Outcome::Dead(id, State { attempts, done, again: None, dead: Some(Box::new(death)) })
}
