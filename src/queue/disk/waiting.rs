//! Waiting events on disk, for an operator.

use std::collections::HashSet;
use std::io;

use super::Spool;
use super::ledger::Waits;
use crate::event::EventId;
use crate::queue::{StoredEvent, WaitingEvent, WaitingPage, WaitingQuery};

impl Spool {
    /// Lists waiting events. Looks at each of them while the ledger is locked: some milliseconds for a million.
    pub(super) fn list_waiting(&self, query: &WaitingQuery) -> WaitingPage {
        let includes = |webhook: &_| query.includes(webhook);
        let (total, events) = self.shared().ledger().list_waiting(includes, query.after, query.limit);
        WaitingPage { total, events: events.into_iter().map(shown).collect() }
    }

    /// Reads a waiting event. Blocks.
    pub(super) fn read_waiting(&self, id: EventId) -> io::Result<Option<(WaitingEvent, StoredEvent)>> {
        let found = self.shared().ledger().find_waiting(&HashSet::from([id])).pop();
        let Some(waits) = found else { return Ok(None) };
        let read = self.shared().load(waits.ticket.sequence)?;
        Ok(read.map(|(event, _)| (shown(waits), event)))
    }
}

/// The queue adds whether the event is under way.
fn shown(waits: Waits) -> WaitingEvent {
    let Waits { id, ticket, attempts, at } = waits;
    WaitingEvent { id, webhook: ticket.webhook, attempts, size: ticket.bytes, next_attempt: at, under_way: false }
}
