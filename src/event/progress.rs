//! The progress of an event: which steps of its webhook are done, and which are given up.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

use super::error::DeliverError;
use crate::base::lock::lock;

/// The most steps that a webhook may have.
pub(crate) const MAX_STEPS: usize = 20;

/// The progress of an event over all its attempts. A later attempt needs nothing else.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The steps that have delivered the event, one bit each.
    pub done: u32,
    /// The steps that are not tried again, one bit each.
    pub given_up: u32,
    /// The identity of the steps that the bits belong to.
    pub owner: [u8; 8],
}

impl Progress {
    /// The same progress without steps that are given up. Steps that are done stay done.
    #[must_use]
    pub(crate) fn forgiven(self) -> Self {
        Self { given_up: 0, ..self }
    }

    pub(crate) fn is_done(&self, step: usize) -> bool {
        self.done >> step & 1 == 1
    }

    pub(crate) fn is_given_up(&self, step: usize) -> bool {
        self.given_up >> step & 1 == 1
    }

    /// Whether the step is neither done nor given up.
    pub(crate) fn is_open(&self, step: usize) -> bool {
        !self.is_done(step) && !self.is_given_up(step)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress(done {:#b}, given up {:#b}, of {:02x?})", self.done, self.given_up, self.owner)
    }
}

/// Follows the progress of one event while it is tried.
#[derive(Default)]
pub(crate) struct Tracker {
    state: Mutex<State>,
    on_done: Option<OnDone>,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// The first of the steps that were given up since the tracker was created, with its error.
    // Boxed: it is rare, and each delivery holds a tracker.
    given_up: Option<Box<(usize, DeliverError)>>,
    /// The steps that have begun and not ended, one bit each.
    under_way: u32,
}

type OnDone = Box<dyn Fn(Progress) + Send + Sync>;

impl Tracker {
    /// Continues where an earlier attempt stopped.
    pub(crate) fn resume(progress: Progress) -> Self {
        Self { state: Mutex::new(State { progress, ..State::default() }), on_done: None }
    }

    /// Calls `on_done` whenever a step is done, before anything else happens.
    #[must_use]
    pub(crate) fn on_done(self, on_done: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self { on_done: Some(Box::new(on_done)), ..self }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.state().progress
    }

    /// Begins an attempt at the steps of `owner`. The progress of other steps, for example of those that the webhook had
    /// before its configuration was changed, is dropped: a repeated step is better than a lost one.
    pub(crate) fn begin(&self, owner: [u8; 8]) {
        let mut state = self.state();
        state.under_way = 0;
        if state.progress.owner != owner {
            state.progress = Progress { owner, ..Progress::default() };
            state.given_up = None;
        }
    }

    pub(crate) fn began(&self, step: usize) {
        self.state().under_way |= 1 << step;
    }

    pub(crate) fn ended(&self, step: usize) {
        self.state().under_way &= !(1 << step);
    }

    /// The first step that has begun in this attempt and not ended.
    pub(crate) fn under_way(&self) -> Option<usize> {
        let under_way = self.state().under_way;
        (under_way != 0).then(|| under_way.trailing_zeros() as usize)
    }

    pub(crate) fn done(&self, step: usize) {
        let mut state = self.state();
        state.progress.done |= 1 << step;
        let progress = state.progress;
        drop(state);
        if let Some(on_done) = &self.on_done {
            on_done(progress);
        }
    }

    pub(crate) fn give_up(&self, step: usize, error: &DeliverError) {
        let mut state = self.state();
        state.progress.given_up |= 1 << step;
        if state.given_up.as_ref().is_none_or(|given_up| step < given_up.0) {
            state.given_up = Some(Box::new((step, error.clone())));
        }
    }

    /// The first of the steps that were given up since the tracker was created, with its error.
    pub(crate) fn given_up(&self) -> Option<(usize, DeliverError)> {
        self.state().given_up.as_deref().cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracker").field(&self.progress()).finish()
    }
}
