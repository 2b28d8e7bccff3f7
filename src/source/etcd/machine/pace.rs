//! How often an open watch is asked, and how long it is believed.

use std::time::Duration;

/// How often the watch is asked for its progress, so that a stream that lives has something to say.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(5);

/// So many proofs in a row may fail, with no event in between, before everything is read again.
pub(super) const DOUBTS: u32 = 4;

/// Two looks begin at least this far apart, however many ask for a proof.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How soon a proof is tried again that found changes which the watch has not brought yet.
pub(super) const PROVE_AGAIN: Duration = Duration::from_millis(500);

/// How often it is proven that nothing was missed.
pub(super) const PROVE_EVERY: Duration = Duration::from_secs(10);

/// A look or a proof that somebody asked for is followed by a pause of this many times what it took.
pub(super) const REST: u32 = 9;

/// A stream that says nothing for this long is doubted.
pub(super) const SILENCE: Duration = Duration::from_secs(12);
