//! What of an event is done, and what has been given up.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::error::DeliverError;
use crate::base::lock::lock;

/// The most steps that a webhook may have.
pub(crate) const MAX_STEPS: usize = 20;

/// Which steps have taken an event and which are not tried again, over all its attempts.
#[derive(Default)]
pub(crate) struct Done {
    /// From the lowest: 20 bits for steps that are done, 20 for those given up, 24 that tell whose steps they are.
    bits: AtomicU64,
    /// The first step, in their order, that was given up since this was made.
    given_up: Mutex<Option<(usize, DeliverError)>>,
    /// The steps that have begun and not ended, one bit each: what an attempt that was cut short was at.
    under_way: AtomicU32,
    on_mark: Option<OnMark>,
}

type OnMark = Box<dyn Fn(&Done) + Send + Sync>;

const GIVEN_UP: u32 = MAX_STEPS as u32;
const OWNER: u32 = 2 * MAX_STEPS as u32;
const ONE_EACH: u64 = (1 << MAX_STEPS) - 1;

impl Done {
    /// As an earlier attempt left it: see [`bits`](Self::bits).
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { bits: bits.into(), ..Self::default() }
    }

    /// Everything that a later attempt must know, but for the errors.
    pub(crate) fn bits(&self) -> u64 {
        self.bits.load(Ordering::Relaxed)
    }

    /// Nothing is given up any more; what is done stays done.
    #[must_use]
    pub(crate) fn forgiven(self) -> Self {
        let bits = self.bits() & !(ONE_EACH << GIVEN_UP);
        Self { bits: bits.into(), on_mark: self.on_mark, ..Self::default() }
    }

    /// Calls `on_mark` whenever one more step is done, before anything else happens.
    #[must_use]
    pub(crate) fn on_mark(self, on_mark: impl Fn(&Self) + Send + Sync + 'static) -> Self {
        Self { on_mark: Some(Box::new(on_mark)), ..self }
    }

    /// Begins an attempt at the steps of `owner`. What was noted of other steps, as the webhook had before it was
    /// changed, says nothing of these: to do one twice is better than never.
    pub(crate) fn begin(&self, owner: u64) {
        self.under_way.store(0, Ordering::Relaxed);
        let owner = (owner | 1) << OWNER;
        if self.bits() >> OWNER << OWNER != owner {
            self.bits.store(owner, Ordering::Relaxed);
            *lock(&self.given_up) = None;
        }
    }

    pub(crate) fn is_done(&self, step: usize) -> bool {
        self.bits() >> step & 1 == 1
    }

    pub(crate) fn is_given_up(&self, step: usize) -> bool {
        self.bits() >> GIVEN_UP >> step & 1 == 1
    }

    pub(crate) fn mark(&self, step: usize) {
        self.bits.fetch_or(1 << step, Ordering::Relaxed);
        if let Some(on_mark) = &self.on_mark {
            on_mark(self);
        }
    }

    pub(crate) fn began(&self, step: usize) {
        self.under_way.fetch_or(1 << step, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, step: usize) {
        self.under_way.fetch_and(!(1 << step), Ordering::Relaxed);
    }

    /// The first step that has begun in this attempt and not ended.
    pub(crate) fn under_way(&self) -> Option<usize> {
        let under_way = self.under_way.load(Ordering::Relaxed);
        (under_way != 0).then(|| under_way.trailing_zeros() as usize)
    }

    pub(crate) fn give_up(&self, step: usize, error: &DeliverError) {
        self.bits.fetch_or(1 << step << GIVEN_UP, Ordering::Relaxed);
        let mut given_up = lock(&self.given_up);
        if given_up.as_ref().is_none_or(|&(first, _)| step < first) {
            *given_up = Some((step, error.clone()));
        }
    }

    /// The first step that was given up since this was made, and why.
    pub(crate) fn given_up(&self) -> Option<(usize, DeliverError)> {
        lock(&self.given_up).clone()
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Done({:#018x})", self.bits())
    }
}
