//! What is to be written, and whether there is room for it.

use super::batch::{Frames, Span};
use super::event;
use super::frame::{Kind, Salt};
use super::ledger::Sizes;
use super::quota::{Shares, largest_event};
use crate::base::group::{Gathering, Gathers, Group};
use crate::config::WebhookKey;
use crate::event::Delivery;
use crate::queue::{QueueError, Ticket};

/// Bytes of events that may be on their way into a segment.
const MAX_QUEUED: u64 = 64 << 20;

/// Nobody waits for more bytes than these to be written at once.
const ENOUGH: u64 = 128 << 10;

/// So much of the room may be taken by what nobody needs before it is freed.
pub(super) fn max_garbage(max_bytes: u64) -> u64 {
    max_bytes / 8
}

/// What is to be written.
pub(super) struct Queue {
    /// Those who wait for what is written next.
    pub(super) gathering: Gathering<Result<(), QueueError>>,
    frames: Frames,
    /// Of the events among the frames.
    tickets: Vec<(Ticket, Span)>,
    /// The events whose state is to be written.
    pub(super) changed: Vec<u64>,
    /// The bytes of the events that are on their way into a segment.
    pub(super) queued: u64,
    pub(super) shares: Shares,
    next_sequence: u64,
    /// Nobody is there to deliver events.
    pub(super) is_refusing: bool,
    /// The writer is gone, or is to go.
    pub(super) closed: bool,
}

impl Gathers for Queue {
    type Outcome = Result<(), QueueError>;

    const MAX_TURNS: usize = 3;

    fn gathering(&mut self) -> &mut Gathering<Self::Outcome> {
        &mut self.gathering
    }

    fn is_enough(&self) -> bool {
        self.frames.length() >= ENOUGH
    }
}

/// What is written at once.
pub(super) struct Batch {
    /// Of those who wait until it is on disk.
    pub(super) group: Group<Result<(), QueueError>>,
    /// Whether there are any.
    pub(super) is_awaited: bool,
    pub(super) events: Frames,
    pub(super) tickets: Vec<(Ticket, Span)>,
    /// What became of earlier events.
    pub(super) notes: Frames,
    /// Which those are.
    pub(super) changed: Vec<u64>,
}

impl Queue {
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

    /// Takes an event that makes a frame of so many bytes, if there is room.
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
        self.tickets.push((Ticket { sequence, webhook, bytes }, span));
        Ok(())
    }

    /// Whether there is room for an event; it is then taken.
    fn admit(&mut self, webhook: &WebhookKey, bytes: u64, sizes: &Sizes, max_bytes: u64) -> Result<(), QueueError> {
        if self.closed || self.is_refusing {
            return Err(QueueError::Failed);
        }
        // A sixteenth is for notes and for the copies that free a segment; the garbage that is left in place comes off, too.
        let room = max_bytes - max_bytes / 16;
        let capacity = room - max_garbage(max_bytes);
        if bytes > largest_event(capacity) {
            return Err(QueueError::TooLarge);
        }
        let coming = self.queued + bytes;
        // In memory as long as the disk hangs; one always may.
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

    /// What there is. So much is `left` of the segment with a salt, and what comes next is put into `buffer`.
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

    /// The events are in a segment.
    pub(super) fn written(&mut self, bytes: u64) {
        self.queued -= bytes;
    }

    /// Takes back what could not be written, but for the events: their senders are told.
    pub(super) fn put_back(&mut self, batch: &Batch) {
        self.queued -= batch.events.length();
        for (ticket, _) in &batch.tickets {
            self.shares.give_back(&ticket.webhook, u64::from(ticket.bytes));
        }
        self.changed.extend_from_slice(&batch.changed);
    }
}
