//! What is in the spool, without the events themselves: where each one stands, what became of it so far, and how much
//! room is taken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Ticket;
use super::disk::Segment;
use super::frame::{self, Frame};
use super::state::{Death, State};
use crate::key::WebhookKey;
use crate::module::EventId;

#[derive(Default)]
pub(super) struct Ledger {
    entries: HashMap<u64, Entry, foldhash::fast::RandomState>,
    /// Those that are not tried any more.
    dead: BTreeMap<EventId, Ticket>,
    /// By number. The last one is written to.
    rooms: BTreeMap<u32, Room>,
    /// The bytes of all rooms.
    taken: u64,
    /// The bytes of all events, each with the newest note of what became of it.
    live: u64,
    /// How many bytes the events of a webhook take, those on their way into a segment included.
    shares: HashMap<WebhookKey, u64, foldhash::fast::RandomState>,
    /// What the fresh events take in memory.
    fresh: u64,
}

/// What fresh events may take in memory.
const MAX_FRESH: u64 = 4 << 20;

/// An event that is kept.
struct Entry {
    place: Place,
    /// `None` as long as nothing became of it.
    state: Option<Box<State>>,
    /// What the state takes on disk.
    state_bytes: u32,
    /// Until it is tried, or something became of it: most are delivered at once, and need not be read.
    fresh: Option<Box<[u8]>>,
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
    salt: u64,
    size: u64,
    live: u64,
}

impl Ledger {
    /// How many events wait or are under way.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len().saturating_sub(self.dead.len())
    }

    pub(super) fn live(&self) -> u64 {
        self.live
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The bytes of what is still needed of nothing.
    pub(super) fn garbage(&self) -> u64 {
        // A note counts before it is written.
        self.taken.saturating_sub(self.live)
    }

    // --- events

    pub(super) fn insert(&mut self, sequence: u64, place: Place) {
        self.live_in(place.segment, i64::from(place.length));
        let before = self.entries.insert(sequence, Entry { place, state: None, state_bytes: 0, fresh: None });
        if let Some(before) = before {
            // A copy that was made to free a segment, read again: what is known of it stays.
            self.live_in(before.place.segment, -i64::from(before.place.length));
            if let Some(entry) = self.entries.get_mut(&sequence) {
                *entry = Entry { place, ..before };
            }
        }
    }

    /// Keeps an event in memory, too, if there is room.
    pub(super) fn keep(&mut self, sequence: u64, frame: &Frame) {
        let Some(entry) = self.entries.get_mut(&sequence).filter(|_| self.fresh + frame.len() <= MAX_FRESH) else {
            return;
        };
        self.fresh += frame.len();
        entry.fresh = Some(frame.payload());
    }

    /// Takes the payload of an event of which nothing became so far, if it is in memory.
    pub(super) fn take_fresh(&mut self, sequence: u64) -> Option<Box<[u8]>> {
        let entry = self.entries.get_mut(&sequence)?;
        let payload = entry.fresh.take()?;
        self.fresh -= u64::from(entry.place.length);
        Some(payload)
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
    pub(super) fn segment(&self, number: u32) -> Option<(Arc<dyn Segment>, u64)> {
        self.rooms.get(&number).map(|room| (Arc::clone(&room.segment), room.salt))
    }

    /// Forgets an event. Whether there was one.
    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        self.take_fresh(sequence);
        let Some(entry) = self.entries.remove(&sequence) else { return false };
        self.live_in(entry.place.segment, -i64::from(entry.place.length));
        self.live = self.live.saturating_sub(u64::from(entry.state_bytes));
        true
    }

    /// Takes note of what became of an event. Whether there is such an event.
    pub(super) fn note(&mut self, sequence: u64, state: State) -> bool {
        self.take_fresh(sequence);
        let bytes = frame::state_length(&state);
        match self.entries.get_mut(&sequence) {
            Some(entry) => {
                let before = std::mem::replace(&mut entry.state_bytes, bytes);
                self.live = self.live.saturating_add(u64::from(bytes)).saturating_sub(u64::from(before));
                entry.state = Some(Box::new(state));
                true
            }
            None => false,
        }
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
            self.insert(sequence, to);
        }
    }

    /// Forgets the events of a segment. The shares of those that wait are returned when the worker comes to them.
    pub(super) fn give_up(&mut self, segment: u32) -> usize {
        if self.rooms.get(&segment).is_none_or(|room| room.live == 0) {
            return 0;
        }
        let lost: HashSet<u64> =
            self.entries.iter().filter(|(_, entry)| entry.place.segment == segment).map(|(seq, _)| *seq).collect();
        let lost_dead: Vec<_> =
            self.dead.iter().filter(|(_, ticket)| lost.contains(&ticket.sequence)).map(|(id, _)| *id).collect();
        for id in lost_dead {
            if let Some(ticket) = self.dead.remove(&id) {
                self.return_share(&ticket.webhook, u64::from(ticket.bytes));
            }
        }
        lost.iter().for_each(|sequence| {
            self.remove(*sequence);
        });
        lost.len()
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

    pub(super) fn add_room(&mut self, number: u32, segment: Arc<dyn Segment>, salt: u64, size: u64) {
        self.taken += size;
        self.rooms.insert(number, Room { segment, salt, size, live: 0 });
    }

    pub(super) fn grow(&mut self, number: u32, bytes: u64) {
        if let Some(room) = self.rooms.get_mut(&number) {
            room.size += bytes;
            self.taken += bytes;
        }
    }

    pub(super) fn shrink(&mut self, number: u32, bytes: u64) {
        if let Some(room) = self.rooms.get_mut(&number) {
            room.size = room.size.saturating_sub(bytes);
            self.taken = self.taken.saturating_sub(bytes);
        }
    }

    pub(super) fn remove_room(&mut self, number: u32) {
        if let Some(room) = self.rooms.remove(&number) {
            self.taken -= room.size;
        }
    }

    /// The oldest segment but for the one that is written to, and whether it holds an event that is still needed.
    pub(super) fn oldest(&self, current: Option<u32>) -> Option<(u32, bool)> {
        let (number, room) = self.rooms.first_key_value().filter(|(number, _)| Some(**number) != current)?;
        Some((*number, room.live > 0))
    }

    fn live_in(&mut self, segment: u32, bytes: i64) {
        if let Some(room) = self.rooms.get_mut(&segment) {
            room.live = room.live.saturating_add_signed(bytes);
            self.live = self.live.saturating_add_signed(bytes);
        }
    }

    // --- shares

    pub(super) fn share(&self, webhook: &WebhookKey) -> u64 {
        self.shares.get(webhook).copied().unwrap_or(0)
    }

    pub(super) fn take_share(&mut self, webhook: &WebhookKey, bytes: u64) {
        match self.shares.get_mut(webhook) {
            Some(share) => *share += bytes,
            None => {
                self.shares.insert(webhook.clone(), bytes);
            }
        }
    }

    pub(super) fn return_share(&mut self, webhook: &WebhookKey, bytes: u64) {
        if let Some(share) = self.shares.get_mut(webhook) {
            *share = share.saturating_sub(bytes);
            if *share == 0 {
                self.shares.remove(webhook);
            }
        }
    }
}
