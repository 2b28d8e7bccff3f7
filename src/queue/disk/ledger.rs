//! The index of the spool: the position and the state of each event, and the sizes of the segments. The events
//! themselves are on disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::frame;
use super::frame::Salt;
use super::state::{Death, StoredState};
use super::storage::Segment;
use crate::event::EventId;
use crate::queue::Ticket;

#[derive(Default)]
pub(super) struct Ledger {
    entries: HashMap<u64, Entry, foldhash::fast::RandomState>,
    /// The dead letters.
    dead: BTreeMap<EventId, Ticket>,
    /// The segments by number. The last one is the current segment.
    segments: BTreeMap<u32, SegmentEntry>,
    /// Preallocated bytes of the current segment that are not written to yet.
    unwritten: u64,
    /// Size of the recycled file that the next segment is made of.
    recycled: u64,
    sizes: Arc<Sizes>,
}

/// The sizes of the spool. Only the ledger changes them; any thread may read them.
#[derive(Default)]
pub(super) struct Sizes {
    /// Bytes of all segments and of the recycled file.
    taken: AtomicU64,
    /// Bytes of `taken` that no frame has been written to yet.
    spare: AtomicU64,
    /// Bytes of all events, each with its newest state.
    live: AtomicU64,
}

impl Sizes {
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Bytes occupied by records that nothing needs any more.
    pub(super) fn garbage(&self) -> u64 {
        // A state counts as live before it is written, so this can be too small for a moment.
        self.taken().saturating_sub(self.live()).saturating_sub(self.spare.load(Ordering::Relaxed))
    }
}

/// Adds `by`. The ledger is locked, so only one thread at a time changes the size.
fn change(size: &AtomicU64, by: i64) {
    size.store(size.load(Ordering::Relaxed).saturating_add_signed(by), Ordering::Relaxed);
}

/// An event in the spool.
struct Entry {
    place: Place,
    /// `None` until the event was tried for the first time.
    state: Option<Box<StoredState>>,
    /// Bytes of the state's frame on disk.
    state_bytes: u32,
    /// The payload, kept in memory until the event is first tried: most events are tried at once, and need not be read.
    fresh: Option<Bytes>,
}

/// The position of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// A segment, its size, and how many bytes of it are live records.
struct SegmentEntry {
    segment: Arc<dyn Segment>,
    salt: Salt,
    size: u64,
    live: u64,
}

impl Ledger {
    /// How many events wait or are being tried.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len().saturating_sub(self.dead.len())
    }

    pub(super) fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    // --- events

    /// Adds an event, with its payload if that is in memory.
    pub(super) fn insert(&mut self, sequence: u64, place: Place, payload: Option<Bytes>) {
        self.live_in(place.segment, i64::from(place.length));
        let before = self.entries.insert(sequence, Entry { place, state: None, state_bytes: 0, fresh: payload });
        if let Some(before) = before {
            // The copy that compaction made, read after the original: the state stays.
            self.live_in(before.place.segment, -i64::from(before.place.length));
            if let Some(entry) = self.entries.get_mut(&sequence) {
                *entry = Entry { place, ..before };
            }
        }
    }

    /// Takes the payload of an event that was not tried yet, if it is in memory.
    pub(super) fn take_fresh(&mut self, sequence: u64) -> Option<Bytes> {
        self.entries.get_mut(&sequence)?.fresh.take()
    }

    /// The position and the state of an event.
    pub(super) fn find(&self, sequence: u64) -> Option<(Place, StoredState)> {
        let entry = self.entries.get(&sequence)?;
        Some((entry.place, entry.state.as_deref().cloned().unwrap_or_default()))
    }

    #[cfg(test)]
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    /// A segment with its salt.
    pub(super) fn segment(&self, number: u32) -> Option<(Arc<dyn Segment>, Salt)> {
        self.segments.get(&number).map(|entry| (Arc::clone(&entry.segment), entry.salt))
    }

    /// Removes an event. Returns `false` if there is no such event.
    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        let Some(entry) = self.entries.remove(&sequence) else { return false };
        self.live_in(entry.place.segment, -i64::from(entry.place.length));
        change(&self.sizes.live, -i64::from(entry.state_bytes));
        true
    }

    /// Records the state of an event. Returns `false` if there is no such event.
    pub(super) fn note(&mut self, sequence: u64, state: StoredState) -> bool {
        let bytes = frame::state_length(&state);
        match self.entries.get_mut(&sequence) {
            Some(entry) => {
                let before = std::mem::replace(&mut entry.state_bytes, bytes);
                change(&self.sizes.live, i64::from(bytes) - i64::from(before));
                entry.state = Some(Box::new(state));
                entry.fresh = None;
                true
            }
            None => false,
        }
    }

    /// How long an event has to wait until it is due; `None` if it is due.
    pub(super) fn left(&self, sequence: u64, now: SystemTime) -> Option<Duration> {
        let left = self.state(sequence)?.retry?.left(now);
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn is_kept(&self, sequence: u64) -> bool {
        self.entries.contains_key(&sequence)
    }

    pub(super) fn state(&self, sequence: u64) -> Option<&StoredState> {
        self.entries.get(&sequence)?.state.as_deref()
    }

    pub(super) fn is_at(&self, sequence: u64, place: Place) -> bool {
        self.entries.get(&sequence).is_some_and(|entry| entry.place == place)
    }

    /// Records the new position of an event, if the event is still at its old one.
    pub(super) fn relocate(&mut self, sequence: u64, from: Place, to: Place) {
        if self.is_at(sequence, from) {
            self.insert(sequence, to, None);
        }
    }

    /// Removes the events of a segment. Returns their number and the tickets of the dead letters among them; the worker
    /// holds the other tickets.
    pub(super) fn give_up(&mut self, segment: u32) -> (usize, Vec<Ticket>) {
        if self.segments.get(&segment).is_none_or(|entry| entry.live == 0) {
            return (0, Vec::new());
        }
        let lost: HashSet<u64> =
            self.entries.iter().filter(|(_, entry)| entry.place.segment == segment).map(|(seq, _)| *seq).collect();
        let lost_dead: Vec<_> =
            self.dead.iter().filter(|(_, ticket)| lost.contains(&ticket.sequence)).map(|(id, _)| *id).collect();
        let lost_dead = lost_dead.iter().filter_map(|id| self.dead.remove(id)).collect();
        lost.iter().for_each(|sequence| {
            self.remove(*sequence);
        });
        (lost.len(), lost_dead)
    }

    // --- dead letters

    pub(super) fn bury(&mut self, id: EventId, ticket: Ticket) {
        self.dead.insert(id, ticket);
    }

    pub(super) fn take_dead(&mut self, id: EventId) -> Option<Ticket> {
        self.dead.remove(&id)
    }

    pub(super) fn dead(&self) -> &BTreeMap<EventId, Ticket> {
        &self.dead
    }

    pub(super) fn death(&self, ticket: &Ticket) -> Option<&Death> {
        self.state(ticket.sequence)?.dead.as_deref()
    }

    // --- segments

    pub(super) fn add_segment(&mut self, number: u32, segment: Arc<dyn Segment>, salt: Salt, size: u64) {
        self.segments.insert(number, SegmentEntry { segment, salt, size: 0, live: 0 });
        self.resize(number, size);
    }

    /// Sets the size of a segment.
    pub(super) fn resize(&mut self, number: u32, size: u64) {
        if let Some(entry) = self.segments.get_mut(&number) {
            let before = std::mem::replace(&mut entry.size, size);
            change(&self.sizes.taken, size.cast_signed() - before.cast_signed());
        }
    }

    /// Sets how many preallocated bytes of the current segment are not written to yet.
    pub(super) fn set_unwritten(&mut self, bytes: u64) {
        self.unwritten = bytes;
        self.sizes.spare.store(self.unwritten + self.recycled, Ordering::Relaxed);
    }

    /// Sets the size of the recycled file.
    pub(super) fn set_recycled(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.recycled, bytes);
        change(&self.sizes.taken, bytes.cast_signed() - before.cast_signed());
        self.set_unwritten(self.unwritten);
    }

    pub(super) fn recycled(&self) -> u64 {
        self.recycled
    }

    /// The size of a segment.
    pub(super) fn size(&self, number: u32) -> u64 {
        self.segments.get(&number).map_or(0, |entry| entry.size)
    }

    /// Removes a segment. Returns its size.
    pub(super) fn remove_segment(&mut self, number: u32) -> u64 {
        let size = self.size(number);
        self.resize(number, 0);
        self.segments.remove(&number);
        size
    }

    /// The oldest segment except the current one, and whether it holds live records.
    pub(super) fn oldest(&self, current: Option<u32>) -> Option<(u32, bool)> {
        let (number, entry) = self.segments.first_key_value().filter(|(number, _)| Some(**number) != current)?;
        Some((*number, entry.live > 0))
    }

    fn live_in(&mut self, segment: u32, bytes: i64) {
        if let Some(entry) = self.segments.get_mut(&segment) {
            entry.live = entry.live.saturating_add_signed(bytes);
            change(&self.sizes.live, bytes);
        }
    }
}
