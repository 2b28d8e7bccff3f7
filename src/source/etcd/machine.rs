//! What to do next, and when what was learned may be published.
//!
//! The machine is pure: time is a number that comes in with each input, randomness a seed, and what is to be done goes
//! out as commands. Its rules:
//!
//! * `applied` is moved by a list, by an event, or by a proof that held; by nothing else. The watch goes on behind it.
//! * A watch that etcd refuses arrives as an ordinary message: `canceled` is looked at before all else.
//! * The proof is a linearizable read of the keys under the prefix that changed after `applied`. None changed, and there
//!   are as many keys as we know: then what we hold is what etcd held when it answered, whatever its version. Keys that
//!   did change may still be under way on the watch; when they do not come, everything is read again.
//! * A header's revision is never a place to resume from.

use std::time::Duration;

use bytes::Bytes;

/// Retries begin at this bound and double up to [`MAX_BACKOFF`]; the time is drawn evenly from below the bound.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// No retry comes sooner, so that no error can make a tight loop.
const LEAST_WAIT: Duration = Duration::from_millis(20);

/// A connection that held this long was good: the next break starts with a short wait again.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// How often the watch is asked for its progress, so that a stream that lives has something to say.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A stream that says nothing for this long is doubted.
const SILENCE: Duration = Duration::from_secs(12);

/// How often it is proven that nothing was missed.
const PROVE_EVERY: Duration = Duration::from_secs(10);

/// How soon a proof is tried again that found changes which the watch has not brought yet.
const PROVE_AGAIN: Duration = Duration::from_millis(500);

/// So many proofs in a row may fail, with no event in between, before everything is read again.
const DOUBTS: u32 = 4;

/// Keys in one page of a list, unless pages turn out too large to be decoded.
const PAGE: i64 = 1000;

/// Time since the driver began. Monotonic.
pub(super) type Time = Duration;

/// A revision of etcd; always positive.
pub(super) type Revision = i64;

#[derive(Debug)]
pub(super) struct Machine {
    endpoints: usize,
    endpoint: usize,
    random: fastrand::Rng,
    /// Breaks in a row.
    failures: u32,
    /// The page size that etcd's answers have fitted into.
    page: i64,
    /// What is published.
    applied: Option<Revision>,
    /// Keys under the prefix at `applied`, ours or not.
    keys: i64,
    /// The cluster that `applied` is a revision of.
    cluster: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting,
    Listing { asked: Time, at: Option<Revision>, keys: i64, restarts: u32 },
    Opening,
    Watching(Watching),
}

#[derive(Debug)]
struct Watching {
    since: Time,
    /// When the last message came.
    heard: Time,
    asked: Time,
    /// When the next proof is due.
    prove_at: Time,
    /// When the proof that is under way was asked for.
    proving: Option<Time>,
    doubts: u32,
    /// Whether it has been said that the configuration is live.
    live: bool,
    /// Where etcd was when the watch was opened.
    opened_at: Revision,
    /// A proof that was asked for at a time and is good once this revision has been applied.
    awaited: Option<(Time, Revision)>,
    /// Changes of a revision whose rest is still to come.
    held: Vec<Event>,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// Begin.
    Start,
    /// The wait is over.
    Woke,
    /// A connection stands and a linearizable read came back.
    Connected { cluster: u64, revision: Revision },
    /// One page of the list.
    Page(Page),
    /// The watch has been created.
    Opened { revision: Revision },
    /// The watch says something.
    Message(Message),
    /// The proof came back.
    Proof(Proof),
    /// A second or so went by.
    Tick,
    /// Something broke.
    Fault(Fault),
}

#[derive(Debug)]
pub(super) struct Page {
    pub(super) revision: Revision,
    /// All keys under the prefix, whatever the page holds; only the first page is asked.
    pub(super) total: i64,
    pub(super) entries: Vec<Entry>,
    pub(super) more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
    pub(super) revision: Revision,
}

#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) canceled: Option<Canceled>,
    pub(super) events: Vec<Event>,
    /// The revision is not complete: more of it is to come.
    pub(super) fragment: bool,
}

#[derive(Debug)]
pub(super) struct Canceled {
    /// Positive when the start of the watch has been compacted.
    pub(super) compact_revision: Revision,
    pub(super) reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) key: Vec<u8>,
    /// `None` when the key was deleted.
    pub(super) value: Option<Bytes>,
    pub(super) revision: Revision,
    /// Whether the key was not there before.
    pub(super) created: bool,
}

#[derive(Debug)]
pub(super) struct Proof {
    pub(super) revision: Revision,
    /// Whether any key changed after the revision that was asked about.
    pub(super) changed: bool,
    pub(super) total: i64,
    /// The revision that was asked about.
    pub(super) after: Revision,
    pub(super) cluster: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The revision that was asked for has been compacted.
    Compacted,
    /// A message was too large to be decoded.
    TooLarge,
    /// A page did not arrive in time.
    TooSlow,
    /// Anything else: the connection is given up.
    Broken,
}

/// What to do. Commands are done in order; at most one of a step's commands leads to a later input of its own
/// (`Connect`, `List`, `Watch`, `Prove`, `Wait`).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Give up every connection.
    Close,
    /// Wake up after this time.
    Wait(Duration),
    /// Connect to this endpoint, authenticate, and do a linearizable read.
    Connect(usize),
    /// Read a page: at a revision, or at the newest; after a key, or from the first.
    List { at: Option<Revision>, after: Option<Vec<u8>>, limit: i64 },
    /// Open a watch.
    Watch { from: Revision },
    /// Ask the watch for its progress.
    AskProgress,
    /// Ask which keys changed after a revision.
    Prove { after: Revision },

    /// A list begins.
    Begin,
    /// These belong to the list.
    Bring(Vec<Entry>),
    /// The list is complete: publish it.
    Commit(Revision),
    /// Publish these changes at once.
    Apply { revision: Revision, events: Vec<Event> },
    /// Nothing else has changed up to here.
    Advance(Revision),
    /// What is published was current at this time: when the proof was asked for.
    Proven { asked: Time },
    /// Every change is followed.
    Live,
    /// The watch is silent.
    Stale,
    /// Changes are not seen at present.
    Disconnected(String),
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
            failures: 0,
            page: PAGE,
            applied: None,
            keys: 0,
            cluster: 0,
            state: State::Idle,
        }
    }

    /// Takes one input at `now` and says what to do.
    pub(super) fn step(&mut self, now: Time, input: Input) -> Vec<Command> {
        match (&mut self.state, input) {
            (_, Input::Fault(fault)) => self.fault(now, fault),
            (State::Idle, Input::Start | Input::Woke) => {
                self.state = State::Connecting;
                vec![Command::Connect(self.endpoint)]
            }
            (State::Connecting, Input::Connected { cluster, revision }) => self.connected(now, cluster, revision),
            (State::Listing { .. }, Input::Page(page)) => self.page(page),
            (State::Opening, Input::Opened { revision }) => self.opened(now, revision),
            (State::Watching(watching), Input::Message(message)) => {
                watching.heard = now;
                self.message(now, message)
            }
            (State::Watching(_), Input::Proof(proof)) => self.proof(now, &proof),
            (State::Watching(watching), Input::Tick) => watching.tick(now, self.applied.unwrap_or(0)),
            // An answer to a question of before the last break.
            _ => Vec::new(),
        }
    }

    fn connected(&mut self, now: Time, cluster: u64, revision: Revision) -> Vec<Command> {
        match self.applied {
            // The same history: etcd itself says if the place to go on from has been compacted.
            Some(applied) if cluster == self.cluster && revision >= applied => self.open(applied),
            // Nothing yet, another cluster, or a history that went back.
            _ => {
                self.cluster = cluster;
                // Should the list fail, what is held is still of the other history: it is no place to go on from.
                self.applied = None;
                self.list(now, 0)
            }
        }
    }

    fn list(&mut self, now: Time, restarts: u32) -> Vec<Command> {
        self.state = State::Listing { asked: now, at: None, keys: 0, restarts };
        vec![Command::Begin, Command::List { at: None, after: None, limit: self.page }]
    }

    fn page(&mut self, page: Page) -> Vec<Command> {
        let State::Listing { asked, at, keys, .. } = &mut self.state else { return Vec::new() };
        let asked = *asked;
        let revision = *at.get_or_insert(page.revision);
        if *keys == 0 {
            *keys = page.total;
        }
        let last = page.entries.last().map(|entry| entry.key.clone());
        let mut commands = vec![Command::Bring(page.entries)];
        match last {
            Some(last) if page.more => {
                commands.push(Command::List { at: Some(revision), after: Some(last), limit: self.page });
            }
            _ => {
                self.applied = Some(revision);
                self.keys = *keys;
                commands.push(Command::Commit(revision));
                commands.push(Command::Proven { asked });
                commands.extend(self.open(revision));
            }
        }
        commands
    }

    fn open(&mut self, applied: Revision) -> Vec<Command> {
        self.state = State::Opening;
        vec![Command::Watch { from: applied + 1 }]
    }

    fn opened(&mut self, now: Time, revision: Revision) -> Vec<Command> {
        let applied = self.applied.unwrap_or(0);
        let mut watching = Watching {
            since: now,
            heard: now,
            asked: now,
            prove_at: now + PROVE_EVERY,
            proving: None,
            doubts: 0,
            live: false,
            opened_at: revision,
            awaited: None,
            held: Vec::new(),
        };
        // Up to date already; else what happened since may be elsewhere in etcd, and only a proof can say.
        let commands = if revision <= applied { watching.go_live() } else { watching.prove(now, applied) };
        self.state = State::Watching(watching);
        commands
    }

    fn message(&mut self, now: Time, message: Message) -> Vec<Command> {
        if let Some(canceled) = message.canceled {
            let compacted = canceled.compact_revision > 0;
            let kind = if compacted { FaultKind::Compacted } else { FaultKind::Broken };
            let reason = format!("etcd canceled the watch: {}", canceled.reason);
            return self.fault(now, Fault { kind, reason });
        }
        let State::Watching(watching) = &mut self.state else { return Vec::new() };
        let mut last = watching.held.last().map_or(self.applied.unwrap_or(0), |event| event.revision);
        for event in message.events {
            if event.revision <= self.applied.unwrap_or(0) {
                continue;
            }
            if event.revision < last {
                return self.relist(now, "etcd sent an event out of order".to_owned());
            }
            last = event.revision;
            watching.held.push(event);
        }
        // Of a fragment all revisions are complete but the last.
        let complete = match message.fragment {
            true => watching.held.partition_point(|event| event.revision < last),
            false => watching.held.len(),
        };
        let rest = watching.held.split_off(complete);
        let events = std::mem::replace(&mut watching.held, rest);
        let Some(newest) = events.last().map(|event| event.revision) else { return Vec::new() };
        for event in &events {
            self.keys += i64::from(event.value.is_some() && event.created) - i64::from(event.value.is_none());
        }
        self.applied = Some(newest);
        watching.doubts = 0;
        let mut commands: Vec<_> = events
            .chunk_by(|a, b| a.revision == b.revision)
            .map(|events| Command::Apply { revision: events[0].revision, events: events.to_vec() })
            .collect();
        if let Some((asked, _)) = watching.awaited.take_if(|(_, revision)| *revision <= newest) {
            commands.push(Command::Proven { asked });
        }
        if newest >= watching.opened_at {
            commands.extend(watching.go_live());
        }
        commands
    }

    fn proof(&mut self, now: Time, proof: &Proof) -> Vec<Command> {
        let applied = self.applied.unwrap_or(0);
        let State::Watching(watching) = &mut self.state else { return Vec::new() };
        let asked = watching.proving.take().unwrap_or(now);
        if proof.cluster != self.cluster || proof.revision < proof.after {
            // Not this stream's fault, but nothing it says can be trusted: start from what is there now.
            return self.relist(now, "etcd's history went back, or it is another cluster".to_owned());
        }
        if applied != proof.after || !watching.held.is_empty() {
            // Events came in while it was on its way, so that the counts cannot be compared. But once they have come up
            // to where the proof was made, what is published was true then.
            watching.prove_at = now + PROVE_EVERY;
            if applied < proof.revision {
                watching.awaited = Some((asked, proof.revision));
                watching.prove_at = now + PROVE_AGAIN;
                return Vec::new();
            }
            let mut commands = vec![Command::Proven { asked }];
            commands.extend(watching.go_live());
            return commands;
        }
        if proof.changed || proof.total != self.keys {
            watching.doubts += 1;
            watching.prove_at = now + PROVE_AGAIN;
            if watching.doubts >= DOUBTS {
                return self.relist(now, "the watch missed a change".to_owned());
            }
            return Vec::new();
        }
        watching.doubts = 0;
        watching.prove_at = now + PROVE_EVERY;
        watching.heard = now;
        self.applied = Some(proof.revision);
        let mut commands = Vec::new();
        if proof.revision > applied {
            commands.push(Command::Advance(proof.revision));
        }
        commands.push(Command::Proven { asked });
        commands.extend(watching.go_live());
        commands
    }

    fn fault(&mut self, now: Time, fault: Fault) -> Vec<Command> {
        match (&self.state, fault.kind) {
            (State::Listing { restarts, .. }, FaultKind::Compacted) if *restarts < 3 => {
                let restarts = restarts + 1;
                return self.list(now, restarts);
            }
            (State::Listing { restarts, .. }, FaultKind::TooLarge) if self.page > 1 => {
                let restarts = *restarts;
                self.page /= 2;
                return self.list(now, restarts);
            }
            (State::Listing { .. }, FaultKind::TooSlow) => self.page = (self.page / 2).max(1),
            (State::Opening | State::Watching(_), FaultKind::Compacted | FaultKind::TooLarge) => {
                return self.relist(now, fault.reason);
            }
            _ => {}
        }
        self.give_up(now, fault.reason)
    }

    /// Reads everything again, on a new connection and after the wait that any break costs.
    fn relist(&mut self, now: Time, reason: String) -> Vec<Command> {
        self.applied = None;
        self.give_up(now, reason)
    }

    fn give_up(&mut self, now: Time, reason: String) -> Vec<Command> {
        if let State::Watching(watching) = &self.state
            && now.saturating_sub(watching.since) >= GOOD_FOR
        {
            self.failures = 0;
        }
        self.state = State::Idle;
        self.endpoint = (self.endpoint + 1) % self.endpoints.max(1);
        let wait = self.backoff();
        vec![Command::Close, Command::Disconnected(reason), Command::Wait(wait)]
    }

    fn backoff(&mut self) -> Duration {
        let bound = MIN_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(self.random.f64()).max(LEAST_WAIT)
    }
}

impl Watching {
    fn tick(&mut self, now: Time, applied: Revision) -> Vec<Command> {
        let mut commands = Vec::new();
        let silent = now.saturating_sub(self.heard) >= SILENCE;
        if silent && self.live {
            self.live = false;
            commands.push(Command::Stale);
        }
        if now.saturating_sub(self.asked) >= ASK_EVERY {
            self.asked = now;
            commands.push(Command::AskProgress);
        }
        // A stream that lives has nothing to tell of a quiet prefix on some servers: the proof has the word.
        if self.proving.is_none() && (now >= self.prove_at || silent) {
            commands.extend(self.prove(now, applied));
        }
        commands
    }

    fn prove(&mut self, now: Time, applied: Revision) -> Vec<Command> {
        self.proving = Some(now);
        vec![Command::Prove { after: applied }]
    }

    fn go_live(&mut self) -> Vec<Command> {
        match std::mem::replace(&mut self.live, true) {
            true => Vec::new(),
            false => vec![Command::Live],
        }
    }
}

#[cfg(test)]
mod tests;
