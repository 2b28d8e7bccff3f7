//! Compaction: the writer removes or recycles segments without live records, and moves the live records of the oldest
//! segment to the end of the log.

use std::io;
use std::time::Instant;

use super::state::{COMPACT_AGAIN, Compacted, Compaction, Line, MovedRecord, Writer};
use crate::queue::disk::batch::Frames;
use crate::queue::disk::current::Current;
use crate::queue::disk::frame::{FRAME_HEAD, Kind, SEGMENT_HEAD, Salt};
use crate::queue::disk::ledger::Place;
use crate::queue::disk::pending::max_garbage;
use crate::queue::disk::recover::read_all;
use crate::queue::disk::state::StoredState;
use crate::queue::disk::{frame, measure};

/// How many bytes of records are moved in one turn. Events accepted meanwhile wait for it.
const COMPACT_AT_A_TIME: u64 = 1 << 20;

/// How often reading a segment is tried before its unreadable blocks are given up.
const READ_AGAIN: u32 = 3;

impl Writer {
    /// Removes the oldest segments, up to the first one that holds a live record.
    ///
    /// Segments are removed in order only: a `Done` frame, which stands in the segment of its event or in a later one, must
    /// not go before the event.
    pub(super) fn remove_what_is_empty(&mut self) {
        loop {
            let Some((number, false)) = self.oldest() else { return };
            let is_recycled = self.may_recycle(number);
            let removed = if is_recycled { self.disk.recycle(number) } else { self.disk.remove(number) };
            if let Err(error) = removed {
                if let Some(left_out) = self.admit(Line::NotRemoved) {
                    tracing::warn!(segment = number, %error, left_out, "cannot remove a segment without live records");
                }
                return;
            }
            self.compaction.take_if(|compaction| compaction.number == number);
            let mut ledger = self.shared.ledger();
            let size = ledger.remove_segment(number);
            if is_recycled {
                ledger.set_recycled(size);
            }
        }
    }

    /// Whether the file of this segment becomes the next segment: it has its size already, and its pages are in memory.
    fn may_recycle(&self, number: u32) -> bool {
        let ledger = self.shared.ledger();
        let has_room = self.shared.sizes().taken() <= self.shared.max_bytes() / 2 && ledger.recycled() == 0;
        // A segment that had to be larger for a single event would leave no room for the next large event.
        let is_usual = ledger.size(number) <= self.segment_bytes * 2;
        // After a failure two segments may have the same salt: the frames of one must not be found in the other.
        let is_other = |current: &Current| ledger.segment(number).is_some_and(|(_, salt)| salt != current.salt);
        has_room && is_usual && self.current.as_ref().is_some_and(is_other)
    }

    /// Whether there is enough garbage to compact the oldest segment.
    pub(super) fn must_compact(&mut self) -> bool {
        if self.compact_after.is_some_and(|after| Instant::now() < after) {
            return false;
        }
        self.compact_after = None;
        let garbage = self.shared.sizes().garbage();
        // A segment without live records has nothing to move: it could only not be removed.
        garbage > max_garbage(self.shared.max_bytes()) && self.oldest().is_some_and(|(_, is_needed)| is_needed)
    }

    /// The oldest segment except the current one, and whether it holds live records.
    fn oldest(&self) -> Option<(u32, bool)> {
        let current = self.current.as_ref().map(|current| current.number);
        self.shared.ledger().oldest(current)
    }

    /// The frames of moved records, to be written before the frames of the next batch.
    pub(super) fn compact(&mut self, salt: Salt, must_compact: bool) -> Compacted {
        let mut compacted = Compacted { frames: Frames::new(salt), moved: Vec::new() };
        if must_compact {
            self.move_records(&mut compacted);
        }
        compacted
    }

    /// Copies the next live records of the oldest segment.
    fn move_records(&mut self, compacted: &mut Compacted) {
        let mut compaction = match self.compaction.take() {
            Some(compaction) => compaction,
            None => match self.begin_compaction() {
                Ok(Some(compaction)) => compaction,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "cannot read the oldest segment of the spool");
                    self.failed_reads += 1;
                    self.compact_after = Some(Instant::now() + COMPACT_AGAIN);
                    return;
                }
            },
        };
        while compacted.frames.length() < COMPACT_AT_A_TIME && compaction.at < compaction.bytes.len() {
            let Some(record) = frame::read(compaction.salt, &compaction.bytes[compaction.at..]) else {
                compaction.at += 1;
                continue;
            };
            let length = FRAME_HEAD + record.payload.len();
            let from = Place { segment: compaction.number, offset: compaction.at as u32, length: length as u32 };
            let sequence = record.sequence;
            // The ledger is locked for one record at a time, so that the worker need not wait. A state that changes after
            // this is written after the copy.
            let state = (record.kind == Kind::Event).then(|| self.state_at(sequence, from)).flatten();
            if let Some(state) = state {
                let payload = compaction.bytes.slice(compaction.at + FRAME_HEAD..compaction.at + length);
                let span = compacted.frames.push(Kind::Event, sequence, |_| {}, &payload);
                if let Some(state) = state {
                    compacted.frames.push_state(sequence, &state);
                }
                compacted.moved.push(MovedRecord { sequence, from, span });
            }
            compaction.at += length;
        }
        if compacted.moved.is_empty() {
            self.give_up(compaction.number);
        } else {
            self.compaction = Some(compaction);
        }
    }

    /// The state of the event at this place; the outer `None` if the record is not live.
    fn state_at(&self, sequence: u64, place: Place) -> Option<Option<StoredState>> {
        let ledger = self.shared.ledger();
        ledger.is_at(sequence, place).then(|| ledger.state(sequence).cloned())
    }

    fn begin_compaction(&mut self) -> io::Result<Option<Compaction>> {
        let Some((number, _)) = self.oldest() else { return Ok(None) };
        let Some((segment, salt)) = self.shared.ledger().segment(number) else { return Ok(None) };
        let bytes = match segment.read() {
            // No later segment can be removed before this one, so its unreadable blocks are given up in the end.
            Err(_) if self.failed_reads >= READ_AGAIN => read_all(&*segment, number)?.0,
            read => read?,
        };
        self.failed_reads = 0;
        Ok(Some(Compaction { number, salt, bytes: bytes.into(), at: SEGMENT_HEAD }))
    }

    /// Gives up the events of a segment that could not be moved: they cannot be read.
    fn give_up(&mut self, segment: u32) {
        let lost = self.shared.ledger().give_up(segment);
        self.shared.give_back(&lost);
        if !lost.is_empty() {
            tracing::error!(
                segment,
                events = lost.len(),
                "a segment of the spool is damaged: the events in it are lost"
            );
            measure::lost(lost.len());
        }
    }
}
