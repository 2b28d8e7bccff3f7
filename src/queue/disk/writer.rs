//! The writer thread: the only one that writes segments.
//!
//! Each turn it takes a batch of pending frames, appends the batch to the current segment, syncs the segment if a request
//! waits for it, and answers the group of waiters. Between batches it removes and compacts old segments.

mod compact;
mod state;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) use self::state::Writer;
use self::state::{COMPACT_AGAIN, Compacted, Line};
use super::batch::{Frames, Span};
use super::current::Current;
use super::decide::Chores;
use super::frame::{SEGMENT_HEAD, Salt};
use super::ledger::{Added, Place};
use super::measure;
use super::pending::{Batch, Queued};
use crate::queue::QueueError;

/// The pause after a failed write.
const PAUSE: Duration = Duration::from_millis(50);

/// The position of written frames in a segment.
struct Written {
    segment: u32,
    /// The offset of the first frame.
    offset: u64,
}

impl Written {
    fn place(&self, span: Span) -> Place {
        // Segments stay far below 4 GiB; a larger event is refused before it gets here.
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
            let must_compact = self.must_compact();
            let (current, segment_bytes) = (&self.current, self.segment_bytes);
            let left = |salt| match current {
                Some(current) if current.salt == salt => segment_bytes.saturating_sub(current.size),
                _ => segment_bytes,
            };
            let chores = Chores { unsynced: self.unsynced, at: self.compact_after, now: must_compact };
            let Some(batch) = self.shared.next_batch(left, chores, &mut self.stragglers) else { break };
            self.shared.set_busy(true);
            // Moved records are chosen after the batch was taken, so that a `Done` frame always comes after its event's copy.
            let compacted = self.compact(batch.events.salt(), must_compact);
            match self.write(&compacted, &batch) {
                Ok(written) => self.written(compacted, batch, written),
                Err(error) => self.failed(batch, &error),
            }
            self.shared.set_busy(false);
        }
        // Best effort: it only helps the next start to tell damage from a torn tail.
        let _ = self.close();
    }

    /// Records that the segment is synced to its end, and closes the segment.
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

    /// Appends the frames, and syncs if a request waits. Returns their position, `None` if there were no frames.
    fn write(&mut self, compacted: &Compacted, batch: &Batch) -> io::Result<Option<Written>> {
        let must_sync = !compacted.moved.is_empty() || batch.is_awaited;
        let all = [&compacted.frames, &batch.events, &batch.notes];
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
        ledger.set_unwritten(current.reserved - current.size);
        drop(ledger);
        self.current = Some(current);
        self.note_sync(must_sync, true)?;
        Ok(Some(written))
    }

    /// Gives up a segment after a failed write or sync, which may have left anything behind the last good frame. Everything
    /// synced before stays.
    fn leave_broken(&self, current: &Current) {
        let _ = self.cut(current);
        if current.size == SEGMENT_HEAD as u64 {
            self.discard(current.number);
        }
    }

    /// Remembers since when there are unsynced bytes. A turn with nothing to write syncs what earlier turns wrote.
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

    /// Truncates the segment behind its last frame: nothing more is written to it.
    fn cut(&self, current: &Current) -> io::Result<()> {
        let cut = current.segment.truncate(current.size);
        let mut ledger = self.shared.ledger();
        ledger.set_unwritten(0);
        if cut.is_ok() {
            ledger.resize(current.number, current.size);
        }
        cut
    }

    /// Closes the current segment: truncated and synced.
    fn leave(&mut self) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        // Otherwise recovery could not tell whether the bytes behind the last frame belong to accepted events.
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
        // The recycled file is now part of this segment, or was removed after an error.
        let recycled = ledger.recycled();
        ledger.set_recycled(0);
        let (segment, size) = (made?, SEGMENT_HEAD as u64);
        let reserved = recycled.max(size);
        ledger.add_segment(number, Arc::clone(&segment), salt, reserved);
        Ok(Current { number, segment, salt, size, reserved, synced: size })
    }

    /// Removes a segment without records. Otherwise each failed try on a full disk would leave one more segment.
    fn discard(&self, number: u32) {
        if self.disk.remove(number).is_ok() {
            self.shared.ledger().remove_segment(number);
        }
    }

    fn written(&mut self, compacted: Compacted, batch: Batch, written: Option<Written>) {
        if written.is_some()
            && self.shared.set_failed(false)
            && let Some(left_out) = self.admit(Line::Mended)
        {
            tracing::info!(left_out, "the spool can be written again");
        }
        if let Some(moved) = written {
            let events = Written { offset: moved.offset + compacted.frames.length(), ..moved };
            let bytes = batch.events.length();
            let kept = batch.events.keep(self.shared.memory());
            let mut ledger = self.shared.ledger();
            compacted
                .moved
                .iter()
                .for_each(|record| ledger.relocate(record.sequence, record.from, moved.place(record.span)));
            for Queued { id, ticket, span } in &batch.tickets {
                let (webhook, place) = (ticket.webhook.clone(), events.place(*span));
                ledger.insert(ticket.sequence, Added { id: *id, webhook, place, payload: kept.payload(*span) });
            }
            drop(ledger);
            self.shared.pending().written(bytes);
        }
        if !batch.tickets.is_empty() {
            measure::accepted(batch.tickets.len());
            self.shared.hand_out(batch.tickets.into_iter().map(|queued| queued.ticket.into()).collect());
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
        self.compact_after = Some(Instant::now() + COMPACT_AGAIN);
        self.unsynced = None;
        if let Some(current) = self.current.take() {
            self.leave_broken(&current);
        }
        self.compaction = None;
        self.shared.pending().put_back(&batch);
        batch.group.end(Err(QueueError::Failed), &mut self.stragglers);
        thread::sleep(PAUSE);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
