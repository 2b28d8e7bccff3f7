//! The one thread that writes.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disk::{Disk, Segment};
use super::frame::{self, FRAME_HEAD, Frame, Kind, SEGMENT_HEAD};
use super::ledger::Place;
use super::shared::{Batch, New, Shared, max_garbage};
use super::state::State;
use super::{SpoolError, measure};
use crate::round::Recent;

/// So many events are copied at a time to free the oldest segment, in bytes: what is accepted meanwhile waits for it.
const COPY_AT_A_TIME: usize = 1 << 20;

/// When a segment that could not be read is tried again.
const COPY_AGAIN: Duration = Duration::from_secs(10);

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
}

/// The segment that is written to.
struct Current {
    number: u32,
    segment: Arc<dyn Segment>,
    size: u64,
}

/// The segment that is to be freed.
struct Copying {
    number: u32,
    salt: u64,
    bytes: Bytes,
    at: usize,
}

/// A copy of an event.
struct Copy {
    sequence: u64,
    from: Place,
    event: Frame,
    /// What became of it so far.
    state: Option<Frame>,
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
        }
    }

    /// Writes until the spool is closed.
    pub(super) fn run(mut self) {
        loop {
            self.remove_what_is_empty();
            let has_to_copy = !self.shared.is_failing() && self.has_to_copy();
            let Some(batch) = self.shared.take(self.unsynced, &mut self.recent, !has_to_copy) else { break };
            // Chosen after what is written was taken: `Done` always stands behind the copy of its event.
            let copies = if has_to_copy { self.next_copies() } else { Vec::new() };
            match self.write(&copies, &batch) {
                Ok(places) => self.written(copies, batch, places),
                Err(error) => self.failed(batch, &error),
            }
        }
    }

    /// Writes the frames, and syncs if somebody waits. Returns where each of them stands.
    fn write(&mut self, copies: &[Copy], batch: &Batch) -> io::Result<Vec<Place>> {
        let copied = copies.iter().flat_map(|copy| std::iter::once(&copy.event).chain(&copy.state));
        let events = batch.events.iter().map(|new| &new.frame);
        let frames: Vec<&Frame> = copied.chain(events).chain(&batch.notes).collect();
        let mut places = Vec::with_capacity(frames.len());
        let must_sync = !copies.is_empty() || batch.is_awaited;
        if !frames.is_empty() {
            self.leave_if_full()?;
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.create()?,
            };
            let number = current.number;
            let mut slices = Vec::with_capacity(2 * frames.len());
            let mut end = current.size;
            for frame in &frames {
                slices.push(IoSlice::new(&frame.head));
                slices.push(IoSlice::new(&frame.rest));
                // Segments stay far below 4 GiB, and frames that do not are refused.
                places.push(Place { segment: number, offset: end as u32, length: frame.len() as u32 });
                end += frame.len();
            }
            let appended = current.segment.append(&mut slices);
            let appended = appended.and_then(|()| if must_sync { current.segment.sync() } else { Ok(()) });
            if let Err(error) = appended {
                // Of no use any more: what a failed sync has left in it nobody knows. What had been synced stays.
                let _ = current.segment.truncate(current.size);
                if current.size == SEGMENT_HEAD as u64 {
                    self.discard(number);
                }
                return Err(error);
            }
            self.shared.lock().ledger.grow(number, end - current.size);
            current.size = end;
            self.current = Some(current);
        }
        self.note_sync(must_sync, !frames.is_empty())?;
        Ok(places)
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
        if let Some(current) = &self.current {
            current.segment.sync()?;
            measure::synced();
        }
        Ok(())
    }

    fn leave_if_full(&mut self) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|current| current.size < self.segment_bytes) {
            return Ok(());
        }
        if self.unsynced.is_some() {
            self.sync()?;
        }
        self.current = None;
        Ok(())
    }

    fn create(&mut self) -> io::Result<Current> {
        let number = self.next_segment;
        self.next_segment += 1;
        let segment = self.disk.create(number)?;
        let salt = self.shared.salt();
        // Known before it is written to: whatever becomes of it, it will be removed.
        self.shared.lock().ledger.add_room(number, Arc::clone(&segment), salt, 0);
        if let Err(error) = segment.append(&mut [IoSlice::new(&frame::segment_head(salt))]) {
            self.discard(number);
            return Err(error);
        }
        self.shared.lock().ledger.grow(number, SEGMENT_HEAD as u64);
        Ok(Current { number, segment, size: SEGMENT_HEAD as u64 })
    }

    /// Removes a segment that holds nothing. Left there, one would be added with each try while a disk is full.
    fn discard(&self, number: u32) {
        if self.disk.remove(number).is_ok() {
            self.shared.lock().ledger.remove_room(number);
        }
    }

    fn written(&mut self, copies: Vec<Copy>, batch: Batch, places: Vec<Place>) {
        if self.shared.set_failing(false) {
            tracing::info!("the spool can be written again");
        }
        let mut places = places.into_iter();
        let mut inner = self.shared.lock();
        for copy in copies {
            if let Some(place) = places.next() {
                inner.ledger.relocate(copy.sequence, copy.from, place);
            }
            if copy.state.is_some() {
                places.next();
            }
        }
        let mut tickets = Vec::with_capacity(batch.events.len());
        for (New { ticket, frame }, place) in batch.events.into_iter().zip(places) {
            inner.queued -= u64::from(ticket.bytes);
            inner.ledger.insert(ticket.sequence, place);
            inner.ledger.keep(ticket.sequence, &frame);
            tickets.push(ticket);
        }
        drop(inner);
        if !tickets.is_empty() {
            measure::accepted(tickets.len());
            self.shared.offer(tickets);
        }
        batch.round.end(Ok(()), &mut self.recent);
    }

    fn failed(&mut self, batch: Batch, error: &io::Error) {
        if !self.shared.set_failing(true) {
            tracing::error!(%error, "the spool cannot be written: events are refused");
        }
        measure::failed();
        self.unsynced = None;
        self.current = None;
        self.copying = None;
        let mut inner = self.shared.lock();
        for New { ticket, .. } in &batch.events {
            inner.queued -= u64::from(ticket.bytes);
            inner.ledger.return_share(&ticket.webhook, u64::from(ticket.bytes));
        }
        inner.put_back(&batch.changed);
        drop(inner);
        batch.round.end(Err(SpoolError::Failed), &mut self.recent);
        thread::sleep(PAUSE);
    }

    // --- room

    /// Removes the oldest segments as long as nothing in them is needed.
    ///
    /// Never one behind another that stays: what is done with an event stands in a later segment than the event.
    fn remove_what_is_empty(&mut self) {
        loop {
            let Some((number, false)) = self.oldest() else { return };
            if let Err(error) = self.disk.remove(number) {
                tracing::warn!(segment = number, %error, "a segment that is not needed any more cannot be removed");
                return;
            }
            self.copying.take_if(|copying| copying.number == number);
            self.shared.lock().ledger.remove_room(number);
        }
    }

    /// Whether so much of the room is taken by what nobody needs that the oldest segment is to be freed.
    fn has_to_copy(&self) -> bool {
        if self.copy_after.is_some_and(|after| Instant::now() < after) {
            return false;
        }
        let garbage = self.shared.lock().ledger.garbage();
        // One that only cannot be removed has nothing to be copied.
        garbage > max_garbage(self.shared.max_bytes()) && self.oldest().is_some_and(|(_, is_needed)| is_needed)
    }

    /// The oldest segment but for the one that is written to, and whether anything in it is needed.
    fn oldest(&self) -> Option<(u32, bool)> {
        let current = self.current.as_ref().map(|current| current.number);
        self.shared.lock().ledger.oldest(current)
    }

    /// The next events of the oldest segment that are still needed.
    fn next_copies(&mut self) -> Vec<Copy> {
        let mut copying = match self.copying.take() {
            Some(copying) => copying,
            None => match self.begin_to_copy() {
                Ok(Some(copying)) => copying,
                Ok(None) => return Vec::new(),
                Err(error) => {
                    tracing::error!(%error, "the oldest segment of the spool cannot be read");
                    self.copy_after = Some(Instant::now() + COPY_AGAIN);
                    return Vec::new();
                }
            },
        };
        let mut copies = Vec::new();
        let mut size = 0;
        while size < COPY_AT_A_TIME && copying.at < copying.bytes.len() {
            let Some(record) = frame::read(copying.salt, &copying.bytes[copying.at..]) else {
                copying.at += 1;
                continue;
            };
            let length = FRAME_HEAD + record.payload.len();
            let from = Place { segment: copying.number, offset: copying.at as u32, length: length as u32 };
            let sequence = record.sequence;
            // Asked for each of them, as requests wait for the lock: what changes behind it is written behind the copy.
            let state = (record.kind == Kind::Event).then(|| self.state_at(sequence, from)).flatten();
            if let Some(state) = state {
                let payload = copying.bytes.slice(copying.at + FRAME_HEAD..copying.at + length);
                let salt = self.shared.salt();
                let event = Frame::new(salt, Kind::Event, sequence, |_| {}, payload);
                let state = state.map(|state| Frame::state(salt, sequence, &state));
                copies.push(Copy { sequence, from, event, state });
                size += length;
            }
            copying.at += length;
        }
        if copies.is_empty() {
            self.give_up(copying.number);
        } else {
            self.copying = Some(copying);
        }
        copies
    }

    /// What became so far of an event that stands at this place and is still needed.
    fn state_at(&self, sequence: u64, place: Place) -> Option<Option<State>> {
        let inner = self.shared.lock();
        inner.ledger.is_at(sequence, place).then(|| inner.ledger.state(sequence).cloned())
    }

    fn begin_to_copy(&self) -> io::Result<Option<Copying>> {
        let Some((number, _)) = self.oldest() else { return Ok(None) };
        let Some((segment, salt)) = self.shared.lock().ledger.segment(number) else { return Ok(None) };
        Ok(Some(Copying { number, salt, bytes: segment.read()?.into(), at: SEGMENT_HEAD }))
    }

    /// What could not be copied cannot be read any more.
    fn give_up(&mut self, segment: u32) {
        let lost = self.shared.lock().ledger.give_up(segment);
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
