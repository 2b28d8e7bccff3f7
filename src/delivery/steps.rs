//! The modules of a webhook, and one attempt to deliver an event to them.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::lines::Line;
use super::metrics::Series;
use super::plan::Execution;
use super::{Cleanup, Plan, Reports, Retry, lines};
use crate::event::{DeliverError, DeliverErrorKind, Delivery, Tracker};
use crate::module::ErasedModule;

/// The modules that a webhook delivers its events to.
pub(crate) struct Steps {
    steps: Box<[Step]>,
    plan: Plan,
    cleanup: Option<Arc<Cleanup>>,
    /// Identifies these steps. The steps of another configuration have another identity.
    identity: [u8; 8],
}

/// One module, with its retry rule.
pub(crate) struct Step {
    name: Arc<str>,
    module: Box<dyn ErasedModule>,
    retry: Retry,
    series: Arc<Series>,
}

/// A failed attempt: after it, at least one step is not done.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error. If several steps failed, the error of the first one.
    pub(crate) error: DeliverError,
    /// How long to wait before the next attempt; `None` if there is none.
    pub(crate) again: Option<Duration>,
}

impl Steps {
    /// Takes at most [`MAX_STEPS`](crate::event::MAX_STEPS) steps.
    pub(crate) fn new(steps: Vec<Step>, plan: Plan, cleanup: Option<Cleanup>, identity: [u8; 8]) -> Self {
        Self { steps: steps.into(), plan, cleanup: cleanup.map(Arc::new), identity }
    }

    /// The name of the first module.
    pub(crate) fn module_name(&self) -> &str {
        self.steps.first().map_or("", |step| &step.name)
    }

    /// The modules in order: the name and the target of each.
    #[cfg(feature = "admin")]
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        self.steps.iter().map(|step| (&*step.name, step.module.target()))
    }

    /// Whether the received header field `name` changes what any of the modules delivers. A field that the cleanup masks or
    /// removes does not.
    #[cfg(feature = "admin")]
    pub(crate) fn use_header(&self, name: &http::HeaderName) -> bool {
        let is_cleaned = self.cleanup.as_ref().is_some_and(|cleanup| cleanup.cleans(name));
        !is_cleaned && self.steps.iter().any(|step| step.module.uses_header(name))
    }

    /// The name of the first module, shared.
    pub(crate) fn module(&self) -> Arc<str> {
        self.steps.first().map_or_else(|| "".into(), |step| Arc::clone(&step.name))
    }

    /// Whether there is more than one step.
    pub(crate) fn is_chain(&self) -> bool {
        self.steps.len() > 1
    }

    /// Whether another attempt may follow attempt number `attempt`.
    pub(crate) fn may_follow(&self, attempt: u32) -> bool {
        self.steps.iter().any(|step| step.retry.may_follow(attempt))
    }

    /// Makes one attempt at every step that is neither done nor given up. If the future is dropped, each step is either done
    /// or not done.
    pub(crate) async fn attempt(
        &self,
        delivery: &Delivery,
        tracker: &Tracker,
        reports: Option<&Reports>,
    ) -> Result<(), Failure> {
        tracker.begin(self.identity);
        if let Some(reports) = reports {
            reports.begin(delivery.attempt());
        }
        let cleaned;
        let delivery = match &self.cleanup {
            None => delivery,
            Some(cleanup) => {
                let clean = Box::pin(cleanup.clean(delivery.clone())).await;
                cleaned = clean.map_err(|error| Failure { error, again: None })?;
                &cleaned
            }
        };
        let ends = self.plan.timeout.map(|timeout| Instant::now() + timeout);
        let attempt = Attempt { delivery, tracker, reports, ends };
        let failed = match self.plan.execution {
            // Not in a function of its own, so that the future of the common case stays small.
            Execution::Sequential => {
                let mut failed = Vec::new();
                for step in self.open(tracker) {
                    failed.extend(self.deliver(step, &attempt).await);
                    if self.plan.stops && !failed.is_empty() {
                        break;
                    }
                }
                failed
            }
            // Boxed for the same reason.
            Execution::Parallel => Box::pin(self.in_parallel(&attempt)).await,
        };
        let progress = tracker.progress();
        if (0..self.steps.len()).all(|step| progress.is_done(step)) {
            return Ok(());
        }
        let again = failed.iter().filter_map(|failed| failed.again).max();
        let errors = failed.into_iter().map(|failed| (failed.step, failed.error)).chain(tracker.given_up());
        let first = errors.min_by_key(|&(step, _)| step);
        Err(Failure { error: first.map_or_else(given_up_before, |(_, error)| error), again })
    }

    /// The error of an attempt that was cut short because it took too long.
    pub(crate) fn too_slow(&self, tracker: &Tracker) -> DeliverError {
        let error = DeliverError::new(DeliverErrorKind::Timeout, "no answer in time");
        match tracker.under_way() {
            Some(at) => self.with_step(at, error),
            None => error,
        }
    }

    /// The failure of an attempt that was cut short because it took too long.
    pub(crate) fn overdue(&self, attempt: u32, tracker: &Tracker) -> Failure {
        let error = self.too_slow(tracker);
        let under_way = match self.plan.execution {
            Execution::Sequential => 1,
            Execution::Parallel => self.steps.len(),
        };
        let progress = tracker.progress();
        let mut longest = None;
        for step in (0..self.steps.len()).filter(|&step| progress.is_open(step)).take(under_way) {
            let again = self.steps[step].retry.next(attempt, &error);
            if again.is_none() {
                tracker.give_up(step, &error);
            }
            longest = longest.max(again);
        }
        Failure { error, again: longest }
    }

    async fn in_parallel(&self, attempt: &Attempt<'_>) -> Vec<Failed> {
        let each = self.open(attempt.tracker).map(|step| self.deliver(step, attempt));
        let mut running: FuturesUnordered<_> = each.collect();
        let mut failed = Vec::new();
        while let Some(outcome) = running.next().await {
            failed.extend(outcome);
            if self.plan.stops && !failed.is_empty() {
                break;
            }
        }
        failed
    }

    /// The steps to try. They depend only on the progress before this attempt, so that the outcome of one step in this
    /// attempt does not add another.
    fn open(&self, tracker: &Tracker) -> impl Iterator<Item = usize> + use<> {
        let (progress, all) = (tracker.progress(), 0..self.steps.len());
        let is_over = self.plan.stops && all.clone().any(|step| progress.is_given_up(step));
        all.filter(move |&step| !is_over && progress.is_open(step))
    }

    /// Tries one step; `None` if it took the event.
    async fn deliver(&self, at: usize, attempt: &Attempt<'_>) -> Option<Failed> {
        let &Attempt { delivery, tracker, reports, ends } = attempt;
        if ends.is_some_and(|ends| Instant::now() >= ends) {
            // A step that was not reached has used up no attempt.
            return Some(self.failed(at, too_late(), attempt));
        }
        tracker.began(at);
        let report = reports.map(|reports| reports.step(self.is_chain().then_some(at), &self.steps[at].name));
        let delivery = match &report {
            None => delivery.clone(),
            Some(report) => delivery.clone().answering(Arc::clone(report) as _),
        };
        let running = self.steps[at].deliver(delivery);
        let outcome = match ends {
            None => running.await,
            Some(ends) => Box::pin(timeout_at(ends, running)).await.unwrap_or_else(|_| Err(too_late())),
        };
        tracker.ended(at);
        if let Some(report) = report {
            report.ended(outcome.as_ref().err());
        }
        let Err(error) = outcome else {
            tracker.done(at);
            return None;
        };
        let failed = self.failed(at, error, attempt);
        if failed.again.is_none() {
            tracker.give_up(at, &failed.error);
        }
        Some(failed)
    }

    /// Decides whether a step that failed is tried again.
    fn failed(&self, at: usize, error: DeliverError, attempt: &Attempt<'_>) -> Failed {
        let again = self.steps[at].retry.next(attempt.delivery.attempt(), &error);
        let failed = Failed { step: at, error: self.with_step(at, error), again };
        if self.is_chain() {
            failed.log(attempt.delivery);
        }
        failed
    }

    /// Adds the step to the error, if the step is an item of a chain.
    fn with_step(&self, at: usize, error: DeliverError) -> DeliverError {
        match self.steps.get(at).filter(|_| self.is_chain()) {
            Some(step) => error.in_chain(at, &step.name),
            None => error,
        }
    }
}

/// One attempt.
struct Attempt<'a> {
    delivery: &'a Delivery,
    tracker: &'a Tracker,
    reports: Option<&'a Reports>,
    /// The end of its time limit.
    ends: Option<Instant>,
}

/// A step that failed in this attempt.
struct Failed {
    step: usize,
    error: DeliverError,
    again: Option<Duration>,
}

impl Failed {
    /// Logs the failure of an item of a chain.
    fn log(&self, delivery: &Delivery) {
        let (event_id, webhook, attempt) = (delivery.id(), delivery.webhook().key(), delivery.attempt());
        if let Some(left_out) = lines::admit(webhook, Line::Item(self.step)) {
            let Self { error, again, .. } = self;
            tracing::warn!(%event_id, %webhook, attempt, %error, ?again, left_out, "an item failed");
        }
    }
}

fn too_late() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Timeout, "the chain's timeout has passed")
}

fn given_up_before() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Permanent, "an item was given up by an earlier attempt")
}

impl Step {
    pub(crate) fn new(name: Arc<str>, module: Box<dyn ErasedModule>, retry: Retry) -> Self {
        Self { series: Series::of(&name), name, module, retry }
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), DeliverError> {
        // A panic fails this attempt only, not the connection or the worker.
        let attempt = AssertUnwindSafe(async { self.module.deliver(delivery).await }).catch_unwind();
        let timer = self.series.begin();
        let outcome = match attempt.await {
            Ok(outcome) => outcome.map(|_| ()),
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Permanent, "the module panicked")),
        };
        timer.stop(&outcome);
        outcome
    }
}

/// Omits the identity, which depends on the modules' configurations.
impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps")
            .field("steps", &self.steps)
            .field("plan", &self.plan)
            .field("cleanup", &self.cleanup)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("module", &self.name).field("retry", &self.retry).finish_non_exhaustive()
    }
}
