//! What is in the spool, without the events themselves: where each one stands, what became of it so far, and how much
//! room is taken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::frame;
use super::frame::Salt;
use super::progress::{Death, State};
use super::storage::Segment;
use crate::event::EventId;
use crate::queue::Ticket;

#[derive(Default)]
pub(super) struct Ledger {
    entries: HashMap<u64, Entry, foldhash::fast::RandomState>,
    /// Those that are not tried any more.
    dead: BTreeMap<EventId, Ticket>,
    /// By number. The last one is written to.
    rooms: BTreeMap<u32, Room>,
    /// What the last one has not been written to.
    unused: u64,
    /// The room that the next segment gets.
    idle: u64,
    sizes: Arc<Sizes>,
}

/// How much room is taken. Only the ledger changes it, and everybody may look.
#[derive(Default)]
pub(super) struct Sizes {
    /// The bytes of all rooms, and of the one that the next segment gets.
    taken: AtomicU64,
    /// Those of them that nothing of use has been written to so far.
    spare: AtomicU64,
    /// The bytes of all events, each with the newest note of what became of it.
    live: AtomicU64,
}

impl Sizes {
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// The bytes of what is still needed of nothing.
    pub(super) fn garbage(&self) -> u64 {
        // A note counts before it is written.
        self.taken().saturating_sub(self.live()).saturating_sub(self.spare.load(Ordering::Relaxed))
    }
}

/// No other thread changes it at the same time.
fn change(size: &AtomicU64, by: i64) {
    size.store(size.load(Ordering::Relaxed).saturating_add_signed(by), Ordering::Relaxed);
}

/// An event that is kept.
struct Entry {
    place: Place,
    /// `None` as long as nothing became of it.
    state: Option<Box<State>>,
    /// What the state takes on disk.
    state_bytes: u32,
    /// Until it is tried, or something became of it: most are delivered at once, and need not be read.
    fresh: Option<Bytes>,
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// A segment and what is in it.
struct Room {
    segment: Arc<dyn Segment>,
    salt: Salt,
    size: u64,
    live: u64,
}

impl Ledger {
    /// How many events wait or are under way.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len().saturating_sub(self.dead.len())
    }

    pub(super) fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    // --- events

    /// `payload` if it is in memory, too.
    pub(super) fn insert(&mut self, sequence: u64, place: Place, payload: Option<Bytes>) {
        self.live_in(place.segment, i64::from(place.length));
        let before = self.entries.insert(sequence, Entry { place, state: None, state_bytes: 0, fresh: payload });
        if let Some(before) = before {
            // A copy that was made to free a segment, read again: what is known of it stays.
            self.live_in(before.place.segment, -i64::from(before.place.length));
            if let Some(entry) = self.entries.get_mut(&sequence) {
                *entry = Entry { place, ..before };
            }
        }
    }

    /// Takes the payload of an event of which nothing became so far, if it is in memory.
    pub(super) fn take_fresh(&mut self, sequence: u64) -> Option<Bytes> {
        self.entries.get_mut(&sequence)?.fresh.take()
    }

    /// Where an event stands, with what became of it.
    pub(super) fn find(&self, sequence: u64) -> Option<(Place, State)> {
        let entry = self.entries.get(&sequence)?;
        Some((entry.place, entry.state.as_deref().cloned().unwrap_or_default()))
    }

    #[cfg(test)]
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    /// A segment, with its salt.
    pub(super) fn segment(&self, number: u32) -> Option<(Arc<dyn Segment>, Salt)> {
        self.rooms.get(&number).map(|room| (Arc::clone(&room.segment), room.salt))
    }

    /// Forgets an event. Whether there was one.
    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        let Some(entry) = self.entries.remove(&sequence) else { return false };
        self.live_in(entry.place.segment, -i64::from(entry.place.length));
        change(&self.sizes.live, -i64::from(entry.state_bytes));
        true
    }

    /// Takes note of what became of an event. Whether there is such an event.
    pub(super) fn note(&mut self, sequence: u64, state: State) -> bool {
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

    /// How much later an event is to be tried, if it is not to be tried at once.
    pub(super) fn left(&self, sequence: u64, now: SystemTime) -> Option<Duration> {
        let left = self.state(sequence)?.again?.left(now);
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn is_kept(&self, sequence: u64) -> bool {
        self.entries.contains_key(&sequence)
    }

    pub(super) fn state(&self, sequence: u64) -> Option<&State> {
        self.entries.get(&sequence)?.state.as_deref()
    }

    pub(super) fn is_at(&self, sequence: u64, place: Place) -> bool {
        self.entries.get(&sequence).is_some_and(|entry| entry.place == place)
    }

    /// Takes note of a copy of an event, unless it is not needed any more.
    pub(super) fn relocate(&mut self, sequence: u64, from: Place, to: Place) {
        if self.is_at(sequence, from) {
            self.insert(sequence, to, None);
        }
    }

    /// Forgets the events of a segment. Returns how many, and the dead letters among them; the worker comes to the
    /// others.
    pub(super) fn give_up(&mut self, segment: u32) -> (usize, Vec<Ticket>) {
        if self.rooms.get(&segment).is_none_or(|room| room.live == 0) {
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

    // --- those that are not tried any more

    pub(super) fn bury(&mut self, id: EventId, ticket: Ticket) {
        self.dead.insert(id, ticket);
    }

    pub(super) fn exhume(&mut self, id: EventId) -> Option<Ticket> {
        self.dead.remove(&id)
    }

    pub(super) fn dead(&self) -> &BTreeMap<EventId, Ticket> {
        &self.dead
    }

    pub(super) fn death(&self, ticket: &Ticket) -> Option<&Death> {
        self.state(ticket.sequence)?.dead.as_deref()
    }

    // --- room

    pub(super) fn add_room(&mut self, number: u32, segment: Arc<dyn Segment>, salt: Salt, size: u64) {
        self.rooms.insert(number, Room { segment, salt, size: 0, live: 0 });
        self.resize(number, size);
    }

    /// How large a segment is now.
    pub(super) fn resize(&mut self, number: u32, size: u64) {
        if let Some(room) = self.rooms.get_mut(&number) {
            let before = std::mem::replace(&mut room.size, size);
            change(&self.sizes.taken, size.cast_signed() - before.cast_signed());
        }
    }

    /// How many bytes of the segment that is written to have not been written to.
    pub(super) fn set_unused(&mut self, bytes: u64) {
        self.unused = bytes;
        self.sizes.spare.store(self.unused + self.idle, Ordering::Relaxed);
    }

    /// How much room the next segment gets.
    pub(super) fn set_idle(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.idle, bytes);
        change(&self.sizes.taken, bytes.cast_signed() - before.cast_signed());
        self.set_unused(self.unused);
    }

    pub(super) fn idle(&self) -> u64 {
        self.idle
    }

    /// The size of a segment.
    pub(super) fn size(&self, number: u32) -> u64 {
        self.rooms.get(&number).map_or(0, |room| room.size)
    }

    /// Returns how large it was.
    pub(super) fn remove_room(&mut self, number: u32) -> u64 {
        let size = self.size(number);
        self.resize(number, 0);
        self.rooms.remove(&number);
        size
    }

    /// The oldest segment but for the one that is written to, and whether it holds an event that is still needed.
    pub(super) fn oldest(&self, current: Option<u32>) -> Option<(u32, bool)> {
        let (number, room) = self.rooms.first_key_value().filter(|(number, _)| Some(**number) != current)?;
        Some((*number, room.live > 0))
    }

    fn live_in(&mut self, segment: u32, bytes: i64) {
        if let Some(room) = self.rooms.get_mut(&segment) {
            room.live = room.live.saturating_add_signed(bytes);
            change(&self.sizes.live, bytes);
        }
    }
}
