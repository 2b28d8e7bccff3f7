//! Events that are not tried any more, kept for an operator.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use super::{Death, Event, Spool, State, Ticket};
use crate::config::WebhookKey;
use crate::event::{DeliverErrorKind, Done, EventId};

/// 2020, since 1970: an earlier time is that of a clock that had not been set.
const EARLIEST: Duration = Duration::from_secs(1_577_836_800);

/// An event that was accepted and could not be delivered.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    id: EventId,
    webhook: WebhookKey,
    attempts: u32,
    died_at: SystemTime,
    kind: DeliverErrorKind,
    reason: Box<str>,
}

impl DeadLetter {
    /// The event's id.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The webhook that received it.
    pub fn webhook(&self) -> &WebhookKey {
        &self.webhook
    }

    /// How often it was tried.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When it was given up.
    pub fn died_at(&self) -> SystemTime {
        self.died_at
    }

    /// What went wrong at last.
    pub fn kind(&self) -> DeliverErrorKind {
        self.kind
    }

    /// What went wrong, in words.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// An event as it was received.
#[non_exhaustive]
pub struct Letter {
    /// When the whole body had been received.
    pub received_at: SystemTime,
    /// The request's header fields, credentials included.
    pub headers: http::HeaderMap,
    /// The request's body.
    pub body: bytes::Bytes,
}

/// Neither the header fields nor the body: both may hold secrets.
impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Spool {
    /// How many dead letters there are.
    pub fn dead_letter_count(&self) -> usize {
        self.shared().ledger().dead().len()
    }

    /// The dead letters behind `after` whose webhook is `wanted`, at most `limit`, in the order of their receipt.
    ///
    /// What is accepted meanwhile waits, so the limit should be in the hundreds; and `wanted` must not ask the spool.
    pub fn dead_letters(
        &self,
        after: Option<EventId>,
        limit: usize,
        wanted: impl Fn(&WebhookKey) -> bool,
    ) -> Vec<DeadLetter> {
        use std::ops::Bound::{Excluded, Unbounded};
        let ledger = self.shared().ledger();
        let from = after.map_or(Unbounded, Excluded);
        let letters = ledger.dead().range((from, Unbounded)).filter(|(_, ticket)| wanted(&ticket.webhook));
        letters.filter_map(|(id, ticket)| letter(*id, ticket, ledger.state(ticket.sequence)?)).take(limit).collect()
    }

    /// One of them.
    pub fn dead_letter(&self, id: EventId) -> Option<DeadLetter> {
        let ledger = self.shared().ledger();
        let ticket = ledger.dead().get(&id)?;
        letter(id, ticket, ledger.state(ticket.sequence)?)
    }

    /// Reads the event of a dead letter. Blocks.
    ///
    /// # Errors
    ///
    /// When it cannot be read; `None` when there is no such letter.
    pub fn read_dead_letter(&self, id: EventId) -> io::Result<Option<Letter>> {
        let ticket = self.shared().ledger().dead().get(&id).cloned();
        let Some(ticket) = ticket else { return Ok(None) };
        let event = self.load(&ticket)?;
        Ok(event.map(|(Event { received_at, headers, body, .. }, _)| Letter { received_at, headers, body }))
    }

    /// Delivers a dead letter again, as if it had just been accepted; of a chain, what is not done yet. `false` if there is
    /// no such letter.
    pub fn replay(&self, id: EventId) -> bool {
        let mut ledger = self.shared().ledger();
        let Some(ticket) = ledger.exhume(id) else { return false };
        let done = ledger.state(ticket.sequence).map_or(0, |state| Done::from_bits(state.done).forgiven().bits());
        drop(ledger);
        self.note(&ticket, State { done, ..State::default() });
        self.shared().offer(vec![ticket]);
        true
    }

    /// Forgets a dead letter. `false` if there is no such letter.
    pub fn remove_dead_letter(&self, id: EventId) -> bool {
        let ticket = self.shared().ledger().exhume(id);
        ticket.map(|ticket| self.finish(&[ticket])).is_some()
    }

    /// Forgets the dead letters that were given up so long ago. Returns how many.
    pub(crate) fn forget_dead_letters(&self, age: Duration) -> usize {
        let (clock, now) = (self.clock(), self.clock().for_expiry());
        let ledger = self.shared().ledger();
        let is_old = |ticket: &Ticket| {
            let since = ledger.death(ticket).and_then(|death| since(death, clock.elapsed(), now));
            since.is_some_and(|since| since > age)
        };
        let old: Vec<_> = ledger.dead().iter().filter(|(_, ticket)| is_old(ticket)).map(|(id, _)| *id).collect();
        drop(ledger);
        old.into_iter().filter(|id| self.remove_dead_letter(*id)).count()
    }

    /// The event is not tried any more.
    pub(crate) fn bury(&self, id: EventId, ticket: Ticket, state: State) {
        self.shared().bury(id, ticket, state);
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
