//! The events that wait for their next attempt.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use tokio::time::Instant;

use crate::queue::Ticket;

/// Events that wait, the first one to be tried on top.
#[derive(Default)]
pub(super) struct Waits(BinaryHeap<Reverse<Waiting>>);

/// An event that waits, ordered by its time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    until: Instant,
    sequence: u64,
    ticket: Ticket,
}

impl Waits {
    pub(super) fn push(&mut self, ticket: Ticket, until: Instant) {
        self.0.push(Reverse(Waiting { until, sequence: ticket.sequence, ticket }));
    }

    /// When the first event is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse(waiting)| waiting.until)
    }

    /// Takes the next event that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Ticket> {
        self.next().filter(|until| *until <= now)?;
        self.0.pop().map(|Reverse(waiting)| waiting.ticket)
    }

    /// Takes those of these events that wait, in the order of their receipt.
    pub(super) fn take(&mut self, tickets: &[Ticket]) -> Vec<Ticket> {
        let wanted: HashSet<u64> = tickets.iter().map(|ticket| ticket.sequence).collect();
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|Reverse(waiting)| wanted.contains(&waiting.sequence));
        self.0 = left.into();
        let mut taken: Vec<_> = taken.into_iter().map(|Reverse(waiting)| waiting.ticket).collect();
        taken.sort_unstable();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::WebhookKey;

    #[test]
    fn events_are_taken_when_they_are_due_or_by_name() {
        let now = Instant::now();
        let ticket = |sequence| Ticket { sequence, webhook: WebhookKey::new("shop", "a").unwrap(), bytes: 1 };
        let mut waits = Waits::default();
        for (sequence, seconds) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
            waits.push(ticket(sequence), now + Duration::from_secs(seconds));
        }
        assert_eq!(waits.pop_due(now), None);
        assert_eq!(waits.take(&[ticket(4), ticket(3), ticket(9)]), [ticket(3), ticket(4)]);
        assert_eq!(waits.next(), Some(now + Duration::from_secs(10)));
        let due: Vec<_> = std::iter::from_fn(|| waits.pop_due(now + Duration::from_secs(30))).collect();
        assert_eq!((due, waits.next()), (vec![ticket(2), ticket(1)], None));
    }
}
