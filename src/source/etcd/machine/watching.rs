//! An open watch: what it has brought, and how it is kept honest.

use super::audit::{Audit, Compared, PAUSES, PAUSES_UNPROVEN};
use super::index::Index;
use super::{
    ASK_EVERY, AuditPage, Command, DOUBTS, Event, Fault, Header, LOOK_EVERY, Look, Message, PROVE_AGAIN, PROVE_EVERY,
    Proof, REST, Revision, SILENCE, Time,
};
use crate::store::ErrorKind;

#[derive(Debug)]
pub(super) struct Watching {
    pub(super) since: Time,
    /// Where etcd was when the watch was opened.
    opened_at: Revision,
    /// What is published.
    pub(super) applied: Revision,
    /// Whether it has been said that the configuration is live.
    live: bool,
    /// When the last message came.
    heard: Time,
    asked: Time,
    /// When the next proof is due.
    prove_at: Time,
    /// How many proofs in a row found changes that the watch has not brought.
    doubts: u32,
    /// Somebody waits for a proof that is asked for from now on.
    wanted: bool,
    /// When the next look that somebody waits for may begin.
    look_at: Time,
    /// Somebody waits, and etcd has moved: only a proof that looks at every key can say where.
    moved: bool,
    /// When the next proof that somebody waits for may begin.
    next_proof_at: Time,
    values: Values,
    /// A proof that was asked for at a time and is good once this revision has been applied.
    awaited: Option<(Time, Revision)>,
    /// When the next audit is due.
    pub(super) audit_at: Time,
    audit: Option<Audit>,
    /// What was asked on the other connection, one thing at a time.
    question: Option<Question>,
    /// Changes of a revision whose rest is still to come.
    held: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Look { asked: Time },
    Proof { asked: Time },
    Audit,
}

/// Whether the values have been compared, or read, since the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Proven,
    /// With the newest proof that is to be told once they are.
    Unproven {
        withheld: Option<Time>,
    },
}

/// Why the watch cannot go on.
pub(super) enum Untrue {
    /// A change was lost: everything must be read again.
    Lost(Fault),
    /// etcd holds another value than it held: another history.
    Differs(Fault),
    /// The values cannot be read.
    Broken(Fault),
}

impl Untrue {
    fn because(kind: ErrorKind, reason: &str) -> Self {
        Self::Lost(Fault { kind, reason: reason.to_owned() })
    }
}

impl Watching {
    pub(super) fn new(now: Time, applied: Revision, opened_at: Revision, audit_at: Time, values: Values) -> Self {
        Self {
            since: now,
            opened_at,
            applied,
            live: false,
            heard: now,
            asked: now,
            prove_at: now + PROVE_EVERY,
            doubts: 0,
            wanted: false,
            look_at: now,
            moved: false,
            next_proof_at: now,
            values,
            awaited: None,
            audit_at,
            audit: None,
            question: None,
            held: Vec::new(),
        }
    }

    /// The first commands on a fresh watch: is what is held current already? `wanted` if somebody waits for a proof.
    pub(super) fn begin(&mut self, now: Time, wanted: bool) -> Vec<Command> {
        let current = self.opened_at <= self.applied;
        let mut commands = if current { self.go_live() } else { Vec::new() };
        self.wanted = wanted && current;
        commands.extend(match current {
            true => self.ask(now),
            // What happened since may be elsewhere in etcd, and only a proof can say.
            false => self.prove(now),
        });
        commands
    }

    pub(super) fn message(&mut self, now: Time, message: Message, index: &mut Index) -> Result<Vec<Command>, Untrue> {
        self.heard = now;
        let mut last = self.held.last().map_or(self.applied, |event| event.revision);
        for event in message.events {
            if event.revision <= self.applied {
                continue;
            }
            if event.revision < last {
                return Err(Untrue::because(ErrorKind::Protocol, "etcd sent an event out of order"));
            }
            last = event.revision;
            self.held.push(event);
        }
        // Of a fragment all revisions are complete but the last.
        let complete = match message.fragment {
            true => self.held.partition_point(|event| event.revision < last),
            false => self.held.len(),
        };
        let rest = self.held.split_off(complete);
        let events = std::mem::replace(&mut self.held, rest);
        let Some(newest) = events.last().map(|event| event.revision) else { return Ok(Vec::new()) };
        for event in &events {
            if let Some(audit) = &mut self.audit {
                audit.touch(event);
            }
            // What it would be applied to is not what etcd had: nothing of it is published.
            if !index.apply(event) {
                return Err(Untrue::because(ErrorKind::LostEvents, "an event does not follow from what was known"));
            }
        }
        self.applied = newest;
        self.doubts = 0;

        let mut commands = Vec::new();
        commands.extend(
            events
                .chunk_by(|a, b| a.revision == b.revision)
                .map(|events| Command::Apply { revision: events[0].revision, events: events.to_vec() }),
        );
        if let Some((asked, _)) = self.awaited.take_if(|(_, revision)| *revision <= newest) {
            self.moved = false;
            commands.extend(self.tell_proven(asked));
        }
        if newest >= self.opened_at {
            commands.extend(self.go_live());
        }
        Ok(commands)
    }

    pub(super) fn proof(&mut self, now: Time, proof: &Proof, index: &Index) -> Result<Vec<Command>, Untrue> {
        let asked = match self.question.take() {
            Some(Question::Proof { asked }) => asked,
            _ => now,
        };
        self.next_proof_at = now + rest(now, asked);
        if self.applied != proof.after || !self.held.is_empty() {
            // Events came in while it was on its way, so that the counts cannot be compared. But once they have come up
            // to where the proof was made, what is published was true then.
            if self.applied < proof.header.revision {
                self.awaited = Some((asked, proof.header.revision));
                self.prove_at = now + PROVE_AGAIN;
                return Ok(Vec::new());
            }
            return Ok(self.proven(now, asked));
        }
        if proof.changed || proof.total != index.len() {
            self.doubts += 1;
            self.prove_at = now + PROVE_AGAIN;
            if self.doubts >= DOUBTS {
                return Err(Untrue::because(ErrorKind::LostEvents, "the watch missed a change"));
            }
            return Ok(Vec::new());
        }
        self.doubts = 0;
        self.heard = now;
        let mut commands = Vec::new();
        if proof.header.revision > self.applied {
            self.applied = proof.header.revision;
            commands.push(Command::Advance(self.applied));
        }
        commands.extend(self.proven(now, asked));
        Ok(commands)
    }

    fn proven(&mut self, now: Time, asked: Time) -> Vec<Command> {
        self.prove_at = now + PROVE_EVERY;
        // One that was asked for earlier has no more to tell.
        self.awaited = None;
        self.moved = false;
        let mut commands: Vec<_> = self.tell_proven(asked).into_iter().collect();
        commands.extend(self.go_live());
        commands.extend(self.ask(now));
        commands
    }

    /// A proof is published when the values are proven too.
    fn tell_proven(&mut self, at: Time) -> Option<Command> {
        match &mut self.values {
            Values::Proven => Some(Command::Proven { asked: at }),
            Values::Unproven { withheld } => {
                *withheld = (*withheld).max(Some(at));
                None
            }
        }
    }

    /// Takes the answer to a look.
    pub(super) fn looked(&mut self, now: Time, look: &Look, index: &Index) -> Vec<Command> {
        let Some(Question::Look { asked }) = self.question.take() else { return Vec::new() };
        self.look_at = self.look_at.max(now + rest(now, asked));
        let Header { revision, .. } = look.header;
        // Keys of later revisions are not in its count.
        if revision < self.applied || (revision == self.applied && look.total == index.len()) {
            self.heard = now;
            self.moved = false;
            let mut commands: Vec<_> = self.tell_proven(asked).into_iter().collect();
            commands.extend(self.go_live());
            commands.extend(self.ask(now));
            return commands;
        }
        // The watch may be about to bring the change, or it was made elsewhere, or lost.
        if revision > self.applied {
            self.awaited = Some((asked, revision));
        }
        self.moved = true;
        self.ask(now)
    }

    /// Takes a page of the audit. `next` is when the next audit is due once this one has held.
    pub(super) fn audited(
        &mut self,
        now: Time,
        page: AuditPage,
        index: &Index,
        next: Time,
    ) -> Result<Vec<Command>, Untrue> {
        self.question = None;
        let Some(audit) = &mut self.audit else { return Ok(Vec::new()) };
        let compared = match page {
            AuditPage::Keys { keys, bytes, more } => audit.compare(now, index, &keys, bytes, more),
            AuditPage::Compacted => {
                audit.renew(now, self.applied);
                Compared::More
            }
            AuditPage::Unwieldy(_) if audit.shorten(now) => Compared::More,
            AuditPage::Unwieldy(fault) => return Err(Untrue::Broken(fault)),
        };
        let mut commands = Vec::new();
        match compared {
            Compared::More => {}
            Compared::Held => {
                self.audit = None;
                self.audit_at = next;
                commands.push(Command::AuditHeld);
                if let Values::Unproven { withheld } = std::mem::replace(&mut self.values, Values::Proven) {
                    commands.extend(withheld.map(|asked| Command::Proven { asked }));
                    self.wanted |= withheld.is_none();
                }
            }
            Compared::Differs => {
                let reason = "a key or a value is not as etcd holds it: it is another history".to_owned();
                return Err(Untrue::Differs(Fault { kind: ErrorKind::HistoryChanged, reason }));
            }
        }
        commands.extend(self.ask(now));
        Ok(commands)
    }

    pub(super) fn tick(&mut self, now: Time) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.is_silent(now) && self.live {
            self.live = false;
            commands.push(Command::Stale);
        }
        if now.saturating_sub(self.asked) >= ASK_EVERY {
            self.asked = now;
            commands.push(Command::AskProgress);
        }
        commands.extend(self.ask(now));
        commands
    }

    /// Somebody waits for a proof: not for the next one that is due.
    pub(super) fn wanted(&mut self, now: Time) -> Vec<Command> {
        self.wanted = true;
        self.ask(now)
    }

    /// Asks the next question that is due, if none is open; or waits for the next one that somebody waits for.
    pub(super) fn ask(&mut self, now: Time) -> Vec<Command> {
        if self.question.is_some() {
            return Vec::new();
        }
        // A stream that lives has nothing to tell of a quiet prefix on some servers: the proof has the word.
        if now >= self.prove_at || self.is_silent(now) || (self.moved && now >= self.next_proof_at) {
            return self.prove(now);
        }
        if self.wanted && now >= self.look_at {
            return self.look(now);
        }
        if self.audit.is_none() && now >= self.audit_at && self.held.is_empty() {
            let pauses = if self.values == Values::Proven { PAUSES } else { PAUSES_UNPROVEN };
            self.audit = Some(Audit::new(now, self.applied, pauses));
        }
        if let Some(audit) = self.audit.as_mut().filter(|audit| now >= audit.next_at) {
            self.question = Some(Question::Audit);
            return vec![audit.ask(now)];
        }
        let waits = [
            self.wanted.then_some(self.look_at),
            self.moved.then_some(self.next_proof_at),
            self.audit.as_ref().map(|audit| audit.next_at),
        ];
        let next = waits.into_iter().flatten().min();
        next.map(|at| Command::Wait(at.saturating_sub(now))).into_iter().collect()
    }

    /// Its answer serves everybody that waits.
    fn look(&mut self, now: Time) -> Vec<Command> {
        self.wanted = false;
        self.look_at = now + LOOK_EVERY;
        self.question = Some(Question::Look { asked: now });
        vec![Command::Look { after: self.applied }]
    }

    fn prove(&mut self, now: Time) -> Vec<Command> {
        self.wanted = false;
        self.moved = false;
        self.question = Some(Question::Proof { asked: now });
        vec![Command::Prove { after: self.applied }]
    }

    fn is_silent(&self, now: Time) -> bool {
        now.saturating_sub(self.heard) >= SILENCE
    }

    fn go_live(&mut self) -> Vec<Command> {
        match std::mem::replace(&mut self.live, true) {
            true => Vec::new(),
            false => vec![Command::Live],
        }
    }
}

/// The pause after an answer, however many ask.
fn rest(now: Time, asked: Time) -> Time {
    (now.saturating_sub(asked) * REST).min(PROVE_EVERY)
}
