//! The one thread that writes.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::current::Current;
use super::disk::Disk;
use super::frame::{self, FRAME_HEAD, Kind, SEGMENT_HEAD, Salt};
use super::frames::{Frames, Span};
use super::ledger::Place;
use super::queue::{Batch, max_garbage};
use super::recover::read_all;
use super::shared::Shared;
use super::state::State;
use super::{SpoolError, measure};
use crate::round::Recent;

/// So many events are copied at a time to free the oldest segment, in bytes: what is accepted meanwhile waits for it.
const COPY_AT_A_TIME: u64 = 1 << 20;

/// When copying goes on after the disk has failed, and how often a segment that cannot be read is tried.
const COPY_AGAIN: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };
const READ_AGAIN: u32 = 3;

/// After a failure of the disk nothing is tried for so long.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Writer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    next_segment: u32,
    current: Option<Current>,
    /// Since when something has been written that was not synced.
    unsynced: Option<Instant>,
    copying: Option<Copying>,
    recent: Recent<Result<(), SpoolError>>,
    /// Nothing is copied before.
    copy_after: Option<Instant>,
    /// How often the oldest segment could not be read.
    failed_reads: u32,
}

/// The segment that is to be freed.
struct Copying {
    number: u32,
    salt: Salt,
    bytes: Bytes,
    at: usize,
}

/// Frames that stand before those of a batch, and which of them are copies.
struct Ahead {
    frames: Frames,
    copies: Vec<Copy>,
}

/// A copy of an event.
struct Copy {
    sequence: u64,
    from: Place,
    span: Span,
}

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
    pub(super) fn new(shared: Arc<Shared>, disk: Arc<dyn Disk>, next_segment: u32) -> Self {
        let segment_bytes = (shared.max_bytes() / 32).clamp(64 << 10, 32 << 20);
        Self {
            shared,
            disk,
            segment_bytes,
            next_segment,
            current: None,
            unsynced: None,
            copying: None,
            recent: Recent::default(),
            copy_after: None,
            failed_reads: 0,
        }
    }

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
            let until = self.copy_after;
            let Some(batch) = self.shared.take(left, self.unsynced, until, &mut self.recent, !has_to_copy) else {
                break;
            };
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
            current.segment.sync()?;
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
        let is_cut = current.segment.truncate(current.size).is_ok();
        let mut ledger = self.shared.ledger();
        ledger.set_unused(0);
        if is_cut {
            ledger.resize(current.number, current.size);
        }
        drop(ledger);
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

    /// Nothing more is written to the segment.
    fn leave(&mut self) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        // Nobody could tell any more whether what stands behind its end has been accepted.
        let is_cut = current.reserved > current.size;
        if is_cut {
            current.segment.truncate(current.size)?;
            let mut ledger = self.shared.ledger();
            ledger.resize(current.number, current.size);
            ledger.set_unused(0);
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
        if written.is_some() && self.shared.set_failed(false) {
            tracing::info!("the spool can be written again");
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
            self.shared.offer(batch.tickets.into_iter().map(|(ticket, _)| ticket).collect());
        }
        batch.round.end(Ok(()), &mut self.recent);
    }

    fn failed(&mut self, batch: Batch, error: &io::Error) {
        if !self.shared.set_failed(true) {
            tracing::error!(%error, "the spool cannot be written: events are refused");
        }
        measure::failed();
        self.copy_after = Some(Instant::now() + COPY_AGAIN);
        self.unsynced = None;
        if let Some(current) = self.current.take() {
            self.leave_broken(&current);
        }
        self.copying = None;
        self.shared.queue().put_back(&batch);
        batch.round.end(Err(SpoolError::Failed), &mut self.recent);
        thread::sleep(PAUSE);
    }

    // --- room

    /// Removes the oldest segments as long as nothing in them is needed.
    ///
    /// Never one behind another that stays: what is done with an event stands in no earlier segment than the event.
    fn remove_what_is_empty(&mut self) {
        loop {
            let Some((number, false)) = self.oldest() else { return };
            let is_recycled = self.may_recycle(number);
            let removed = if is_recycled { self.disk.recycle(number) } else { self.disk.remove(number) };
            if let Err(error) = removed {
                tracing::warn!(segment = number, %error, "a segment that is not needed any more cannot be removed");
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
    fn has_to_copy(&mut self) -> bool {
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
    fn ahead(&mut self, salt: Salt, has_to_copy: bool) -> Ahead {
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
                ahead.copies.push(Copy { sequence, from, span });
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

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
