//! The one thread that writes.

mod hand;
mod room;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) use self::hand::Writer;
use self::hand::{Ahead, COPY_AGAIN, Line};
use super::batch::{Frames, Span};
use super::current::Current;
use super::decide::Chores;
use super::frame::{SEGMENT_HEAD, Salt};
use super::ledger::Place;
use super::measure;
use super::queue::Batch;
use crate::queue::QueueError;

/// After a failure of the disk nothing is tried for so long.
const PAUSE: Duration = Duration::from_millis(50);

/// Where frames stand in a segment.
struct Written {
    segment: u32,
    /// Where the first of them begins.
    offset: u64,
}

impl Written {
    fn place(&self, span: Span) -> Place {
        // Segments stay far below 4 GiB, and frames that do not are refused.
        Place { segment: self.segment, offset: (self.offset + span.at) as u32, length: span.length }
    }
}

impl Writer {
    /// Writes until the spool is closed.
    pub(super) fn run(mut self) {
        loop {
            self.shared.set_busy(true);
            self.remove_what_is_empty();
            self.shared.set_busy(false);
            let has_to_copy = self.has_to_copy();
            let (current, segment_bytes) = (&self.current, self.segment_bytes);
            let left = |salt| match current {
                Some(current) if current.salt == salt => segment_bytes.saturating_sub(current.size),
                _ => segment_bytes,
            };
            let chores = Chores { unsynced: self.unsynced, at: self.copy_after, now: has_to_copy };
            let Some(batch) = self.shared.take(left, chores, &mut self.stragglers) else { break };
            self.shared.set_busy(true);
            // Chosen after what is written was taken: `Done` always stands behind the copy of its event.
            let ahead = self.ahead(batch.events.salt(), has_to_copy);
            match self.write(&ahead, &batch) {
                Ok(written) => self.written(ahead, batch, written),
                Err(error) => self.failed(batch, &error),
            }
            self.shared.set_busy(false);
        }
        // It is worth no more than that the next start can tell damage from what was torn.
        let _ = self.close();
    }

    /// Marks what is in the segment as synced, and leaves it.
    fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        if let Some(current) = &mut self.current {
            let mark = current.mark();
            current.segment.append(&mut mark.slices().collect::<Vec<_>>())?;
            current.size += mark.length();
            current.reserved = current.reserved.max(current.size);
            self.unsynced = Some(Instant::now());
        }
        self.leave()
    }

    /// Writes the frames, and syncs if somebody waits. Returns where they stand.
    fn write(&mut self, ahead: &Ahead, batch: &Batch) -> io::Result<Option<Written>> {
        let must_sync = !ahead.copies.is_empty() || batch.is_awaited;
        let all = [&ahead.frames, &batch.events, &batch.notes];
        let length: u64 = all.iter().map(|frames| frames.length()).sum();
        if length == 0 {
            self.note_sync(must_sync, false)?;
            return Ok(None);
        }
        let salt = batch.events.salt();
        if self.current.as_ref().is_some_and(|current| current.salt != salt) {
            self.leave()?;
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.create(salt)?,
        };
        let mark = current.mark();
        let written = Written { segment: current.number, offset: current.size + mark.length() };
        let mut slices: Vec<_> = [&mark].into_iter().chain(all).flat_map(Frames::slices).collect();
        let end = written.offset + length;
        let appended = current.segment.append(&mut slices);
        if appended.is_ok() {
            current.reserve(end, self.segment_bytes);
        }
        if let Err(error) = appended.and_then(|()| if must_sync { current.segment.sync() } else { Ok(()) }) {
            self.leave_broken(&current);
            return Err(error);
        }
        current.size = end;
        if must_sync {
            current.synced = end;
        }
        let mut ledger = self.shared.ledger();
        ledger.resize(current.number, current.reserved);
        ledger.set_unused(current.reserved - current.size);
        drop(ledger);
        self.current = Some(current);
        self.note_sync(must_sync, true)?;
        Ok(Some(written))
    }

    /// Of no use any more: what a failed write or sync has left in it nobody knows. What had been synced stays.
    fn leave_broken(&self, current: &Current) {
        let _ = self.cut(current);
        if current.size == SEGMENT_HEAD as u64 {
            self.discard(current.number);
        }
    }

    /// Keeps count of what is not synced. With nothing to write, it is time to sync what was written before.
    fn note_sync(&mut self, synced: bool, wrote: bool) -> io::Result<()> {
        if synced && wrote {
            measure::synced();
            self.unsynced = None;
        } else if wrote {
            self.unsynced.get_or_insert_with(Instant::now);
        } else if self.unsynced.is_some() {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = None;
        if let Some(current) = &mut self.current {
            current.segment.sync()?;
            current.synced = current.size;
            measure::synced();
        }
        Ok(())
    }

    /// Cuts off what is behind the end of a segment that nothing more is written to.
    fn cut(&self, current: &Current) -> io::Result<()> {
        let cut = current.segment.truncate(current.size);
        let mut ledger = self.shared.ledger();
        ledger.set_unused(0);
        if cut.is_ok() {
            ledger.resize(current.number, current.size);
        }
        cut
    }

    /// Nothing more is written to the segment.
    fn leave(&mut self) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        // Nobody could tell any more whether what stands behind its end has been accepted.
        let is_cut = current.reserved > current.size;
        if is_cut {
            self.cut(current)?;
        }
        if is_cut || self.unsynced.is_some() {
            self.sync()?;
        }
        self.current = None;
        Ok(())
    }

    fn create(&mut self, salt: Salt) -> io::Result<Current> {
        let number = self.next_segment;
        self.next_segment += 1;
        let made = self.disk.create(number, &salt.head());
        let mut ledger = self.shared.ledger();
        // It is in this one, or gone.
        let idle = ledger.idle();
        ledger.set_idle(0);
        let (segment, size) = (made?, SEGMENT_HEAD as u64);
        let reserved = idle.max(size);
        ledger.add_room(number, Arc::clone(&segment), salt, reserved);
        Ok(Current { number, segment, salt, size, reserved, synced: size })
    }

    /// Removes a segment that holds nothing. Left there, one would be added with each try while a disk is full.
    fn discard(&self, number: u32) {
        if self.disk.remove(number).is_ok() {
            self.shared.ledger().remove_room(number);
        }
    }

    fn written(&mut self, ahead: Ahead, batch: Batch, written: Option<Written>) {
        if written.is_some()
            && self.shared.set_failed(false)
            && let Some(left_out) = self.admit(Line::Mended)
        {
            tracing::info!(left_out, "the spool can be written again");
        }
        if let Some(copied) = written {
            let events = Written { offset: copied.offset + ahead.frames.length(), ..copied };
            let bytes = batch.events.length();
            let kept = batch.events.keep(self.shared.memory());
            let mut ledger = self.shared.ledger();
            ahead.copies.iter().for_each(|copy| ledger.relocate(copy.sequence, copy.from, copied.place(copy.span)));
            for (ticket, span) in &batch.tickets {
                ledger.insert(ticket.sequence, events.place(*span), kept.payload(*span));
            }
            drop(ledger);
            self.shared.queue().written(bytes);
        }
        if !batch.tickets.is_empty() {
            measure::accepted(batch.tickets.len());
            self.shared.offer(batch.tickets.into_iter().map(|(ticket, _)| ticket.into()).collect());
        }
        batch.group.end(Ok(()), &mut self.stragglers);
    }

    fn failed(&mut self, batch: Batch, error: &io::Error) {
        if !self.shared.set_failed(true)
            && let Some(left_out) = self.admit(Line::Failing)
        {
            tracing::error!(%error, left_out, "the spool cannot be written: events are refused");
        }
        measure::failed();
        self.copy_after = Some(Instant::now() + COPY_AGAIN);
        self.unsynced = None;
        if let Some(current) = self.current.take() {
            self.leave_broken(&current);
        }
        self.copying = None;
        self.shared.queue().put_back(&batch);
        batch.group.end(Err(QueueError::Failed), &mut self.stragglers);
        thread::sleep(PAUSE);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
