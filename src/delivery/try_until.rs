//! Delivers an event: in one attempt, or in several until it is delivered or its sender's patience is over.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::lines::Line;
use super::{Crowded, Failure, Gates, Reports, Steps, lines};
use crate::base::deadline::within;
use crate::event::{DeliverError, DeliverErrorKind, Delivery, Tracker};
use crate::history::Outcome;
use crate::request::RejectionKind;

/// The default time limit of a delivery: 30 seconds. See [`Dispatch`](crate::layers::Dispatch).
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// The reason for which an event was not delivered while its sender waited.
#[derive(Debug)]
pub(crate) enum NotDelivered {
    /// Too many events of the webhook or of its namespace are being delivered, and too many others wait.
    Crowded,
    /// The last attempt failed, or the sender's patience was over.
    Failed(DeliverError),
}

impl NotDelivered {
    /// The refusal that the event's sender gets.
    pub(crate) fn refusal(&self) -> RejectionKind {
        match self {
            Self::Crowded => RejectionKind::Crowded,
            Self::Failed(error) => match error.kind() {
                DeliverErrorKind::Io => RejectionKind::DeliveryUnavailable,
                DeliverErrorKind::Timeout => RejectionKind::DeliveryTimeout,
                DeliverErrorKind::Loop => RejectionKind::LoopDetected,
                _ => RejectionKind::DeliveryFailed,
            },
        }
    }
}

/// Makes one attempt, which may take no longer than `deadline`.
pub(crate) async fn try_once(
    steps: &Steps,
    delivery: Delivery,
    tracker: &Tracker,
    reports: Option<&Reports>,
    deadline: Duration,
) -> Result<(), Failure> {
    let attempt = delivery.attempt();
    let tried = within(deadline, steps.attempt(&delivery, tracker, reports)).await;
    tried.unwrap_or_else(|| Err(steps.overdue(attempt, tracker)))
}

/// Makes attempts until the event is delivered, no other attempt follows, or the `patience` of its sender is over.
pub(crate) async fn try_until(
    steps: &Steps,
    gates: &Gates,
    delivery: &Delivery,
    reports: Option<&Reports>,
    patience: Duration,
) -> Result<(), NotDelivered> {
    let _pass = gates.enter().await.map_err(|Crowded| NotDelivered::Crowded)?;
    let tracker = Tracker::default();
    let error = match within(patience, attempts(steps, delivery, &tracker, reports, patience)).await {
        Some(Ok(())) => {
            report(reports, Outcome::Delivered, None, None);
            tracing::debug!(event_id = %delivery.id(), webhook = %delivery.webhook().key(), "delivered");
            return Ok(());
        }
        Some(Err(error)) => error,
        None => steps.too_slow(&tracker),
    };
    report(reports, Outcome::Failed, None, Some(&error));
    let (event_id, webhook) = (delivery.id(), delivery.webhook().key());
    if let Some(left_out) = lines::admit(webhook, Line::NotDelivered(error.kind())) {
        let (module, kind) = (error.module().unwrap_or(steps.module_name()), error.kind().label());
        tracing::warn!(%event_id, %webhook, module, kind, %error, left_out, "not delivered");
    }
    Err(NotDelivered::Failed(error))
}

/// Makes attempts without a time limit of its own, but begins no wait that would end after `patience`. Returns the error
/// of the last attempt.
async fn attempts(
    steps: &Steps,
    delivery: &Delivery,
    tracker: &Tracker,
    reports: Option<&Reports>,
    patience: Duration,
) -> Result<(), DeliverError> {
    // Most webhooks retry nothing and need no clock here.
    let began = steps.may_follow(1).then(Instant::now);
    let mut delivery = delivery.clone();
    let mut attempt = 1;
    while steps.may_follow(attempt) {
        delivery = delivery.attempted(attempt);
        let Failure { error, again } = match steps.attempt(&delivery, tracker, reports).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let has_time = |wait: &Duration| began.is_some_and(|began| began.elapsed().saturating_add(*wait) < patience);
        let Some(wait) = again.filter(has_time) else { return Err(error) };
        report(reports, Outcome::Waiting, Some(wait), Some(&error));
        let (event_id, webhook) = (delivery.id(), delivery.webhook().key());
        if let Some(left_out) = lines::admit(webhook, Line::Again(error.kind())) {
            tracing::info!(%event_id, %webhook, attempt, %error, ?wait, left_out, "trying again");
        }
        attempt += 1;
        Box::pin(sleep(wait)).await;
    }
    delivery = delivery.attempted(attempt);
    steps.attempt(&delivery, tracker, reports).await.map_err(|failure| failure.error)
}

fn report(reports: Option<&Reports>, outcome: Outcome, next: Option<Duration>, error: Option<&DeliverError>) {
    if let Some(reports) = reports {
        reports.settle(outcome, next, error);
    }
}
