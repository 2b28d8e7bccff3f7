//! Events that are not tried any more.

use std::io;
use std::time::{Duration, SystemTime};

use super::{Death, Spool, State};
use crate::event::EventId;
use crate::queue::{DeadLetter, DeadLetterQuery, StoredEvent, Ticket};

/// 2020, since 1970: an earlier time is that of a clock that had not been set.
const EARLIEST: Duration = Duration::from_secs(1_577_836_800);

impl Spool {
    /// What is accepted meanwhile waits, so the limit should be in the hundreds.
    pub(super) fn list(&self, query: &DeadLetterQuery) -> Vec<DeadLetter> {
        use std::ops::Bound::{Excluded, Unbounded};
        let ledger = self.shared().ledger();
        let from = query.after.map_or(Unbounded, Excluded);
        let letters = ledger.dead().range((from, Unbounded)).filter(|(_, ticket)| query.includes(&ticket.webhook));
        let letters = letters.filter_map(|(id, ticket)| letter(*id, ticket, ledger.state(ticket.sequence)?));
        letters.take(query.limit).collect()
    }

    /// Reads a dead letter. Blocks.
    pub(super) fn read(&self, id: EventId) -> io::Result<Option<(DeadLetter, StoredEvent)>> {
        let Some(ticket) = self.shared().ledger().dead().get(&id).cloned() else { return Ok(None) };
        let read = self.shared().load(ticket.sequence)?;
        Ok(read.and_then(|(event, state)| Some((letter(id, &ticket, &state)?, event))))
    }

    pub(super) fn replay_one(&self, id: EventId) -> bool {
        let mut ledger = self.shared().ledger();
        let Some(ticket) = ledger.exhume(id) else { return false };
        let state = ledger.state(ticket.sequence).cloned().unwrap_or_default();
        drop(ledger);
        self.shared().note(ticket.sequence, crate::queue::State::from(state).replayed().into());
        self.shared().offer(vec![ticket.into()]);
        true
    }

    pub(super) fn remove(&self, id: EventId) -> bool {
        let ticket = self.shared().ledger().exhume(id);
        ticket.map(|ticket| self.shared().finish(&[ticket])).is_some()
    }

    pub(super) fn expire(&self, age: Duration) -> usize {
        let (clock, now) = (self.clock(), self.clock().for_expiry());
        let ledger = self.shared().ledger();
        let is_old = |ticket: &Ticket| {
            let since = ledger.death(ticket).and_then(|death| since(death, clock.elapsed(), now));
            since.is_some_and(|since| since > age)
        };
        let old: Vec<_> = ledger.dead().iter().filter(|(_, ticket)| is_old(ticket)).map(|(id, _)| *id).collect();
        drop(ledger);
        old.into_iter().filter(|id| self.remove(*id)).count()
    }
}

/// How long ago an event was given up, if that is known.
///
/// If it was in this process, the monotonic clock knows. Else it is known only while the wall clock is believed (`now`);
/// and if the time was written down by a clock that had not been set, it counts from the start of this process.
fn since(death: &Death, since_start: Duration, now: Option<SystemTime>) -> Option<Duration> {
    match death.here {
        Some(here) => Some(here.elapsed()),
        None if death.at < SystemTime::UNIX_EPOCH + EARLIEST => Some(since_start),
        None => now.and_then(|now| now.duration_since(death.at).ok()),
    }
}

fn letter(id: EventId, ticket: &Ticket, state: &State) -> Option<DeadLetter> {
    let death = state.dead.as_deref()?;
    Some(DeadLetter {
        id,
        webhook: ticket.webhook.clone(),
        attempts: state.attempts,
        died_at: death.at,
        kind: death.kind,
        reason: death.reason.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::event::DeliverErrorKind;

    const TODAY: Duration = Duration::from_secs(1_795_410_874);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn death(at: Duration, here: Option<Instant>) -> Death {
        Death { at: SystemTime::UNIX_EPOCH + at, here, kind: DeliverErrorKind::Permanent, reason: "no".into() }
    }

    #[test]
    fn a_letter_is_no_older_than_a_clock_that_is_believed_says() {
        let now = SystemTime::UNIX_EPOCH + TODAY;
        let since = |at, now| since(&death(at, None), Duration::from_secs(700), now);
        assert_eq!(since(TODAY - 15 * DAY, Some(now)), Some(15 * DAY));
        assert_eq!(since(TODAY - 15 * DAY, None), None, "the clock may be a year ahead");
        assert_eq!(since(TODAY + 365 * DAY, Some(now)), None, "it was a year ahead");
        assert_eq!(since(Duration::from_secs(5), Some(now)), Some(Duration::from_secs(700)), "it had not been set");
    }

    #[test]
    fn a_letter_of_this_process_is_as_old_as_the_monotonic_clock_says() {
        for at in [Duration::ZERO, TODAY, TODAY + 365 * DAY] {
            let since = since(&death(at, Some(Instant::now())), DAY, Some(SystemTime::UNIX_EPOCH + TODAY));
            assert!(since.unwrap() < Duration::from_secs(60), "{since:?}");
        }
    }
}
