//! Decides when the writer thread begins a round. Pure: the time comes in.

use std::time::{Duration, Instant};

/// How long written bytes may stay unsynced if no event asks for a sync.
const UNSYNCED: Duration = Duration::from_secs(1);

/// This many notes are written without waiting for more.
pub(super) const MANY: usize = 512;

/// The work of the thread besides the queued frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chores {
    /// When the first byte was written that is not synced yet.
    pub(super) unsynced: Option<Instant>,
    /// When other work is due.
    pub(super) at: Option<Instant>,
    /// Whether other work is due at once.
    pub(super) now: bool,
}

/// The queued frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queued {
    /// Whether a request waits for them.
    pub(super) is_awaited: bool,
    /// How many events have a state to be written.
    pub(super) notes: usize,
    /// Whether the notes have already lingered to gather more notes.
    pub(super) has_lingered: bool,
    /// Whether the queue is closed.
    pub(super) is_closed: bool,
    /// Whether the last write failed.
    pub(super) has_failed: bool,
}

/// The next action of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Write the queued frames, if there are any, and sync.
    Write,
    /// Wait a moment for more notes.
    Linger,
    /// Sleep until this time, or until woken.
    Idle(Option<Instant>),
    /// End the thread.
    End,
}

pub(super) fn decide(queued: Queued, chores: Chores, now: Instant) -> Wake {
    let due = chores.unsynced.map(|since| since + UNSYNCED).into_iter().chain(chores.at).min();
    let is_time = queued.is_awaited
        || queued.notes >= MANY
        || (queued.has_lingered && queued.notes > 0)
        || chores.now
        || due.is_some_and(|due| due <= now);
    match queued {
        _ if is_time => Wake::Write,
        // Otherwise a failing disk would be tried for ever. Without their notes, the events are delivered again.
        Queued { is_closed: true, has_failed: true, .. } => Wake::End,
        Queued { is_closed: true, notes: 0, .. } if chores.unsynced.is_none() => Wake::End,
        Queued { is_closed: true, .. } => Wake::Write,
        Queued { notes: 0, .. } => Wake::Idle(due),
        _ => Wake::Linger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Queued =
        Queued { is_awaited: false, notes: 0, has_lingered: false, is_closed: false, has_failed: false };

    const NO_CHORES: Chores = Chores { unsynced: None, at: None, now: false };

    #[test]
    fn frames_that_a_request_waits_for_are_written_at_once() {
        let now = Instant::now();
        assert_eq!(decide(Queued { is_awaited: true, ..NOTHING }, NO_CHORES, now), Wake::Write);
        let last = Queued { is_awaited: true, is_closed: true, has_failed: true, ..NOTHING };
        assert_eq!(decide(last, NO_CHORES, now), Wake::Write, "its sender waits for an answer");
    }

    #[test]
    fn notes_wait_once_for_others_unless_there_are_many() {
        let now = Instant::now();
        let one = Queued { notes: 1, ..NOTHING };
        assert_eq!(decide(one, NO_CHORES, now), Wake::Linger);
        assert_eq!(decide(Queued { has_lingered: true, ..one }, NO_CHORES, now), Wake::Write);
        assert_eq!(decide(Queued { notes: MANY, ..one }, NO_CHORES, now), Wake::Write);
        let written = Queued { has_lingered: true, ..NOTHING };
        assert_eq!(decide(written, NO_CHORES, now), Wake::Idle(None));
    }

    #[test]
    fn the_thread_sleeps_until_the_first_chore_is_due() {
        let now = Instant::now();
        assert_eq!(decide(NOTHING, NO_CHORES, now), Wake::Idle(None));
        let sync = now + UNSYNCED;
        let chores = Chores { unsynced: Some(now), at: Some(sync + UNSYNCED), now: false };
        assert_eq!(decide(NOTHING, chores, now), Wake::Idle(Some(sync)));
        assert_eq!(decide(NOTHING, chores, sync), Wake::Write);
        let chores = Chores { at: Some(now), ..NO_CHORES };
        assert_eq!(decide(NOTHING, chores, now), Wake::Write);
        assert_eq!(decide(NOTHING, Chores { now: true, ..NO_CHORES }, now), Wake::Write);
    }

    #[test]
    fn the_thread_ends_when_everything_is_synced_or_the_disk_fails() {
        let now = Instant::now();
        let closed = Queued { is_closed: true, ..NOTHING };
        let unsynced = Chores { unsynced: Some(now), ..NO_CHORES };
        assert_eq!(decide(closed, NO_CHORES, now), Wake::End);
        assert_eq!(decide(closed, unsynced, now), Wake::Write);
        assert_eq!(decide(Queued { notes: 1, ..closed }, NO_CHORES, now), Wake::Write);
        assert_eq!(decide(Queued { notes: 1, has_failed: true, ..closed }, unsynced, now), Wake::End);
    }
}
