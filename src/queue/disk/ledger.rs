//! The index of the spool: the position and the state of each event, and the sizes of the segments. The events
//! themselves are on disk.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::frame;
use super::frame::Salt;
use super::state::{Death, StoredState};
use super::storage::Segment;
use crate::config::WebhookKey;
use crate::event::EventId;
use crate::queue::Ticket;

#[derive(Default)]
pub(super) struct Ledger {
    entries: HashMap<u64, Entry, foldhash::fast::RandomState>,
    /// The dead letters.
    dead: BTreeMap<EventId, Ticket>,
    /// No waiting event has a smaller sequence number.
    oldest: u64,
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
    id: EventId,
    webhook: WebhookKey,
    place: Place,
    /// `None` until the event was tried for the first time.
    state: Option<Box<StoredState>>,
    /// Bytes of the state's frame on disk.
    state_bytes: u32,
    /// The payload, kept in memory until the event is first tried: most events are tried at once, and need not be read.
    fresh: Option<Bytes>,
}

impl Entry {
    fn is_waiting(&self) -> bool {
        self.state.as_deref().is_none_or(|state| state.dead.is_none())
    }

    fn ticket(&self, sequence: u64) -> Ticket {
        // The frame has the same length wherever it is.
        Ticket { sequence, webhook: self.webhook.clone(), bytes: self.place.length }
    }
}

/// An event as it is when it is added.
pub(super) struct Added {
    pub(super) id: EventId,
    pub(super) webhook: WebhookKey,
    pub(super) place: Place,
    /// The payload, if it is in memory.
    pub(super) payload: Option<Bytes>,
}

/// An event that waits or is being tried.
pub(super) struct Waits {
    pub(super) id: EventId,
    pub(super) ticket: Ticket,
    pub(super) attempts: u32,
    /// When the next attempt is due.
    pub(super) at: Option<SystemTime>,
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

    /// Adds an event, or records the new position of an event that is there: recovery reads the copy that compaction
    /// made after the original.
    pub(super) fn insert(&mut self, sequence: u64, added: Added) {
        let Added { id, webhook, place, payload } = added;
        if self.is_kept(sequence) {
            return self.place(sequence, place);
        }
        self.live_in(place.segment, i64::from(place.length));
        self.oldest = self.oldest.min(sequence);
        self.entries.insert(sequence, Entry { id, webhook, place, state: None, state_bytes: 0, fresh: payload });
    }

    /// Records the new position of an event. Its state stays.
    fn place(&mut self, sequence: u64, place: Place) {
        let Some(entry) = self.entries.get_mut(&sequence) else { return };
        let before = std::mem::replace(&mut entry.place, place);
        self.live_in(place.segment, i64::from(place.length));
        self.live_in(before.segment, -i64::from(before.length));
    }

    /// The id of the oldest event that waits or is being tried.
    pub(super) fn oldest_waiting(&mut self) -> Option<EventId> {
        if self.waiting() == 0 {
            return None;
        }
        // Each number is passed once, unless a dead letter is replayed.
        for _ in 0..self.entries.len() {
            if let Some(entry) = self.entries.get(&self.oldest).filter(|entry| entry.is_waiting()) {
                return Some(entry.id);
            }
            self.oldest += 1;
        }
        // There is a large gap in the numbers.
        let waiting = self.entries.iter().filter(|(_, entry)| entry.is_waiting());
        let (sequence, id) = waiting.map(|(sequence, entry)| (*sequence, entry.id)).min()?;
        self.oldest = sequence;
        Some(id)
    }

    /// Counts the events of these webhooks that wait, and lists the first `limit` of them after `after`, in the order of
    /// their ids. A look at each event takes some nanoseconds, so there is no index by id, which would take memory.
    pub(super) fn list_waiting(
        &self,
        includes: impl Fn(&WebhookKey) -> bool,
        after: Option<EventId>,
        limit: usize,
    ) -> (usize, Vec<Waits>) {
        let (mut total, mut first) = (0, BinaryHeap::new());
        for (sequence, entry) in self.entries.iter().filter(|(_, entry)| entry.is_waiting()) {
            if !includes(&entry.webhook) {
                continue;
            }
            total += 1;
            if after.is_none_or(|after| entry.id > after) {
                first.push((entry.id, *sequence));
                if first.len() > limit {
                    first.pop();
                }
            }
        }
        let first = first.into_sorted_vec();
        (total, first.into_iter().filter_map(|(_, sequence)| self.waits(sequence)).collect())
    }

    /// Those of these events that wait or are being tried.
    pub(super) fn find_waiting(&self, ids: &HashSet<EventId>) -> Vec<Waits> {
        let is_wanted = |entry: &Entry| ids.contains(&entry.id) && entry.is_waiting();
        let found = self.entries.iter().filter(|(_, entry)| is_wanted(entry));
        found.filter_map(|(sequence, _)| self.waits(*sequence)).collect()
    }

    fn waits(&self, sequence: u64) -> Option<Waits> {
        let entry = self.entries.get(&sequence)?;
        let (attempts, retry) = entry.state.as_deref().map_or((0, None), |state| (state.attempts, state.retry));
        Some(Waits { id: entry.id, ticket: entry.ticket(sequence), attempts, at: retry.map(|retry| retry.at) })
    }

    /// Records that an event is due at once. Returns whether that is news.
    pub(super) fn end_wait(&mut self, sequence: u64) -> bool {
        let Some(state) = self.state(sequence).filter(|state| state.retry.is_some()) else { return false };
        let state = StoredState { retry: None, ..state.clone() };
        self.note(sequence, state)
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
                if state.dead.is_none() {
                    self.oldest = self.oldest.min(sequence);
                }
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
            self.place(sequence, to);
            if let Some(entry) = self.entries.get_mut(&sequence) {
                entry.fresh = None;
            }
        }
    }

    /// Removes the events of a segment. Returns their tickets.
    pub(super) fn give_up(&mut self, segment: u32) -> Vec<Ticket> {
        if self.segments.get(&segment).is_none_or(|entry| entry.live == 0) {
            return Vec::new();
        }
        let lost = self.entries.iter().filter(|(_, entry)| entry.place.segment == segment);
        let (ids, lost): (Vec<_>, Vec<_>) = lost.map(|(sequence, entry)| (entry.id, entry.ticket(*sequence))).unzip();
        for (id, ticket) in ids.iter().zip(&lost) {
            self.dead.remove(id);
            self.remove(ticket.sequence);
        }
        lost
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
