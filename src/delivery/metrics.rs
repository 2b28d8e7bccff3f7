//! Metrics of the attempts of each module.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Instant;

use crate::base::lock::lock;
use crate::base::metrics::{ENABLED, Histogram, histogram};
use crate::event::{DeliverError, DeliverErrorKind};

/// `delivered`, `broken_off` and the kinds of errors.
const OUTCOMES: usize = DeliverErrorKind::ALL.len() + 2;

/// The outcome of an attempt that was dropped: its deadline has passed, or its sender has hung up.
const BROKEN_OFF: usize = 1;

/// The series of one module. The recorder is asked for each once.
pub(super) struct Series {
    module: Arc<str>,
    seconds: [OnceLock<Histogram>; OUTCOMES],
}

impl Series {
    /// The series of the modules of this name. There is one for each name, for as long as the process lives: names are
    /// those that a program has registered.
    pub(super) fn of(module: &Arc<str>) -> Arc<Self> {
        static ALL: LazyLock<Mutex<BTreeMap<Arc<str>, Arc<Series>>>> = LazyLock::new(Mutex::default);
        let new = || Arc::new(Self { module: Arc::clone(module), seconds: std::array::from_fn(|_| OnceLock::new()) });
        Arc::clone(lock(&ALL).entry(Arc::clone(module)).or_insert_with(new))
    }

    pub(super) fn begin(&self) -> Timer<'_> {
        Timer { series: self, started: ENABLED.then(Instant::now) }
    }

    fn record(&self, started: Instant, outcome: usize) {
        let Some(series) = self.seconds.get(outcome) else { return };
        let seconds = || {
            let (module, outcome) = (self.module.to_string(), label(outcome));
            histogram!("tower_webhook_attempt_seconds", "module" => module, "outcome" => outcome)
        };
        series.get_or_init(seconds).record(started.elapsed());
    }
}

fn label(outcome: usize) -> &'static str {
    match outcome {
        0 => "delivered",
        BROKEN_OFF => "broken_off",
        kind => DeliverErrorKind::ALL.get(kind - 2).map_or("other", |kind| kind.label()),
    }
}

fn index(outcome: Result<(), &DeliverError>) -> usize {
    match outcome {
        Ok(()) => 0,
        Err(error) => DeliverErrorKind::ALL.iter().position(|kind| *kind == error.kind()).map_or(OUTCOMES, |at| at + 2),
    }
}

/// Measures one attempt. Dropped before it is stopped, it records an attempt that was broken off.
pub(super) struct Timer<'a> {
    series: &'a Series,
    started: Option<Instant>,
}

impl Timer<'_> {
    pub(super) fn stop<T>(mut self, outcome: &Result<T, DeliverError>) {
        if let Some(started) = self.started.take() {
            self.series.record(started, index(outcome.as_ref().map(drop)));
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            self.series.record(started, BROKEN_OFF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_label() {
        assert_eq!((label(index(Ok(()))), label(BROKEN_OFF)), ("delivered", "broken_off"));
        for kind in DeliverErrorKind::ALL {
            assert_eq!(label(index(Err(&DeliverError::new(kind, "no")))), kind.label());
        }
    }
}
