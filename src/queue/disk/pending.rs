//! The frames and notes that wait for the writer, and the check whether there is room for an event.

use super::batch::{Frames, Span};
use super::event;
use super::frame::{Kind, Salt};
use super::ledger::Sizes;
use super::quota::{Shares, largest_event};
use crate::base::group::{Gathering, Gathers, Group};
use crate::config::WebhookKey;
use crate::event::{Delivery, EventId};
use crate::queue::{QueueError, Ticket};

/// Bytes of events that may be queued in memory, or being written, at a time.
const MAX_QUEUED: u64 = 64 << 20;

/// Once this many bytes are queued, a write starts without waiting for more.
const ENOUGH: u64 = 128 << 10;

/// How many bytes of garbage are left in place before segments are compacted.
pub(super) fn max_garbage(max_bytes: u64) -> u64 {
    max_bytes / 8
}

/// The work that waits for the writer.
pub(super) struct Pending {
    /// The waiters for the next batch.
    pub(super) gathering: Gathering<Result<(), QueueError>>,
    frames: Frames,
    /// The events in `frames`.
    tickets: Vec<Queued>,
    /// Sequence numbers of events whose state is to be written.
    pub(super) changed: Vec<u64>,
    /// Bytes of events that are queued or being written.
    pub(super) queued: u64,
    pub(super) shares: Shares,
    next_sequence: u64,
    /// There is no worker to deliver events.
    pub(super) is_refusing: bool,
    /// The writer has ended, or is asked to end.
    pub(super) closed: bool,
}

/// An event in the frames.
pub(super) struct Queued {
    pub(super) id: EventId,
    pub(super) ticket: Ticket,
    pub(super) span: Span,
}

impl Gathers for Pending {
    type Outcome = Result<(), QueueError>;

    const MAX_TURNS: usize = 3;

    fn gathering(&mut self) -> &mut Gathering<Self::Outcome> {
        &mut self.gathering
    }

    fn is_enough(&self) -> bool {
        self.frames.length() >= ENOUGH
    }
}

/// The frames of one write, and the group that waits for them.
pub(super) struct Batch {
    /// The waiters for this batch.
    pub(super) group: Group<Result<(), QueueError>>,
    /// Whether there are waiters.
    pub(super) is_awaited: bool,
    pub(super) events: Frames,
    pub(super) tickets: Vec<Queued>,
    /// The states of earlier events.
    pub(super) notes: Frames,
    /// Sequence numbers of the events in `notes`.
    pub(super) changed: Vec<u64>,
}

impl Pending {
    pub(super) fn new(shares: Shares, next_sequence: u64) -> Self {
        Self {
            gathering: Gathering::default(),
            frames: Frames::new(Salt::random()),
            tickets: Vec::new(),
            changed: Vec::new(),
            queued: 0,
            shares,
            next_sequence,
            is_refusing: false,
            closed: false,
        }
    }

    /// Queues an event whose frame takes `bytes`, if there is room.
    pub(super) fn push(
        &mut self,
        delivery: &Delivery,
        bytes: u32,
        sizes: &Sizes,
        max_bytes: u64,
    ) -> Result<(), QueueError> {
        let webhook = delivery.webhook().key().clone();
        self.admit(&webhook, u64::from(bytes), sizes, max_bytes)?;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let head = |bytes: &mut Vec<u8>| event::encode_head(delivery, bytes);
        let span = self.frames.push(Kind::Event, sequence, head, delivery.body());
        self.tickets.push(Queued { id: delivery.id(), ticket: Ticket { sequence, webhook, bytes }, span });
        Ok(())
    }

    /// Reserves room for an event, if there is any.
    fn admit(&mut self, webhook: &WebhookKey, bytes: u64, sizes: &Sizes, max_bytes: u64) -> Result<(), QueueError> {
        if self.closed || self.is_refusing {
            return Err(QueueError::Failed);
        }
        // A sixteenth is reserved for notes and for compaction, an eighth for garbage that is left in place.
        let room = max_bytes - max_bytes / 16;
        let capacity = room - max_garbage(max_bytes);
        if bytes > largest_event(capacity) {
            return Err(QueueError::TooLarge);
        }
        let coming = self.queued + bytes;
        // Queued events take memory while the disk hangs. A single event is always allowed.
        let is_held_up = self.queued > 0 && coming > MAX_QUEUED;
        if is_held_up
            || sizes.live() + coming > capacity
            || sizes.taken() + coming > room
            || !self.shares.has_room(webhook, bytes, capacity)
        {
            return Err(QueueError::Full);
        }
        self.shares.take(webhook, bytes);
        self.queued = coming;
        Ok(())
    }

    /// Takes everything queued as one batch. `left` returns how many bytes are free in the segment with a salt. The next
    /// frames are put into `buffer`.
    pub(super) fn take(&mut self, buffer: Vec<u8>, left: impl FnOnce(Salt) -> u64) -> Batch {
        let expected = self.tickets.len();
        let salt = self.frames.salt();
        let next = if self.frames.length() < left(salt) { salt } else { Salt::random() };
        Batch {
            is_awaited: self.gathering.count() > 0,
            group: self.gathering.begin(),
            events: std::mem::replace(&mut self.frames, Frames::with(next, buffer)),
            tickets: std::mem::replace(&mut self.tickets, Vec::with_capacity(expected)),
            changed: std::mem::take(&mut self.changed),
            notes: Frames::new(salt),
        }
    }

    /// Events of this many bytes are in a segment now.
    pub(super) fn written(&mut self, bytes: u64) {
        self.queued -= bytes;
    }

    /// Undoes a batch that could not be written: notes are queued again, events are dropped, as their senders get an error.
    pub(super) fn put_back(&mut self, batch: &Batch) {
        self.queued -= batch.events.length();
        for Queued { ticket, .. } in &batch.tickets {
            self.shares.give_back(&ticket.webhook, u64::from(ticket.bytes));
        }
        self.changed.extend_from_slice(&batch.changed);
    }
}
