//! Dead letters on disk.

use std::io;
use std::time::{Duration, SystemTime};

use super::{Death, Spool, StoredState};
use crate::event::EventId;
use crate::queue::{DeadLetter, DeadLetterQuery, StoredEvent, Ticket};

/// The year 2020, since 1970. A clock that shows an earlier time had not been set.
const EARLIEST: Duration = Duration::from_secs(1_577_836_800);

/// How many dead letters are looked at under one lock.
const LOOKS: usize = 1000;

impl Spool {
    /// Lists dead letters. The ledger is locked for a thousand of them at a time, so that the worker need not wait.
    pub(super) fn list(&self, query: &DeadLetterQuery) -> Vec<DeadLetter> {
        let (mut letters, mut after) = (Vec::new(), query.after);
        while letters.len() < query.limit && self.list_next(query, &mut after, &mut letters) {}
        letters
    }

    /// Looks at the dead letters after `after`. Returns whether there may be more.
    fn list_next(&self, query: &DeadLetterQuery, after: &mut Option<EventId>, letters: &mut Vec<DeadLetter>) -> bool {
        use std::ops::Bound::{Excluded, Unbounded};
        let (now, clock) = (self.clock().for_stamps(), self.clock().elapsed());
        let ledger = self.shared().ledger();
        let from = after.map_or(Unbounded, Excluded);
        let mut looked_at = 0;
        for (id, ticket) in ledger.dead().range((from, Unbounded)).take(LOOKS) {
            looked_at += 1;
            *after = Some(*id);
            let Some(state) = ledger.state(ticket.sequence) else { continue };
            let is_selected = |death: &Death| {
                let age = since(death, clock, Some(now)).unwrap_or_default();
                query.selects(&ticket.webhook, death.kind, &death.reason, age)
            };
            if state.dead.as_deref().is_some_and(is_selected) {
                letters.extend(letter(*id, ticket, state));
                if letters.len() == query.limit {
                    return false;
                }
            }
        }
        looked_at == LOOKS
    }

    /// Reads a dead letter. Blocks.
    pub(super) fn read(&self, id: EventId) -> io::Result<Option<(DeadLetter, StoredEvent)>> {
        let Some(ticket) = self.shared().ledger().dead().get(&id).cloned() else { return Ok(None) };
        let read = self.shared().load(ticket.sequence)?;
        Ok(read.and_then(|(event, state)| Some((letter(id, &ticket, &state)?, event))))
    }

    pub(super) fn replay_one(&self, id: EventId) -> bool {
        let mut ledger = self.shared().ledger();
        let Some(ticket) = ledger.take_dead(id) else { return false };
        let state = ledger.state(ticket.sequence).cloned().unwrap_or_default();
        drop(ledger);
        self.shared().note(ticket.sequence, crate::queue::State::from(state).replayed().into());
        self.shared().hand_out(vec![ticket.into()]);
        true
    }

    pub(super) fn remove(&self, id: EventId) -> bool {
        let ticket = self.shared().ledger().take_dead(id);
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
/// Within this process, the monotonic clock counts. For an earlier process, the wall clock counts if it is trusted
/// (`now`). A time recorded by a clock that had not been set counts from the start of this process.
fn since(death: &Death, since_start: Duration, now: Option<SystemTime>) -> Option<Duration> {
    match death.instant {
        Some(instant) => Some(instant.elapsed()),
        None if death.at < SystemTime::UNIX_EPOCH + EARLIEST => Some(since_start),
        None => now.and_then(|now| now.duration_since(death.at).ok()),
    }
}

fn letter(id: EventId, ticket: &Ticket, state: &StoredState) -> Option<DeadLetter> {
    let death = state.dead.as_deref()?;
    Some(DeadLetter {
        id,
        webhook: ticket.webhook.clone(),
        attempts: state.attempts,
        died_at: death.at,
        kind: death.kind,
        reason: death.reason.clone(),
        size: ticket.bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::event::DeliverErrorKind;

    const TODAY: Duration = Duration::from_secs(1_795_410_874);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn death(at: Duration, instant: Option<Instant>) -> Death {
        Death { at: SystemTime::UNIX_EPOCH + at, instant, kind: DeliverErrorKind::Permanent, reason: "no".into() }
    }

    #[test]
    fn the_age_of_a_letter_needs_a_trusted_clock() {
        let now = SystemTime::UNIX_EPOCH + TODAY;
        let since = |at, now| since(&death(at, None), Duration::from_secs(700), now);
        assert_eq!(since(TODAY - 15 * DAY, Some(now)), Some(15 * DAY));
        assert_eq!(since(TODAY - 15 * DAY, None), None, "the clock may be a year ahead");
        assert_eq!(since(TODAY + 365 * DAY, Some(now)), None, "it was a year ahead");
        assert_eq!(since(Duration::from_secs(5), Some(now)), Some(Duration::from_secs(700)), "it had not been set");
    }

    #[test]
    fn the_monotonic_clock_counts_the_age_of_a_letter_of_this_process() {
        for at in [Duration::ZERO, TODAY, TODAY + 365 * DAY] {
            let since = since(&death(at, Some(Instant::now())), DAY, Some(SystemTime::UNIX_EPOCH + TODAY));
            assert!(since.unwrap() < Duration::from_secs(60), "{since:?}");
        }
    }
}
