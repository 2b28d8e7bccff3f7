//! The state of the writer thread.

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

/// The pause of compaction after the disk has failed.
pub(super) const COMPACT_AGAIN: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

pub(in crate::queue::disk) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) segment_bytes: u64,
    pub(super) next_segment: u32,
    pub(super) current: Option<Current>,
    /// When the first byte was written that is not synced yet.
    pub(super) unsynced: Option<Instant>,
    pub(super) compaction: Option<Compaction>,
    pub(super) stragglers: Stragglers<Result<(), QueueError>>,
    /// Compaction pauses until then.
    pub(super) compact_after: Option<Instant>,
    /// How many times in a row the oldest segment could not be read.
    pub(super) failed_reads: u32,
    pub(super) lines: LogLimit<Line>,
}

/// The log lines with a rate limit. A disk that is nearly full may accept one event and refuse the next, so there could
/// be one of these lines for each batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Line {
    Failing,
    Mended,
    NotRemoved,
}

/// The segment that is being compacted, and the offset of the next record to move.
pub(super) struct Compaction {
    pub(super) number: u32,
    pub(super) salt: Salt,
    pub(super) bytes: Bytes,
    pub(super) at: usize,
}

/// The frames of moved records, and the records among them.
pub(super) struct Compacted {
    pub(super) frames: Frames,
    pub(super) moved: Vec<MovedRecord>,
}

/// An event that is moved to the end of the log.
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
            compaction: None,
            stragglers: Stragglers::default(),
            compact_after: None,
            failed_reads: 0,
            lines: LogLimit::default(),
        }
    }

    /// Whether this line may be logged now. If so, the inner value is the number of lines suppressed before it, if any:
    /// the field `left_out`.
    pub(super) fn admit(&self, line: Line) -> Option<Option<u64>> {
        self.lines.admit(line).map(|left_out| (left_out > 0).then_some(left_out))
    }
}
