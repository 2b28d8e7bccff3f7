//! What to do next, and when what was learned may be published.
//!
//! The machine is pure: time is a number that comes in with each input, randomness a seed, and what is to be done goes
//! out as commands. Its rules:
//!
//! * What is `applied` is moved by a list, by an event, or by a proof that held; by nothing else. The watch goes on
//!   behind it.
//! * A watch that etcd refuses arrives as an ordinary message: `canceled` is looked at before all else.
//! * The proof is a linearizable read of the keys under the prefix that changed after `applied`. None changed, and there
//!   are as many keys as we know: then what we hold is what etcd held when it answered, whatever its version. Keys that
//!   did change may still be under way on the watch; when they do not come, everything is read again.
//! * Keys that change all the time do not hide a change that the watch lost. The number of keys in each answer is compared
//!   with the number here at the answer's own revision, which may be behind or ahead of what is applied: one that is merely
//!   late never differs. Keys that changed since the last proof are compared too, by their revisions, up to 1000 of them.
//!   Four answers in a row that differ, whatever the watch brings in between, have everything read again.
//! * A header's revision is never a place to resume from.
//! * A request for a proof causes a look: etcd names its revision and counts its keys. If the revision is the applied one,
//!   the look is a proof; if not, the read of the keys follows. Looks are shared and paced, and so are these reads.
//! * Each event must follow from what is known of its key. One that does not tells of another that was missed: it is not
//!   published, and everything is read again.
//! * Revisions and versions are the same in an etcd that was wiped and written by the same script again. So the values
//!   are compared, by digest: on each connection on which nothing was listed, and now and then: the audit. Before the
//!   audit has held, no proof of that connection is published. A difference is another history.
//! * A linearizable read of another cluster, of an earlier raft term or of an earlier revision tells of another history: a
//!   backup was restored, or the data wiped. So does a past that is not the one that was lived through here, which each
//!   new connection is asked about. It is asked for twice, then taken over as a new epoch.
//! * An empty list is asked for twice before it empties a configuration that was not.

mod audit;
mod backoff;
mod exchange;
mod index;
mod known;
mod listing;
mod pace;
mod tally;
mod watching;

use std::time::Duration;

use self::backoff::Backoff;
pub(super) use self::exchange::*;
use self::index::Index;
pub(super) use self::known::{Known, Meta, Revision};
use self::listing::{LARGEST_PAGE, Listing};
use self::watching::{Untrue, Values, Watching};
use crate::store::{ErrorKind, ListReason};

/// A connection that held this long was good: the next break starts with a short wait again.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// How often every key is compared, give or take a fifth.
const AUDIT_EVERY: Duration = Duration::from_secs(600);

/// Between two looks at another history.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// When etcd's past is gone, or a change was lost, it is for many receivers at the same moment: each waits for a time of
/// its own below this before it reads everything.
const SPREAD: Duration = Duration::from_secs(2);

/// Between two looks at an empty list.
const CONFIRM_EMPTY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Machine {
    endpoints: usize,
    endpoint: usize,
    random: fastrand::Rng,
    backoff: Backoff,
    /// For credentials that were refused: each try costs etcd a slow hash.
    refused: Backoff,
    /// How many keys a page of a list may hold: fewer once one was too large to be decoded, or too slow.
    page: i64,
    /// What is published: the newest header of its history, with the revision that is applied.
    held: Option<Header>,
    /// Every key at what is held.
    index: Index,
    /// Why everything must be read, if what is held is no place to go on from.
    must_list: Option<ListReason>,
    /// Whether another history has been seen once.
    doubted: bool,
    /// Whether it has been seen again: what is listed next begins an epoch.
    other_history: bool,
    /// Somebody has asked for a proof while there was no watch to hold it against.
    wanted: bool,
    audit_at: Time,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting {
        asked: Time,
    },
    Listing(Listing),
    Opening {
        /// Where a linearizable read found etcd. The watch may be another member's, that is behind.
        head: Revision,
        /// Whether the values are proven, by a list.
        values: Values,
    },
    Watching(Box<Watching>),
}

impl Machine {
    /// For a cluster with so many endpoints.
    pub(super) fn new(endpoints: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            endpoints,
            // Many receivers that start together do not all meet at the first member.
            endpoint: random.usize(..endpoints.max(1)),
            random,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            refused: Backoff::new(Duration::from_secs(2), Duration::from_secs(60)),
            page: LARGEST_PAGE,
            held: None,
            index: Index::default(),
            must_list: Some(ListReason::Start),
            doubted: false,
            other_history: false,
            wanted: false,
            audit_at: AUDIT_EVERY,
            state: State::Idle,
        }
    }

    /// Goes on from what an earlier process has left: its header, with the revision it had applied, and every key.
    ///
    /// Nobody knows what happened to etcd meanwhile: the values are compared on the first connection.
    pub(super) fn resume<'a>(&mut self, held: Header, keys: impl IntoIterator<Item = (&'a [u8], Known)>) {
        for (key, known) in keys {
            self.index.insert(key, known);
        }
        self.held = Some(held);
        self.must_list = None;
    }

    /// Takes one input at `now` and says what to do.
    pub(super) fn step(&mut self, now: Time, input: Input) -> Vec<Command> {
        let told = match &input {
            Input::Proof(Proof { header, after, .. }) | Input::Looked(Look { header, after, .. }) => {
                Some((*header, *after))
            }
            _ => None,
        };
        if let (State::Watching(_), Some((header, after))) = (&self.state, told)
            && !self.continues(header, after)
        {
            let reason = "etcd's history went back, or it is another cluster".to_owned();
            return self.give_up(now, Fault { kind: ErrorKind::HistoryChanged, reason });
        }
        let outcome = match (&mut self.state, input) {
            (_, Input::Fault(fault)) => return self.fault(now, fault),
            (State::Idle, Input::Start | Input::Woke) => {
                self.state = State::Connecting { asked: now };
                let index = &self.index;
                let memory = |held: Header| Memory { at: held.revision, newest: index.newest(), keys: index.len() };
                let memory = self.held.map(memory);
                return vec![Command::Connect { endpoint: self.endpoint, memory }];
            }
            (&mut State::Connecting { asked }, Input::Connected(header, past)) => {
                return self.connected(now, asked, header, &past);
            }
            (State::Listing(_), Input::Page(page)) => return self.page(page),
            (State::Listing(listing), Input::Woke) => {
                listing.asked = now;
                return vec![Command::Begin(listing.reason), listing.first_page()];
            }
            (&mut State::Opening { head, values }, Input::Opened { revision }) => {
                return self.opened(now, revision.max(head), values);
            }
            (State::Watching(_), Input::Message(Message { canceled: Some(canceled), .. })) => {
                return self.fault(now, canceled);
            }
            (State::Watching(watching), Input::Message(message)) => watching.message(now, message, &mut self.index),
            (State::Watching(watching), Input::Proof(proof)) => watching.proof(now, &proof, &self.index),
            (State::Watching(watching), Input::Looked(look)) => watching.looked(now, &look),
            (State::Watching(watching), Input::Audited(page)) => {
                let next = now + AUDIT_EVERY.mul_f64(0.8 + 0.4 * self.random.f64());
                watching.audited(now, page, &self.index, next)
            }
            (State::Watching(watching), Input::Wanted) => Ok(watching.wanted(now)),
            (State::Watching(watching), Input::Woke) => Ok(watching.ask(now)),
            (State::Watching(watching), Input::Tick) => Ok(watching.tick(now)),
            (_, Input::Wanted) => {
                self.wanted = true;
                return Vec::new();
            }
            // An answer to a question of before the last break.
            _ => return Vec::new(),
        };
        if let (State::Watching(watching), Some(held)) = (&self.state, &mut self.held) {
            held.revision = watching.applied;
            self.audit_at = watching.audit_at;
        }
        match outcome {
            Ok(commands) => commands,
            Err(Untrue::Lost(fault)) => self.relist(now, ListReason::LostEvents, fault),
            Err(Untrue::Differs(fault)) => {
                self.other_history = true;
                let mut commands = self.relist(now, ListReason::HistoryChanged, fault);
                commands.insert(0, Command::AuditDiffers);
                commands
            }
            // It may be as slow elsewhere: a break and no list.
            Err(Untrue::Broken(fault)) => self.give_up(now, fault),
        }
    }

    /// Whether a linearizable read is of the history that is held, at or after what had been applied when it was asked
    /// for. Takes note of its term.
    fn continues(&mut self, header: Header, since: Revision) -> bool {
        match &mut self.held {
            Some(held) => {
                let continues = header.cluster == held.cluster && header.term >= held.term && header.revision >= since;
                if continues {
                    held.term = header.term;
                }
                continues
            }
            None => true,
        }
    }

    fn applied(&self) -> Revision {
        self.held.map_or(0, |held| held.revision)
    }

    fn connected(&mut self, now: Time, asked: Time, header: Header, past: &Past) -> Vec<Command> {
        // After a lost change the index is not what etcd had in any history.
        let spoiled = self.must_list == Some(ListReason::LostEvents) && matches!(past, Past::Known { .. });
        let remembered = spoiled || self.index.remembers(past);
        if !remembered || !self.continues(header, self.applied()) {
            // One member may be wrong (etcd #20418): the next one is asked before it is believed.
            if !std::mem::replace(&mut self.doubted, true) {
                let reason = "etcd's history went back, or it is another cluster".to_owned();
                let mut commands = self.give_up(now, Fault { kind: ErrorKind::HistoryChanged, reason });
                commands.pop();
                commands.push(Command::Wait(LOOK_AGAIN));
                return commands;
            }
            self.other_history = true;
            return self.list(now, ListReason::HistoryChanged, 0);
        }
        self.doubted = false;
        match (self.held, self.must_list) {
            // The same history: etcd itself says if the place to go on from has been compacted.
            (Some(held), None) => {
                // Nothing has happened since: this read is a proof, of all but the values.
                let proves = header.revision == held.revision && matches!(past, Past::Known { .. });
                self.open(held.revision, header.revision, Values::Unproven { withheld: proves.then_some(asked) })
            }
            (_, reason) => self.list(now, reason.unwrap_or(ListReason::Start), 0),
        }
    }

    fn list(&mut self, now: Time, reason: ListReason, restarts: u32) -> Vec<Command> {
        // Should it fail, what is held is no place to go on from.
        self.must_list = Some(reason);
        let listing = Listing::new(now, reason, restarts, self.page);
        let commands = vec![Command::Begin(reason), listing.first_page()];
        self.state = State::Listing(listing);
        commands
    }

    fn page(&mut self, page: Page) -> Vec<Command> {
        let State::Listing(listing) = &mut self.state else { return Vec::new() };
        if let Some(next) = listing.take(&page, self.page) {
            // Asked for first: etcd reads it while this one is compiled.
            return vec![next, Command::Bring(page.entries)];
        }
        if listing.is_doubtful(&self.index) {
            return vec![Command::Wait(CONFIRM_EMPTY)];
        }
        let (asked, header) = (listing.asked, listing.header.unwrap_or(page.header));
        self.index = std::mem::take(&mut listing.index);
        let mut commands = vec![Command::Bring(page.entries)];
        if std::mem::take(&mut self.other_history) | !self.continues(header, self.applied()) {
            commands.push(Command::NewEpoch);
        }
        self.held = Some(header);
        self.must_list = None;
        self.doubted = false;
        commands.push(Command::Commit(header));
        commands.push(Command::Proven { asked });
        commands.extend(self.open(header.revision, header.revision, Values::Proven));
        commands
    }

    fn open(&mut self, applied: Revision, head: Revision, values: Values) -> Vec<Command> {
        self.state = State::Opening { head, values };
        vec![Command::Watch { from: applied + 1 }]
    }

    fn opened(&mut self, now: Time, revision: Revision, values: Values) -> Vec<Command> {
        let applied = self.applied();
        if values != Values::Proven {
            self.audit_at = self.audit_at.min(now);
        }
        let mut watching = Watching::new(now, applied, revision, self.index.len(), self.audit_at, values);
        let commands = watching.begin(now, std::mem::take(&mut self.wanted));
        self.state = State::Watching(Box::new(watching));
        commands
    }

    fn fault(&mut self, now: Time, fault: Fault) -> Vec<Command> {
        match (&self.state, fault.kind) {
            (State::Listing(listing), ErrorKind::Compacted) if listing.restarts < 3 => {
                let (reason, restarts) = (listing.reason, listing.restarts + 1);
                return self.list(now, reason, restarts);
            }
            (State::Listing(listing), ErrorKind::TooLarge) if listing.limit > 1 => {
                let (reason, restarts) = (listing.reason, listing.restarts);
                self.page = listing.limit / 2;
                return self.list(now, reason, restarts);
            }
            (State::Listing(listing), ErrorKind::Timeout) => self.page = (listing.limit / 2).max(1),
            (State::Opening { .. } | State::Watching(_), ErrorKind::Compacted) => {
                return self.relist(now, ListReason::Compacted, fault);
            }
            (State::Opening { .. } | State::Watching(_), ErrorKind::TooLarge) => {
                return self.relist(now, ListReason::TooLarge, fault);
            }
            _ => {}
        }
        self.give_up(now, fault)
    }

    /// Reads everything again, on a new connection, after the wait that any break costs and some more.
    fn relist(&mut self, now: Time, reason: ListReason, fault: Fault) -> Vec<Command> {
        self.must_list = Some(reason);
        let mut commands = self.give_up(now, fault);
        if let Some(Command::Wait(wait)) = commands.last_mut() {
            *wait += SPREAD.mul_f64(self.random.f64());
        }
        commands
    }

    fn give_up(&mut self, now: Time, fault: Fault) -> Vec<Command> {
        if let State::Watching(watching) = &self.state
            && now.saturating_sub(watching.since) >= GOOD_FOR
        {
            self.backoff.reset();
            self.refused.reset();
        }
        self.state = State::Idle;
        self.endpoint = (self.endpoint + 1) % self.endpoints.max(1);
        let backoff = match fault.kind {
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => &mut self.refused,
            _ => &mut self.backoff,
        };
        let wait = backoff.next(&mut self.random);
        vec![Command::Close, Command::Disconnected(fault), Command::Wait(wait)]
    }
}

#[cfg(test)]
mod tests;
