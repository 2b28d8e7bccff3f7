//! Metrics of guards.
//!
//! `tower_webhook_auth_refusals_total{guard,reason}` counts refused requests, and
//! `tower_webhook_secret_matches_total{guard,position}` those that were let in by a secret of a list: when the position of
//! an old secret stands still, nobody uses it any more. `guard` is the key of the scheme, or `other`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, OnceLock};

use super::error::AuthError;
use super::secrets::{MOST, Position};
use crate::base::lock::lock;
use crate::base::metrics::{Counter, ENABLED, counter};

/// The series of one kind of guard. The recorder is asked for each once.
pub(crate) struct Series {
    guard: &'static str,
    refusals: [OnceLock<Counter>; AuthError::COUNT],
    matches: [OnceLock<Counter>; MOST],
}

impl Series {
    /// The series of the guards of this name. There is one for each name, for as long as the process lives: names are
    /// fixed when a program is written.
    pub(crate) fn of(guard: &'static str) -> &'static Self {
        static ALL: LazyLock<Mutex<BTreeMap<&'static str, &'static Series>>> = LazyLock::new(Mutex::default);
        let new = || -> &'static Self {
            Box::leak(Box::new(Self { guard, refusals: Default::default(), matches: Default::default() }))
        };
        lock(&ALL).entry(guard).or_insert_with(new)
    }

    pub(crate) fn guard(&self) -> &'static str {
        self.guard
    }

    pub(crate) fn refused(&self, error: AuthError) {
        if ENABLED && let Some(series) = self.refusals.get(error as usize) {
            let (guard, reason) = (self.guard, error.reason());
            let counter = || counter!("tower_webhook_auth_refusals_total", "guard" => guard, "reason" => reason);
            series.get_or_init(counter).increment(1);
        }
    }

    pub(crate) fn matched(&self, position: Position) {
        if ENABLED && let Some(series) = self.matches.get(position.index()) {
            let guard = self.guard;
            let counter = || {
                let position = position.to_string();
                counter!("tower_webhook_secret_matches_total", "guard" => guard, "position" => position)
            };
            series.get_or_init(counter).increment(1);
        }
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Series({})", self.guard)
    }
}
