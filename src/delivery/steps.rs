//! What is to be done with an event of a webhook.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use super::Retry;
use crate::module::{DeliverError, DeliverErrorKind, Delivery, ErasedModule};

/// The modules that an event is given to.
#[derive(Debug)]
pub(crate) struct Steps {
    step: Step,
}

/// One module of them.
pub(crate) struct Step {
    name: Arc<str>,
    module: Box<dyn ErasedModule>,
    retry: Retry,
}

/// Which steps have taken an event, one bit each: they are not done again.
#[derive(Debug, Default)]
pub(crate) struct Done(AtomicU64);

/// An attempt that did not do everything.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error, or the first of several.
    pub(crate) error: DeliverError,
    /// How long to wait before what is not done is tried again; `None` if it is not to be.
    pub(crate) again: Option<Duration>,
}

impl Steps {
    pub(crate) fn one(step: Step) -> Self {
        Self { step }
    }

    /// The name of the first module.
    pub(crate) fn module_name(&self) -> &str {
        &self.step.name
    }

    /// Whether the `attempt`th attempt may be followed by another.
    pub(crate) fn may_follow(&self, attempt: u32) -> bool {
        self.step.retry.may_follow(attempt)
    }

    /// One attempt at every step that is not done yet. Dropped, it leaves each step either done or not done.
    pub(crate) async fn attempt(&self, delivery: Delivery, done: &Done) -> Result<(), Failure> {
        if done.is(0) {
            return Ok(());
        }
        let attempt = delivery.attempt();
        match self.step.deliver(delivery).await {
            Ok(()) => {
                done.mark(0);
                Ok(())
            }
            Err(error) => Err(Failure { again: self.step.retry.next(attempt, &error), error }),
        }
    }
}

impl Steps {
    /// What follows from an attempt that was cut short because it took too long.
    #[cfg(feature = "spool")]
    pub(crate) fn overdue(&self, attempt: u32) -> Failure {
        let error = DeliverError::new(DeliverErrorKind::Timeout, "the module did not answer in time");
        Failure { again: self.step.retry.next(attempt, &error), error }
    }
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

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("module", &self.name).finish_non_exhaustive()
    }
}

impl Done {
    /// As it was left by an earlier attempt.
    #[cfg(feature = "spool")]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits.into())
    }

    /// What is left of it when the event is tried anew: what was done stays so.
    #[cfg(feature = "spool")]
    pub(crate) fn revived(bits: u64) -> u64 {
        bits
    }

    pub(crate) fn bits(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn is(&self, step: usize) -> bool {
        self.bits() >> step & 1 == 1
    }

    fn mark(&self, step: usize) {
        self.0.fetch_or(1 << step, Ordering::Relaxed);
    }
}
