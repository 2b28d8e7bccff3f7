//! What the writing thread has in hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::group::Stragglers;
use crate::base::log_limit::LogLimit;
use crate::queue::QueueError;
use crate::queue::disk::batch::{Frames, Span};
use crate::queue::disk::current::Current;
use crate::queue::disk::frame::Salt;
use crate::queue::disk::ledger::Place;
use crate::queue::disk::shared::Shared;
use crate::queue::disk::storage::Disk;

/// When copying goes on after the disk has failed.
pub(super) const COPY_AGAIN: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

pub(in crate::queue::disk) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) segment_bytes: u64,
    pub(super) next_segment: u32,
    pub(super) current: Option<Current>,
    /// Since when something has been written that was not synced.
    pub(super) unsynced: Option<Instant>,
    pub(super) copying: Option<Copying>,
    pub(super) stragglers: Stragglers<Result<(), QueueError>>,
    /// Nothing is copied before.
    pub(super) copy_after: Option<Instant>,
    /// How often the oldest segment could not be read.
    pub(super) failed_reads: u32,
    pub(super) lines: LogLimit<Line>,
}

/// The lines of which there may be one for each batch: a disk that is nearly full takes one event and not the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Line {
    Failing,
    Mended,
    NotRemoved,
}

/// The segment that is to be freed.
pub(super) struct Copying {
    pub(super) number: u32,
    pub(super) salt: Salt,
    pub(super) bytes: Bytes,
    pub(super) at: usize,
}

/// Frames that stand before those of a batch, and which of them are copies.
pub(super) struct Ahead {
    pub(super) frames: Frames,
    pub(super) copies: Vec<MovedRecord>,
}

/// A copy of an event.
pub(super) struct MovedRecord {
    pub(super) sequence: u64,
    pub(super) from: Place,
    pub(super) span: Span,
}

impl Writer {
    pub(in crate::queue::disk) fn new(shared: Arc<Shared>, disk: Arc<dyn Disk>, next_segment: u32) -> Self {
        let segment_bytes = (shared.max_bytes() / 32).clamp(64 << 10, 32 << 20);
        Self {
            shared,
            disk,
            segment_bytes,
            next_segment,
            current: None,
            unsynced: None,
            copying: None,
            stragglers: Stragglers::default(),
            copy_after: None,
            failed_reads: 0,
            lines: LogLimit::default(),
        }
    }

    /// Whether there may be this line now. If so, the inner value is the field `left_out`.
    pub(super) fn admit(&self, line: Line) -> Option<Option<u64>> {
        self.lines.admit(line).map(|left_out| (left_out > 0).then_some(left_out))
    }
}
