//! Intervals and time limits of an open watch.

use std::time::Duration;

/// How often the watch is asked for its progress, so that a live stream has something to say.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(5);

/// The number of failed proofs in a row, without an event in between, after which everything is read again.
pub(super) const DOUBTS: u32 = 4;

/// The least time between the starts of two looks, however many readers ask for a proof.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The time after which a proof is repeated if it found changes that the watch has not delivered yet.
pub(super) const PROVE_AGAIN: Duration = Duration::from_millis(500);

/// The time between two regular proofs.
pub(super) const PROVE_EVERY: Duration = Duration::from_secs(10);

/// After a look or proof that a reader asked for, the pause as a multiple of the time that it took.
pub(super) const REST: u32 = 9;

/// A stream that is silent for this long is doubted.
pub(super) const SILENCE: Duration = Duration::from_secs(12);
