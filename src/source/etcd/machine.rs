//! Decides what to do next, and when the configuration may be published.
//!
//! The machine is pure: time is a number that comes with each input, randomness a seed, and the actions are returned as
//! commands. Its rules:
//!
//! * The applied revision advances by a list, by an event, or by a successful proof, and by nothing else. The watch
//!   continues after it.
//! * A watch that etcd refuses arrives as an ordinary message: `canceled` is checked first.
//! * A proof is a linearizable read of the keys under the prefix that changed after `applied`. If none changed, and the
//!   number of keys is the known one, then our keys are what etcd held when it answered. Keys that did change may still
//!   be on their way through the watch; if they do not arrive, everything is read again.
//! * A lost change is found even while keys change all the time. The number of keys in each answer is compared with our
//!   own number at the answer's own revision, which may be behind or ahead of the applied one: an answer that is merely
//!   late never differs. Up to 1000 keys that changed since the last proof are compared too, by their revisions. After
//!   four differing answers in a row, whatever the watch delivers in between, everything is read again.
//! * The revision of a header is never a place to resume from.
//! * A reader's request for a proof causes a look: etcd returns its revision and the number of keys. If the revision is
//!   the applied one, the look is a proof; if not, the read of the changed keys follows. Looks and these reads are
//!   shared between readers and paced.
//! * Each event must follow from the known state of its key. If it does not, an earlier event was missed: the event is
//!   not published, and everything is read again.
//! * An etcd that was wiped and filled again by the same script has the same revisions and versions. So an audit
//!   compares the values by digest: on each connection on which nothing was listed, and at intervals. No proof of a
//!   connection is published before the audit has succeeded. A difference means another history.
//! * A linearizable read from another cluster, of an earlier raft term or of an earlier revision means another history:
//!   a backup was restored, or the data wiped. So does a past that disagrees with our index, which each new connection
//!   is asked about. Another history must be seen twice; it then starts a new epoch.
//! * An empty list must be seen twice before it empties a configuration.

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
use self::watching::{Invalid, Values, Watching};
use crate::store::{ErrorKind, ListReason};

/// After a connection that lasted this long, the next disconnection starts with a short wait again.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// The time between two audits, give or take a fifth.
const AUDIT_EVERY: Duration = Duration::from_secs(600);

/// The time between the two sightings of another history.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A compaction or a lost change hits many receivers at the same moment: each waits for a random time below this before
/// it reads everything.
const SPREAD: Duration = Duration::from_secs(2);

/// The time between the two sightings of an empty list.
const CONFIRM_EMPTY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Machine {
    endpoints: usize,
    endpoint: usize,
    random: fastrand::Rng,
    backoff: Backoff,
    /// The backoff for refused credentials: each attempt costs etcd a slow hash.
    refused: Backoff,
    /// The most keys in a page of a list; reduced when a page was too large to be decoded, or too slow.
    page: i64,
    /// The published state: the newest header of its history, with the applied revision.
    held: Option<Header>,
    /// Every key at the applied revision.
    index: Index,
    /// Why everything must be read, if the watch cannot resume from the applied revision.
    must_list: Option<ListReason>,
    /// Whether another history has been seen once.
    doubted: bool,
    /// Whether another history has been seen twice: the next list begins an epoch.
    other_history: bool,
    /// A reader has asked for a proof while no watch was open.
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
        /// etcd's revision according to a linearizable read. The member that serves the watch may be behind.
        head: Revision,
        /// Whether a list has proven the values.
        values: Values,
    },
    Watching(Box<Watching>),
}

impl Machine {
    /// A machine for a cluster with `endpoints` endpoints.
    pub(super) fn new(endpoints: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            endpoints,
            // Receivers that start together do not all connect to the first member.
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

    /// Resumes from the state of an earlier process: its header, with the applied revision, and every key.
    ///
    /// etcd may have been changed in any way meanwhile: the values are compared on the first connection.
    pub(super) fn resume<'a>(&mut self, held: Header, keys: impl IntoIterator<Item = (&'a [u8], Known)>) {
        for (key, known) in keys {
            self.index.insert(key, known);
        }
        self.held = Some(held);
        self.must_list = None;
    }

    /// Takes one input at the time `now` and returns the commands.
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
            // An answer to a question from before the last disconnection.
            _ => return Vec::new(),
        };
        if let (State::Watching(watching), Some(held)) = (&self.state, &mut self.held) {
            held.revision = watching.applied;
            self.audit_at = watching.audit_at;
        }
        match outcome {
            Ok(commands) => commands,
            Err(Invalid::Lost(fault)) => self.relist(now, ListReason::LostEvents, fault),
            Err(Invalid::Differs(fault)) => {
                self.other_history = true;
                let mut commands = self.relist(now, ListReason::HistoryChanged, fault);
                commands.insert(0, Command::AuditDiffers);
                commands
            }
            // Another endpoint may be as slow: reconnect, without a list.
            Err(Invalid::Broken(fault)) => self.give_up(now, fault),
        }
    }

    /// Whether a linearizable read belongs to the history that is held, at or after the revision that was applied when
    /// it was requested. Records the read's term.
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
        // After a lost change the index never matched any history of etcd.
        let spoiled = self.must_list == Some(ListReason::LostEvents) && matches!(past, Past::Known { .. });
        let remembered = spoiled || self.index.remembers(past);
        if !remembered || !self.continues(header, self.applied()) {
            // A single member may be wrong (etcd #20418): the next one is asked before another history is believed.
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
            // The same history. If the revision to resume from has been compacted, etcd reports it.
            (Some(held), None) => {
                // Nothing has changed since: this read is a proof of everything but the values.
                let proves = header.revision == held.revision && matches!(past, Past::Known { .. });
                self.open(held.revision, header.revision, Values::Unproven { withheld: proves.then_some(asked) })
            }
            (_, reason) => self.list(now, reason.unwrap_or(ListReason::Start), 0),
        }
    }

    fn list(&mut self, now: Time, reason: ListReason, restarts: u32) -> Vec<Command> {
        // If the list fails, the watch cannot resume from the applied revision.
        self.must_list = Some(reason);
        let listing = Listing::new(now, reason, restarts, self.page);
        let commands = vec![Command::Begin(reason), listing.first_page()];
        self.state = State::Listing(listing);
        commands
    }

    fn page(&mut self, page: Page) -> Vec<Command> {
        let State::Listing(listing) = &mut self.state else { return Vec::new() };
        if let Some(next) = listing.take(&page, self.page) {
            // Requested first, so that etcd reads the next page while this one is compiled.
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

    /// Reads everything again, on a new connection, after the usual wait for a disconnection plus a random time.
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
