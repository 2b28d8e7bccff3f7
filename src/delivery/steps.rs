//! What is to be done with an event of a webhook.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::lines::Line;
use super::plan::Execution;
use super::{Cleanup, Plan, Retry, lines};
use crate::event::{DeliverError, DeliverErrorKind, Delivery, Done};
use crate::module::ErasedModule;

/// The modules that an event is given to.
pub(crate) struct Steps {
    steps: Box<[Step]>,
    plan: Plan,
    cleanup: Option<Arc<Cleanup>>,
    /// Tells these steps from those of another configuration.
    identity: u64,
}

/// One module of them.
pub(crate) struct Step {
    name: Arc<str>,
    module: Box<dyn ErasedModule>,
    retry: Retry,
}

/// An attempt after which not everything is done.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error; of several, that of the first step.
    pub(crate) error: DeliverError,
    /// How long to wait before what is not done is tried again; `None` if it is not to be.
    pub(crate) again: Option<Duration>,
}

impl Steps {
    /// At most [`MAX_STEPS`](crate::event::MAX_STEPS).
    pub(crate) fn new(steps: Vec<Step>, plan: Plan, cleanup: Option<Cleanup>, identity: u64) -> Self {
        Self { steps: steps.into(), plan, cleanup: cleanup.map(Arc::new), identity }
    }

    /// The name of the first module.
    pub(crate) fn module_name(&self) -> &str {
        self.steps.first().map_or("", |step| &step.name)
    }

    /// Whether the `attempt`th attempt may be followed by another.
    pub(crate) fn may_follow(&self, attempt: u32) -> bool {
        self.steps.iter().any(|step| step.retry.may_follow(attempt))
    }

    /// One attempt at every step that is neither done nor given up. Dropped, it leaves each step either done or not
    /// done.
    pub(crate) async fn attempt(&self, delivery: Delivery, done: &Done) -> Result<(), Failure> {
        done.begin(self.identity);
        let delivery = match &self.cleanup {
            None => delivery,
            Some(cleanup) => Box::pin(cleanup.clean(delivery)).await.map_err(|error| Failure { error, again: None })?,
        };
        let ends = self.plan.timeout.map(|timeout| Instant::now() + timeout);
        let failed = match self.plan.execution {
            Execution::Sequential => self.in_order(delivery, done, ends).await,
            // In a box, so that the usual way stays small.
            Execution::Parallel => Box::pin(self.at_once(delivery, done, ends)).await,
        };
        if (0..self.steps.len()).all(|step| done.is_done(step)) {
            return Ok(());
        }
        let again = failed.iter().filter_map(|failed| failed.again).max();
        let errors = failed.into_iter().map(|failed| (failed.step, failed.error)).chain(done.given_up());
        let first = errors.min_by_key(|&(step, _)| step);
        Err(Failure { error: first.map_or_else(given_up_before, |(_, error)| error), again })
    }

    /// The error of an attempt that was cut short because it took too long.
    pub(crate) fn too_slow(&self, done: &Done) -> DeliverError {
        let error = DeliverError::new(DeliverErrorKind::Timeout, "no answer in time");
        match done.under_way().filter(|_| self.steps.len() > 1) {
            Some(at) => self.of_item(at, error),
            None => error,
        }
    }

    /// The error of an item of a chain, which says whose it is.
    fn of_item(&self, at: usize, error: DeliverError) -> DeliverError {
        match self.steps.get(at) {
            Some(step) => error.of(at, &step.name),
            None => error,
        }
    }

    /// What follows from an attempt that was cut short because it took too long.
    pub(crate) fn overdue(&self, attempt: u32, done: &Done) -> Failure {
        let error = self.too_slow(done);
        let under_way = match self.plan.execution {
            Execution::Sequential => 1,
            Execution::Parallel => self.steps.len(),
        };
        let open = (0..self.steps.len()).filter(|step| !done.is_done(*step) && !done.is_given_up(*step));
        let mut longest = None;
        for step in open.take(under_way) {
            let again = self.steps[step].retry.next(attempt, &error);
            if again.is_none() {
                done.give_up(step, &error);
            }
            longest = longest.max(again);
        }
        Failure { error, again: longest }
    }

    /// Whether there is more than one step.
    pub(crate) fn is_chain(&self) -> bool {
        self.steps.len() > 1
    }

    async fn in_order(&self, delivery: Delivery, done: &Done, ends: Option<Instant>) -> Vec<Failed> {
        let mut failed = Vec::new();
        for step in self.open(done) {
            failed.extend(self.deliver(step, delivery.clone(), done, ends).await);
            if self.plan.stops && !failed.is_empty() {
                break;
            }
        }
        failed
    }

    async fn at_once(&self, delivery: Delivery, done: &Done, ends: Option<Instant>) -> Vec<Failed> {
        let each = self.open(done).map(|step| self.deliver(step, delivery.clone(), done, ends));
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

    /// The steps that are to be tried.
    fn open(&self, done: &Done) -> impl Iterator<Item = usize> + use<> {
        let all = 0..self.steps.len();
        let is_over = self.plan.stops && all.clone().any(|step| done.is_given_up(step));
        // As they are now: what this attempt does to one of them is no reason to try another.
        let open = all.clone().filter(|step| !is_over && !done.is_done(*step) && !done.is_given_up(*step));
        let open = open.fold(0_u32, |open, step| open | 1 << step);
        all.filter(move |step| open >> step & 1 == 1)
    }

    /// Tries one step, and notes what came of it.
    async fn deliver(&self, at: usize, delivery: Delivery, done: &Done, ends: Option<Instant>) -> Option<Failed> {
        let step = &self.steps[at];
        let tried = delivery.clone();
        done.began(at);
        let begun = ends.is_none_or(|ends| Instant::now() < ends);
        let outcome = match ends {
            None => step.deliver(delivery).await,
            Some(ends) if begun => {
                Box::pin(timeout_at(ends, step.deliver(delivery))).await.unwrap_or_else(|_| Err(too_late()))
            }
            Some(_) => Err(too_late()),
        };
        done.ended(at);
        let Err(mut error) = outcome else {
            done.mark(at);
            return None;
        };
        let attempt = tried.attempt();
        let again = step.retry.next(attempt, &error);
        if self.steps.len() > 1 {
            error = self.of_item(at, error);
            let (event_id, webhook) = (tried.id(), tried.webhook().key());
            if let Some(left_out) = lines::admit(webhook, Line::Item(at)) {
                tracing::warn!(%event_id, %webhook, attempt, %error, ?again, left_out, "an item failed");
            }
        }
        // One whose turn never came has used up nothing.
        if again.is_none() && begun {
            done.give_up(at, &error);
        }
        Some(Failed { step: at, error, again })
    }
}

/// A step that failed in this attempt.
struct Failed {
    step: usize,
    error: DeliverError,
    again: Option<Duration>,
}

fn too_late() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Timeout, "the chain's timeout has passed")
}

fn given_up_before() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Permanent, "an item was given up by an earlier attempt")
}

impl Step {
    pub(crate) fn new(name: Arc<str>, module: Box<dyn ErasedModule>, retry: Retry) -> Self {
        Self { name, module, retry }
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), DeliverError> {
        // A module that panics loses its own attempt, not the connection or the worker.
        let attempt = AssertUnwindSafe(async { self.module.deliver(delivery).await }).catch_unwind();
        match attempt.await {
            Ok(outcome) => outcome.map(|_| ()),
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Permanent, "the module panicked")),
        }
    }
}

/// Without the identity: it is made of whatever the modules are configured with.
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
