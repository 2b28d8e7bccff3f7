//! How the writer gets room back: segments that nobody needs are removed or used again, and of the oldest one what is still
//! needed is copied.

use std::io;
use std::time::Instant;

use super::hand::{Ahead, COPY_AGAIN, Copying, Line, MovedRecord, Writer};
use crate::queue::disk::batch::Frames;
use crate::queue::disk::current::Current;
use crate::queue::disk::frame::{FRAME_HEAD, Kind, SEGMENT_HEAD, Salt};
use crate::queue::disk::ledger::Place;
use crate::queue::disk::progress::State;
use crate::queue::disk::queue::max_garbage;
use crate::queue::disk::recover::read_all;
use crate::queue::disk::{frame, measure};

/// So many events are copied at a time to free the oldest segment, in bytes: what is accepted meanwhile waits for it.
const COPY_AT_A_TIME: u64 = 1 << 20;

/// How often a segment that cannot be read is tried.
const READ_AGAIN: u32 = 3;

impl Writer {
    /// Removes the oldest segments as long as nothing in them is needed.
    ///
    /// Never one behind another that stays: what is done with an event stands in no earlier segment than the event.
    pub(super) fn remove_what_is_empty(&mut self) {
        loop {
            let Some((number, false)) = self.oldest() else { return };
            let is_recycled = self.may_recycle(number);
            let removed = if is_recycled { self.disk.recycle(number) } else { self.disk.remove(number) };
            if let Err(error) = removed {
                if let Some(left_out) = self.admit(Line::NotRemoved) {
                    tracing::warn!(segment = number, %error, left_out, "a segment that is not needed any more cannot be removed");
                }
                return;
            }
            self.copying.take_if(|copying| copying.number == number);
            let mut ledger = self.shared.ledger();
            let size = ledger.remove_room(number);
            if is_recycled {
                ledger.set_idle(size);
            }
        }
    }

    /// Whether the next segment is made of this one: its file has its size already, and its pages are in memory.
    fn may_recycle(&self, number: u32) -> bool {
        let ledger = self.shared.ledger();
        let has_room = self.shared.sizes().taken() <= self.shared.max_bytes() / 2 && ledger.idle() == 0;
        // One that had to be larger for a single event would keep out the next such one.
        let is_usual = ledger.size(number) <= self.segment_bytes * 2;
        // After a failure there may be two with the same salt, and the frames of one must not be found in the other.
        let is_other = |current: &Current| ledger.segment(number).is_some_and(|(_, salt)| salt != current.salt);
        has_room && is_usual && self.current.as_ref().is_some_and(is_other)
    }

    /// Whether so much of the room is taken by what nobody needs that the oldest segment is to be freed.
    pub(super) fn has_to_copy(&mut self) -> bool {
        if self.copy_after.is_some_and(|after| Instant::now() < after) {
            return false;
        }
        self.copy_after = None;
        let garbage = self.shared.sizes().garbage();
        // One that only cannot be removed has nothing to be copied.
        garbage > max_garbage(self.shared.max_bytes()) && self.oldest().is_some_and(|(_, is_needed)| is_needed)
    }

    /// The oldest segment but for the one that is written to, and whether anything in it is needed.
    fn oldest(&self) -> Option<(u32, bool)> {
        let current = self.current.as_ref().map(|current| current.number);
        self.shared.ledger().oldest(current)
    }

    /// What stands before the frames of the next batch.
    pub(super) fn ahead(&mut self, salt: Salt, has_to_copy: bool) -> Ahead {
        let mut ahead = Ahead { frames: Frames::new(salt), copies: Vec::new() };
        if has_to_copy {
            self.copy(&mut ahead);
        }
        ahead
    }

    /// Copies the next events of the oldest segment that are still needed.
    fn copy(&mut self, ahead: &mut Ahead) {
        let mut copying = match self.copying.take() {
            Some(copying) => copying,
            None => match self.begin_to_copy() {
                Ok(Some(copying)) => copying,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the oldest segment of the spool cannot be read");
                    self.failed_reads += 1;
                    self.copy_after = Some(Instant::now() + COPY_AGAIN);
                    return;
                }
            },
        };
        while ahead.frames.length() < COPY_AT_A_TIME && copying.at < copying.bytes.len() {
            let Some(record) = frame::read(copying.salt, &copying.bytes[copying.at..]) else {
                copying.at += 1;
                continue;
            };
            let length = FRAME_HEAD + record.payload.len();
            let from = Place { segment: copying.number, offset: copying.at as u32, length: length as u32 };
            let sequence = record.sequence;
            // Asked for each of them, as the worker waits for the lock: what changes behind it is written behind the copy.
            let state = (record.kind == Kind::Event).then(|| self.state_at(sequence, from)).flatten();
            if let Some(state) = state {
                let payload = copying.bytes.slice(copying.at + FRAME_HEAD..copying.at + length);
                let span = ahead.frames.push(Kind::Event, sequence, |_| {}, &payload);
                if let Some(state) = state {
                    ahead.frames.push_state(sequence, &state);
                }
                ahead.copies.push(MovedRecord { sequence, from, span });
            }
            copying.at += length;
        }
        if ahead.copies.is_empty() {
            self.give_up(copying.number);
        } else {
            self.copying = Some(copying);
        }
    }

    /// What became so far of an event that stands at this place and is still needed.
    fn state_at(&self, sequence: u64, place: Place) -> Option<Option<State>> {
        let ledger = self.shared.ledger();
        ledger.is_at(sequence, place).then(|| ledger.state(sequence).cloned())
    }

    fn begin_to_copy(&mut self) -> io::Result<Option<Copying>> {
        let Some((number, _)) = self.oldest() else { return Ok(None) };
        let Some((segment, salt)) = self.shared.ledger().segment(number) else { return Ok(None) };
        let bytes = match segment.read() {
            // Nothing behind it can be removed as long as it is there: at last, what cannot be read is given up.
            Err(_) if self.failed_reads >= READ_AGAIN => read_all(&*segment, number)?.0,
            read => read?,
        };
        self.failed_reads = 0;
        Ok(Some(Copying { number, salt, bytes: bytes.into(), at: SEGMENT_HEAD }))
    }

    /// What could not be copied cannot be read any more.
    fn give_up(&mut self, segment: u32) {
        let (lost, dead) = self.shared.ledger().give_up(segment);
        self.shared.give_back(&dead);
        if lost > 0 {
            tracing::error!(segment, events = lost, "a part of the spool is damaged: the events in it are lost");
            measure::lost(lost);
        }
    }
}
